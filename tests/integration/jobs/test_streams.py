"""Streams that are odd: nobody's, somebody's who is gone, too fast, or not readable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.publication import retagged
from tests.integration.jobs.world import FIRES_AT, only_source

if TYPE_CHECKING:
    from tests.integration.jobs.world import Job, World

GIGABYTE = 10**9


def test_the_first_snapshot_of_a_source_is_a_baseline(world: World) -> None:
    """What flowed before nobody knows from when; it is named as not billed."""
    node = world.add_node("jp-1", world.add_users(2))
    for stream in node.streams:
        node.flow(stream, 5000, 6000)
    world.flow_until(6)
    world.collect_every_minute(1, 7)
    assert world.rows("SELECT DISTINCT origin FROM billing.streams") == [("baseline",)]
    assert {one.reason for one in Oracle(world.fleet).unbilled()} == {"baseline"}
    world.assert_all_is_billed(apart_from=2 * 11_000)


def test_the_first_snapshot_is_charged_where_the_policy_says_so(world: World) -> None:
    """As for a node that is new itself, whose counters began at 0 with it."""
    node = world.add_node("jp-1", world.add_users(2))
    for stream in node.streams:
        node.flow(stream, 5000, 6000)
    world.flow_until(6, rate=0)
    world.deltas = DeltaPolicy(charge_first_snapshot=True)
    world.run_unchecked(world.at(8), catch_up)
    assert world.billed_bytes() == (22_000, 22_000)
    assert world.rows("SELECT DISTINCT origin FROM billing.streams") == [("new",)]


def test_an_unknown_uuid_blocks_nobody(world: World) -> None:
    """It is counted in each run, and waits; the status of the run is not its fault."""
    node = world.add_node("jp-1", world.add_users(2))
    node.add_stream(world.fleet.new_uuid())
    world.flow_until(6)
    world.run(world.at(4))
    result = world.run(world.at(8))
    assert result.status == "ok"
    assert only_source(result).unresolved_streams == 1
    waiting = world.rows(
        "SELECT sum(uplink_end - uplink_start + downlink_end - downlink_start)::bigint "
        "FROM billing.pending_usage WHERE billed_at IS NULL"
    )[0][0]
    assert waiting > 0
    world.assert_all_is_billed(apart_from=waiting)


def test_a_proxy_uuid_that_two_accounts_share_is_nobody_s(world: World) -> None:
    """It can't be told which one is to pay."""
    first, second = world.add_users(2)
    second.proxy_uuid = first.proxy_uuid
    world.save_users()
    world.fleet.add_node("jp-1").add_stream(first.proxy_uuid)
    world.flow_until(6)
    result = world.run(world.at(8))
    assert only_source(result).unresolved_streams == 1
    assert world.billed_bytes() == (0, 0)


def test_a_renewed_proxy_uuid_goes_on_under_another_tag(world: World) -> None:
    """The exporter is upgraded while xray counts by the former uuid: still the same account."""
    users = world.add_users(2)
    node = world.fleet.add_node("jp-1")
    for user in users:
        node.add_stream(user.proxy_uuid, "xhttp")
    world.flow_until(4)
    world.run(world.at(5))
    world.fleet.renew_proxy(users[0])
    world.save_users()
    node.naming = retagged({"xhttp": "tcp"})
    world.flow_until(8)
    result = world.run(world.at(10))
    assert only_source(result).unresolved_streams == 0
    assert result.successions == 2
    world.assert_all_is_billed()


def test_a_deleted_user_stops_nobody(world: World) -> None:
    """Its facts go with it, its traffic waits; the others are billed to the byte."""
    users = world.add_users(3)
    world.add_node("jp-1", users)
    world.flow_until(9)
    world.run(world.at(5))
    gone = users[0]
    world.fleet.remove_user(gone)
    world.connection.execute("DELETE FROM public.users WHERE uuid = %s", (gone.uuid,))
    result = world.run(world.at(8))
    assert result.status == "ok"
    assert only_source(result).unresolved_streams == 1
    world.run(world.at(11))

    theirs = sum(
        sum(one.bytes) for one in Oracle(world.fleet).unbilled() if one.reason == "unresolved"
    )
    flowed = sum(Oracle(world.fleet).flowed())
    assert world.billed_bytes()[0] == flowed - theirs
    accounts = world.rows("SELECT DISTINCT account_uuid::text FROM public.billing_ledger")
    assert {account for (account,) in accounts} == {user.uuid for user in users[1:]}


def test_a_delta_that_no_line_can_carry_is_held(world: World) -> None:
    """Kept with its figures, not charged; the stream goes on from the new total."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(3)
    node.flow(node.streams[0], 100 * GIGABYTE, 100 * GIGABYTE)
    world.flow_until(4, rate=0)
    world.flow_until(8)
    world.run(world.at(3))
    result = world.run(world.at(6))
    assert result.status == "partial"
    assert only_source(result).held_deltas == 1
    assert world.rows(
        "SELECT uplink_end - uplink_start, downlink_end - downlink_start, state, bucket_start "
        "FROM billing.held_deltas"
    ) == [(100 * GIGABYTE, 100 * GIGABYTE, "held", world.at(4))]
    assert world.run(world.at(10)).status == "ok"
    world.assert_all_is_billed(apart_from=200 * GIGABYTE)


def test_a_changed_snapshot_at_the_watermark_is_loud(world: World) -> None:
    """History that is told differently from what was applied: nothing is overwritten."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(8)
    world.run(world.at(4))
    met = node.snapshots[2]
    met.totals[0] += 1
    met.encoded = None
    result = world.run_unchecked(world.at(7))
    assert result.status == "partial"
    assert only_source(result).notes == (
        "1 streams differ from the snapshot that was applied at the watermark",
    )
    met.totals[0] -= 1
    met.encoded = None
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_a_late_snapshot_is_carried_by_the_next(world: World) -> None:
    """Published after its minute was closed: its bytes come with the one after it."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(8)
    node.withhold(world.at(2), world.at(4), world.at(6))
    world.unknown_buckets = True
    for minute in range(2, 11):
        world.run_unchecked(world.at(minute))
    world.assert_all_is_billed()


def test_small_steps_come_to_the_same_books_as_one_large_step(world: World) -> None:
    """`collect` is bounded, too: what is left over is taken by the next run."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(6, poll_seconds=15)
    world.fetching = replace(world.fetching, step_max_samples=10)
    reached = [only_source(world.run(world.at(9))).last_completed_until for _ in range(9)]
    assert len(set(reached)) == 4
    assert reached == sorted(reached, key=str)
    world.assert_all_is_billed()


@pytest.mark.parametrize("job", [collect, catch_up], ids=lambda job: job.__name__)
def test_a_run_that_only_waits_for_the_next_snapshot_is_ok(world: World, job: Job) -> None:
    """A restart is charged one snapshot later; until then nothing of the source has failed."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(4)
    world.run(world.at(5) + FIRES_AT, job)
    node.restart_xray(world.at(4))
    world.flow_until(5, rate=1e4)
    waiting = only_source(world.run(world.at(6) + FIRES_AT, job))
    assert (waiting.status, waiting.waits_for_successor, waiting.snapshots) == ("ok", True, 0)
    world.flow_until(6, rate=1e4)
    decided = only_source(world.run(world.at(7) + FIRES_AT, job))
    assert (decided.status, decided.waits_for_successor, decided.resets) == ("ok", False, 2)
