"""Implausible deltas are held with their figures, and the stream goes on behind them."""

from __future__ import annotations

import pytest

from billing_cli.core.deltas import plausible_bytes
from billing_cli.core.model import MAX_TOTAL, Checkpoint, DeltaPolicy, Totals
from tests.core.stories import (
    ALICE,
    BOB,
    Books,
    after_noon,
    alice,
    first_run,
    record,
    snapshot,
)

KILOBYTE_A_SECOND = DeltaPolicy(account_rate_bits_per_second=8_000)


def test_a_delta_that_fills_the_line_is_charged() -> None:
    """The limit itself can be reached: rate times elapsed time, both directions together."""
    step = first_run(alice("00:00", 0), alice("01:00", 20_000, 40_000), policy=KILOBYTE_A_SECOND)
    assert [one.end for one in step.records] == [Totals(20_000, 40_000)]
    assert step.held == ()


def test_the_line_may_have_been_filled_for_as_long_as_a_stream_was_away() -> None:
    """The time since it was last seen counts, whatever counts for those that never left."""
    step = first_run(
        snapshot("00:00", {ALICE: (0, 0), BOB: (0, 0)}),
        snapshot("01:00", {BOB: (10, 0)}),
        snapshot("02:00", {ALICE: (120_000, 0), BOB: (20, 0)}),
        policy=KILOBYTE_A_SECOND,
    )
    assert [one.end.uplink for one in step.records if one.name == ALICE] == [120_000]
    assert step.held == ()


def test_a_delta_beyond_the_line_is_held_and_not_charged() -> None:
    """One byte more than a line can carry is kept aside with its figures."""
    step = first_run(alice("00:00", 0), alice("01:00", 20_000, 40_001), policy=KILOBYTE_A_SECOND)
    assert step.records == ()
    assert step.held == (record(ALICE, ("00:00", "01:00"), (0, 0), (20_000, 40_001)),)


def test_a_stream_goes_on_from_the_total_of_its_held_delta() -> None:
    """What is held is decided by a person; what follows is charged as ever."""
    step = first_run(
        alice("00:00", 0),
        alice("01:00", 10**9),
        alice("02:00", 10**9 + 5),
        policy=KILOBYTE_A_SECOND,
    )
    assert step.records == (record(ALICE, ("01:00", "02:00"), (10**9, 0), (10**9 + 5, 0)),)
    assert step.checkpoints == {ALICE: Checkpoint(after_noon("02:00"), Totals(10**9 + 5, 0))}


def test_records_before_and_after_a_held_delta_stay_apart_within_their_minute() -> None:
    """Joined, they would claim the held bytes; apart, the three of them telescope."""
    step = first_run(
        alice("00:50", 100),
        alice("01:00", 200),
        alice("01:10", 10**9),
        alice("01:20", 10**9 + 1),
        alice("01:30", 10**9 + 3),
        policy=KILOBYTE_A_SECOND,
    )
    assert step.records == (
        record(ALICE, ("00:50", "01:00"), (100, 0), (200, 0)),
        record(ALICE, ("01:10", "01:30"), (10**9, 0), (10**9 + 3, 0)),
    )
    assert step.held == (record(ALICE, ("01:00", "01:10"), (200, 0), (10**9, 0)),)


def test_a_restart_and_a_held_delta_that_meet_the_old_totals_leave_a_seam() -> None:
    """Records of two epochs never become one, also where the totals look as if nothing had been."""
    step = first_run(
        alice("00:50", 10**9),
        alice("01:00", 10**9 + 5),
        alice("01:10", 0),
        alice("01:20", 10**9 + 5),
        alice("01:30", 10**9 + 7),
        policy=KILOBYTE_A_SECOND,
    )
    assert step.records == (
        record(ALICE, ("00:50", "01:00"), (10**9, 0), (10**9 + 5, 0)),
        record(ALICE, ("01:20", "01:30"), (10**9 + 5, 0), (10**9 + 7, 0), epoch=1),
    )
    assert step.held == (record(ALICE, ("01:10", "01:20"), (0, 0), (10**9 + 5, 0), epoch=1),)


def test_one_streams_held_delta_leaves_others_alone() -> None:
    """Plausibility is a matter of each stream."""
    step = first_run(
        snapshot("00:00", {ALICE: (0, 0), BOB: (0, 0)}),
        snapshot("01:00", {ALICE: (10**9, 0), BOB: (7, 0)}),
        policy=KILOBYTE_A_SECOND,
    )
    assert [one.name for one in step.records] == [BOB]
    assert [one.name for one in step.held] == [ALICE]


def test_a_new_streams_total_can_be_held() -> None:
    """It grew since the snapshot before, so the line's rate limits it as well."""
    step = first_run(snapshot("00:00", {}), alice("01:00", 60_001), policy=KILOBYTE_A_SECOND)
    assert step.records == ()
    assert step.held == (record(ALICE, ("00:00", "01:00"), (0, 0), (60_001, 0)),)
    assert step.checkpoints[ALICE].totals == Totals(60_001, 0)


def test_the_total_behind_a_reset_can_be_held() -> None:
    """A counter that restarted had no more time than since the snapshot before."""
    step = first_run(alice("00:00", 10**9), alice("01:00", 10**8), policy=KILOBYTE_A_SECOND)
    assert step.records == ()
    assert step.held == (record(ALICE, ("00:00", "01:00"), (0, 0), (10**8, 0), epoch=1),)
    assert step.resets == 1


def test_the_time_of_a_returning_stream_counts_from_where_it_was_last_seen() -> None:
    """Ten minutes of absence may hide ten minutes of traffic, in one run or over several."""
    away = [snapshot(f"{minute:02}:00", {}) for minute in range(1, 10)]
    at_once, run_by_run = Books(KILOBYTE_A_SECOND), Books(KILOBYTE_A_SECOND)
    at_once.run(alice("00:00", 0), *away, alice("10:00", 600_000))
    for one in [alice("00:00", 0), *away, alice("10:00", 600_000)]:
        run_by_run.run(one)
    expected = [record(ALICE, ("00:00", "10:00"), (0, 0), (600_000, 0))]
    assert at_once.records == run_by_run.records == expected


def test_the_time_of_an_idle_stream_counts_from_the_snapshot_before() -> None:
    """A stream that was seen idle a minute ago had a minute, however long it rested before."""
    idle = [alice(f"{minute:02}:00", 0) for minute in range(10)]
    books = Books(KILOBYTE_A_SECOND)
    for one in [*idle, alice("10:00", 60_001)]:
        books.run(one)
    assert books.records == []
    assert books.held == [record(ALICE, ("09:00", "10:00"), (0, 0), (60_001, 0))]


@pytest.mark.parametrize(
    ("rate", "seconds", "most"),
    [
        (2_000_000_000, 60.0, 15_000_000_000),
        (8_000, 1.0, 1_000),
        (8_000, 1.5, 1_500),
        (8_000, 0.001, 1_000),
        (8_000, 0.0, 1_000),
        (1, 1.0, 0),
        (0, 1.0, MAX_TOTAL),
        (-1, 1.0, MAX_TOTAL),
        (10**15, 1e9, MAX_TOTAL),
    ],
)
def test_a_line_carries_its_rate_for_the_elapsed_time(rate: int, seconds: float, most: int) -> None:
    """At least a second counts, no rate at all believes everything, and no sum leaves BIGINT."""
    assert plausible_bytes(DeltaPolicy(account_rate_bits_per_second=rate), seconds) == most


def test_more_than_a_bigint_is_held_even_where_everything_is_believed() -> None:
    """Two counters that both jump over their whole range have no sum that can be stored."""
    step = first_run(alice("00:00", 0), alice("01:00", MAX_TOTAL, MAX_TOTAL))
    assert step.records == ()
    assert [one.end for one in step.held] == [Totals(MAX_TOTAL, MAX_TOTAL)]


def test_a_clock_that_once_stood_wrong_makes_no_room_for_anything() -> None:
    """However long ago a stamp claims to be, no more than 72 hours are credited."""
    policy = DeltaPolicy(account_rate_bits_per_second=8)
    assert plausible_bytes(policy, 60.0) == 60
    assert plausible_bytes(policy, 50 * 365 * 86_400.0) == 72 * 3600
