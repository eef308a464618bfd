"""The night in which clocks are set back, on a server that tells time as Berlin does.

From 00:00Z to 02:00Z local clocks show 02:00 to 03:00 twice. Two moments an hour apart then look
the same, and no job may take one for the other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.explain.job import explain
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.reconcile import reconcile
from tests.integration.jobs.stories import (
    a_stream_vanishes_and_returns,
    an_unknown_uuid_falls_idle,
    exporter_down_for_six_minutes,
    pages_that_split_minutes,
)
from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.integration.jobs.world import World

CLOCKS_ARE_SET_BACK = datetime(2026, 10, 25, tzinfo=UTC)
HOURS_END = 122

# Each reads or writes times in another way: gaps, pages, pending usage, streams that were absent.
TIMED = (
    exporter_down_for_six_minutes,
    pages_that_split_minutes,
    an_unknown_uuid_falls_idle,
    a_stream_vanishes_and_returns,
)

READ_NET_AMOUNT = "SELECT -sum(amount_delta)::numeric FROM billing.charges"


@pytest.fixture
def berlin(database_url: str, job_url: str) -> Iterator[World]:
    """Return a world that begins with the repeated hour, billed through Berlin's time."""
    role = psycopg.conninfo.conninfo_to_dict(job_url)["user"]
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        setting = f"ALTER ROLE {role} IN DATABASE {name} SET TimeZone = 'Europe/Berlin'"
        connection.execute(setting.encode())
    with serving_world(database_url, job_url, CLOCKS_ARE_SET_BACK) as made:
        yield made


@pytest.mark.parametrize("story", TIMED, ids=lambda story: story.__name__)
def test_every_byte_is_billed_once(berlin: World, story: Callable[[World], None]) -> None:
    """Whatever happens, as at any other time of the year."""
    story(berlin)
    berlin.assert_all_is_billed()


def test_minutes_an_hour_apart_are_two(berlin: World) -> None:
    """Collected, reconciled, re-rated, audited and explained, each minute stands for itself."""
    (user,) = berlin.add_users(1)
    berlin.add_node("jp-1", [user])
    bill_both_hours(berlin)
    assert berlin.run(berlin.at(HOURS_END + 2), reconcile).corrections == 0

    before = berlin.rows(READ_NET_AMOUNT)[0][0]
    berlin.price *= 2
    context = berlin.context(berlin.at(HOURS_END + 2))
    rerate(context, Order(berlin.at(0), berlin.at(HOURS_END + 1), "v2", "the price was wrong"))
    assert berlin.rows(READ_NET_AMOUNT)[0][0] == pytest.approx(2 * before, abs=Decimal("1e-6"))

    assert audit(context).violations == 0
    told = explain(
        context, user.uuid, since=berlin.at(0), until=berlin.at(HOURS_END + 1), limit=200
    )
    assert len({story.minute for story in told.minutes}) == len(told.minutes) > 60
    assert {story.minute.tzinfo for story in told.minutes} == {UTC}


def test_unknown_users_an_hour_apart_are_settled(berlin: World) -> None:
    """One was active for the last time an hour before the other; then both are, in one minute."""
    node = berlin.add_node("jp-1", berlin.add_users(1))
    unknown = [berlin.fleet.new_uuid() for _ in range(2)]
    streams = [node.add_stream(one, idle=True) for one in unknown]
    for minute, stream in zip((31, 91), streams, strict=True):
        berlin.flow_until(minute)
        node.flow(stream, 10_000, 20_000)
    bill_both_hours(berlin)
    berlin.pending_allowed = True
    for stream in streams:
        node.flow(stream, 10_000, 20_000)
    for minute in (1, 2, 3):
        berlin.flow_until(HOURS_END + minute)
        assert berlin.run(berlin.at(HOURS_END + minute + 1.7)).status == "ok"
        for one in unknown[minute - 1 : minute]:
            berlin.fleet.add_user(uuid=one)
        berlin.save_users()
    berlin.unknown_buckets = True
    berlin.assert_all_is_billed()
    assert audit(berlin.context(berlin.at(HOURS_END + 6))).violations == 0


def bill_both_hours(world: World) -> None:
    """Let traffic flow for two hours, and collect it."""
    world.flow_until(HOURS_END)
    world.run(world.at(0.7))
    world.run(world.at(HOURS_END + 1.7), catch_up)
