"""What reconcile finds consumes plausibility credit, of the account and of the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.jobs.collect import collect

if TYPE_CHECKING:
    from tests.integration.reconcile.conftest import World

# 100 bytes a second: 6,000 in a minute.
RATE = 800
SWALLOWED = 51_000


def hide_a_restart(world: World, rate: str, other_bytes: int = 0) -> None:
    """Collect half an hour in which a restart hid 51,000 bytes; the credit is 180,000 by then.

    A user without an account is what tells that it was no clock that was set back.
    """
    world.source_options = {
        "account_rate_bits_per_second": 0,
        "line_rate_bits_per_second": 0,
    } | {rate: RATE}
    stream, other = world.streams[0], world.node.add_stream(world.users[0].uuid, "tcp")
    stranger = world.node.add_stream("99999999-9999-9999-9999-999999999999", "xhttp")
    world.node.snapshot(world.minutes(0))
    world.node.flow(stream, 500, 500)
    world.node.snapshot(world.minutes(10))
    world.node.flow(stream, 25_000, 25_000)
    world.node.flow(stranger, 0, 2)
    world.node.snapshot(world.minutes(20), published_at=world.minutes(32))
    world.node.restart_xray(world.minutes(25))
    world.node.flow(stream, 20_000, 20_000)
    world.node.flow(other, 0, other_bytes)
    world.node.flow(stranger, 0, 1)
    world.node.snapshot(world.minutes(30))
    collect_at(world, 31.7)
    assert charged(world) == 40_000 + other_bytes


def collect_at(world: World, minute: float) -> Any:
    """Collect, and return the source's result."""
    (source,) = world.job(collect, world.minutes(minute)).sources
    return source


def reconcile_at(world: World, minute: float) -> Any:
    """Compare all of history, and return the source's result."""
    result = world.reconcile(world.minutes(minute), since=world.minutes(0))
    return result.sources[0]


def charged(world: World) -> int:
    """Return all bytes that were charged."""
    with psycopg.connect(world.database_url) as connection:
        query = "SELECT sum(included_bytes + rated_bytes)::bigint FROM billing.charges"
        ((total,),) = connection.execute(query).fetchall()
        return int(total)


@pytest.mark.parametrize("rate", ["account_rate_bits_per_second", "line_rate_bits_per_second"])
def test_what_reconcile_charges_is_missing_from_the_credit_of_the_next_minute(
    world: World, rate: str
) -> None:
    """Of 140,000 bytes of credit reconcile uses 51,000; then 100,000 at once are too many."""
    hide_a_restart(world, rate)

    assert reconcile_at(world, 33).status == "ok"
    assert charged(world) == 40_000 + SWALLOWED
    world.node.flow(world.streams[0], 0, 100_000)
    world.node.snapshot(world.minutes(31))

    assert collect_at(world, 33).held_deltas == 1
    assert charged(world) == 40_000 + SWALLOWED
    world.assert_books_agree()


@pytest.mark.parametrize("rate", ["account_rate_bits_per_second", "line_rate_bits_per_second"])
def test_bytes_beyond_the_credit_are_charged_by_a_later_reconcile(world: World, rate: str) -> None:
    """With 40,000 bytes of credit nothing is corrected, and its gap stays open; credit grows."""
    hide_a_restart(world, rate, other_bytes=100_000)

    source = reconcile_at(world, 33)
    assert (source.status, source.corrections, source.resolved_gaps) == ("partial", 0, 0)
    assert any("than the plausibility limit allows now" in note for note in source.notes)
    assert charged(world) == 140_000

    world.node.snapshot(world.minutes(40))
    collect_at(world, 41.7)
    source = reconcile_at(world, 42)
    assert (source.status, source.resolved_gaps > 0) == ("ok", True)
    assert charged(world) == 140_000 + SWALLOWED
    assert reconcile_at(world, 42).corrections == 0
    world.assert_books_agree()


def test_what_reconcile_finds_above_a_daily_maximum_is_left_to_a_later_one(world: World) -> None:
    """The day's charges of the account are counted, moves between minutes are not refused."""
    world.quota = 0
    world.max_daily_charge = 45_000 * world.price
    hide_a_restart(world, "line_rate_bits_per_second")

    source = reconcile_at(world, 33)
    assert (source.status, source.corrections) == ("partial", 0)
    assert any("max_daily_charge" in note for note in source.notes)
    assert charged(world) == 40_000

    world.max_daily_charge = (40_000 + SWALLOWED) * world.price
    assert reconcile_at(world, 33).status == "ok"
    assert charged(world) == 40_000 + SWALLOWED
    with psycopg.connect(world.database_url) as connection:
        (row,) = connection.execute("SELECT amount FROM billing.daily_charges").fetchall()
    assert row[0] == world.max_daily_charge
    world.assert_books_agree()
