"""From snapshots to usage records: what each kind of history is charged as."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from billing_cli.core.model import MAX_TOTAL, Checkpoint, DeltaPolicy, Totals
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BOB,
    NODE,
    Ledger,
    after_noon,
    alice,
    first_run,
    next_run,
    record,
    snapshot,
)

CHARGE_FIRST = DeltaPolicy(charge_first_snapshot=True)


def test_the_first_snapshot_of_a_source_is_a_baseline() -> None:
    """What flowed before anybody looked is charged to nobody."""
    step = first_run(alice("00:10", 5_000, 7_000))
    assert step.records == ()
    checkpoint = Checkpoint(after_noon("00:10"), Totals(5_000, 7_000))
    assert step.origins == {ALICE: ("baseline", checkpoint)}
    assert step.checkpoints == {ALICE: checkpoint}
    assert step.watermark == step.first_at == after_noon("00:10")


def test_the_first_snapshot_is_charged_where_the_policy_says_so() -> None:
    """With `charge_first_snapshot` the first totals are a record that starts at zero."""
    step = first_run(alice("00:10", 5, 7), policy=CHARGE_FIRST)
    (first,) = step.records
    assert (first.start, first.end) == (Totals(0, 0), Totals(5, 7))
    assert first.bucket_start == after_noon("00:00")
    assert step.origins[ALICE][0] == "new"


def test_a_first_snapshot_at_the_beginning_of_time_is_no_error() -> None:
    """An exporter's unset clock reads year 1, and there is nothing before that."""
    unset = datetime.min.replace(tzinfo=UTC)
    step = first_run(replace(alice("00:00", 5), collected_at=unset), policy=CHARGE_FIRST)
    assert [(one.from_at, one.uplink_bytes) for one in step.records] == [(unset, 5)]


def test_growth_is_charged_to_the_minute_of_the_later_snapshot() -> None:
    """A pair of snapshots on two sides of a minute boundary belongs to the second minute."""
    step = first_run(alice("00:59", 100, 200), alice("01:00", 110, 230))
    assert step.records == (record(ALICE, ("00:59", "01:00"), (100, 200), (110, 230)),)
    assert step.records[0].bucket_start == after_noon("01:00")
    assert (step.records[0].uplink_bytes, step.records[0].downlink_bytes) == (10, 30)


def test_growth_over_several_minutes_goes_to_the_minute_of_the_later_snapshot() -> None:
    """Which of the minutes the bytes flowed in is not known, so they stay together."""
    step = first_run(alice("00:10", 100), alice("07:10", 800))
    assert step.records == (record(ALICE, ("00:10", "07:10"), (100, 0), (800, 0)),)
    assert step.records[0].bucket_start == after_noon("07:00")


def test_snapshots_within_a_minute_add_up_to_one_record() -> None:
    """One record spans the minute, from where its first part began to where its last ended."""
    step = first_run(
        alice("00:45", 10), alice("01:00", 20), alice("01:15", 40), alice("01:30", 80, 5)
    )
    assert step.records == (record(ALICE, ("00:45", "01:30"), (10, 0), (80, 5)),)


def test_each_minute_has_its_own_record() -> None:
    """A record never reaches over the end of its minute."""
    step = first_run(
        alice("00:30", 1), alice("01:00", 2), alice("01:59.999999", 4), alice("02:00", 8)
    )
    assert step.records == (
        record(ALICE, ("00:30", "01:59.999999"), (1, 0), (4, 0)),
        record(ALICE, ("01:59.999999", "02:00"), (4, 0), (8, 0)),
    )


def test_inbounds_of_a_user_are_streams_of_their_own() -> None:
    """Two samples with one uuid differ by their inbound, and neither hides the other."""
    step = first_run(
        snapshot("00:00", {ALICE: (10, 10), ALICE_TCP: (900, 900)}),
        snapshot("01:00", {ALICE: (11, 12), ALICE_TCP: (903, 904)}),
    )
    moved = {one.name: (one.uplink_bytes, one.downlink_bytes) for one in step.records}
    assert moved == {ALICE: (1, 2), ALICE_TCP: (3, 4)}
    assert step.resets == 0


def test_a_stream_that_appears_later_is_charged_from_zero() -> None:
    """Where the source has history, a new stream's counters began after the snapshot before."""
    step = first_run(snapshot("00:00", {}), alice("01:00", 30, 40))
    assert step.records == (record(ALICE, ("00:00", "01:00"), (0, 0), (30, 40)),)
    origin, first = step.origins[ALICE]
    assert (origin, first.totals) == ("new", Totals(30, 40))


@pytest.mark.parametrize("is_empty_between", [False, True])
def test_a_snapshot_without_a_usable_sample_leaves_the_baseline_open(
    is_empty_between: bool,
) -> None:
    """An exporter that is configured wrongly at first: what was counted before is not charged."""
    books = Ledger()
    between = [snapshot("02:00", {})] if is_empty_between else []
    books.live(
        snapshot("00:00", {}, rejected=("uuid 'a@b.c' is no UUID",)),
        snapshot("01:00", {}, rejected=("uuid 'a@b.c' is no UUID",)),
        *between,
        alice("03:00", 10**9, 10**9),
        alice("04:00", 10**9 + 5, 10**9 + 7),
        snapshot("05:00", {ALICE: (10**9 + 5, 10**9 + 7), BOB: (3, 4)}),
    )
    assert books.charged() == (5 + 3, 7 + 4)
    assert books.origins[ALICE][0] == "baseline"
    assert books.origins[BOB][0] == "new"


def test_a_first_snapshot_that_is_empty_is_the_baseline() -> None:
    """Nobody uses the node yet: who comes is charged, also where samples are rejected later."""
    books = Ledger()
    books.live(
        snapshot("00:00", {}),
        snapshot("01:00", {}, rejected=("uuid 'a@b.c' is no UUID",)),
        alice("02:00", 30, 40),
    )
    assert books.charged() == (30, 40)


def test_a_stream_that_appears_with_zero_totals_has_no_record() -> None:
    """A minute without bytes has no row, also where it is a stream's first."""
    step = first_run(snapshot("00:00", {}), alice("01:00", 0), alice("02:00", 6))
    assert step.records == (record(ALICE, ("01:00", "02:00"), (0, 0), (6, 0)),)
    assert step.origins[ALICE][0] == "new"


def test_a_charged_first_snapshot_with_zero_totals_has_no_record() -> None:
    """Charging the first totals of an idle stream charges nothing."""
    step = first_run(alice("00:00", 0), policy=CHARGE_FIRST)
    assert step.records == ()
    assert ALICE in step.checkpoints


def test_idle_streams_leave_neither_record_nor_checkpoint() -> None:
    """Only what changes is written."""
    known = {
        ALICE: Checkpoint(after_noon("00:00"), Totals(5, 5)),
        BOB: Checkpoint(after_noon("00:00"), Totals(6, 6)),
    }
    step = next_run(
        "00:00",
        known,
        snapshot("00:00", {ALICE: (5, 5), BOB: (6, 6)}),
        snapshot("01:00", {ALICE: (5, 5), BOB: (7, 6)}),
    )
    assert [one.name for one in step.records] == [BOB]
    assert step.checkpoints == {BOB: Checkpoint(after_noon("01:00"), Totals(7, 6))}


def test_a_changed_stream_that_is_idle_at_the_end_was_seen_at_the_watermark() -> None:
    """`seen_at` tells when a stream was last on offer, not when it last moved."""
    step = first_run(alice("00:00", 1), alice("01:00", 2), alice("02:00", 2))
    assert step.checkpoints[ALICE].seen_at == step.watermark == after_noon("02:00")


def test_a_reset_to_zero_raises_the_epoch_without_a_record() -> None:
    """A counter that restarted and has not moved since has no bytes to tell of."""
    step = first_run(alice("00:00", 500), alice("01:00", 0), alice("02:00", 3))
    assert step.records == (record(ALICE, ("01:00", "02:00"), (0, 0), (3, 0), epoch=1),)


def test_two_resets_in_one_minute_are_three_records() -> None:
    """Each epoch has its own record, and none of their bytes is lost."""
    step = first_run(
        *(alice("00:50", 100), alice("01:10", 150), alice("01:20", 30), alice("01:30", 20)),
        alice("02:10", 20),
    )
    assert step.records == (
        record(ALICE, ("00:50", "01:10"), (100, 0), (150, 0)),
        record(ALICE, ("01:10", "01:20"), (0, 0), (30, 0), epoch=1),
        record(ALICE, ("01:20", "01:30"), (0, 0), (20, 0), epoch=2),
    )
    assert step.resets == 2
    assert step.checkpoints[ALICE].reset_epoch == 2


def test_growth_behind_a_reset_joins_its_record() -> None:
    """After a restart the minute goes on in the new epoch's record."""
    step = first_run(alice("00:50", 100), alice("01:10", 7), alice("01:20", 9))
    assert step.records == (record(ALICE, ("00:50", "01:20"), (0, 0), (9, 0), epoch=1),)


def test_a_stream_that_returns_goes_on_where_it_was_last_seen() -> None:
    """Its record reaches back to the last snapshot that held it, over runs that did not."""
    books = Ledger()
    books.run(snapshot("00:00", {ALICE: (10, 0), BOB: (1, 1)}))
    gone = books.run(
        snapshot("00:00", {ALICE: (10, 0), BOB: (1, 1)}), snapshot("01:00", {BOB: (1, 1)})
    )
    assert gone.checkpoints == {ALICE: Checkpoint(after_noon("00:00"), Totals(10, 0))}
    still_gone = books.run(snapshot("01:00", {BOB: (1, 1)}), snapshot("02:00", {BOB: (1, 1)}))
    assert still_gone.checkpoints == {}
    back = books.run(
        snapshot("02:00", {BOB: (1, 1)}), snapshot("03:00", {ALICE: (15, 0), BOB: (1, 1)})
    )
    assert back.records == (record(ALICE, ("00:00", "03:00"), (10, 0), (15, 0)),)
    assert back.checkpoints == {ALICE: Checkpoint(after_noon("03:00"), Totals(15, 0))}
    assert back.origins == {}


def test_a_stream_that_returns_unchanged_is_present_again_without_a_record() -> None:
    """Its checkpoint changes, because it is not absent any more."""
    step = first_run(alice("00:00", 10), snapshot("01:00", {}), alice("02:00", 10))
    assert step.records == ()
    assert step.checkpoints == {ALICE: Checkpoint(after_noon("02:00"), Totals(10, 0))}


def test_a_stream_that_returns_lower_was_reset_meanwhile() -> None:
    """Absence does not hide a restart."""
    step = first_run(
        alice("00:00", 10), snapshot("01:00", {}), alice("02:00", 4), alice("03:00", 4)
    )
    assert step.records == (record(ALICE, ("00:00", "02:00"), (0, 0), (4, 0), epoch=1),)
    assert step.resets == 1


def test_a_stream_may_vanish_after_another_has_returned() -> None:
    """Who is away is known by name, not by number."""
    both = {ALICE: (10, 0), BOB: (1, 1)}
    step = first_run(
        snapshot("00:00", both),
        snapshot("01:00", {BOB: (1, 1)}),
        snapshot("02:00", both),
        snapshot("03:00", {ALICE: (10, 0)}),
    )
    assert step.checkpoints == {
        ALICE: Checkpoint(after_noon("03:00"), Totals(10, 0)),
        BOB: Checkpoint(after_noon("02:00"), Totals(1, 1)),
    }


def test_streams_that_are_there_are_idle_though_another_is_not() -> None:
    """While Bob is away, Alice's stream is not touched until it moves, and then since the last."""
    books = Ledger()
    books.run(snapshot("00:10", {ALICE: (1, 1), ALICE_TCP: (5, 5), BOB: (2, 2)}))
    step = books.run(
        snapshot("01:10", {ALICE: (1, 1), ALICE_TCP: (5, 5)}),
        snapshot("02:10", {ALICE: (1, 1), ALICE_TCP: (5, 5)}),
        snapshot("03:10", {ALICE: (4, 1), ALICE_TCP: (5, 5)}),
    )
    assert step.checkpoints.keys() == {ALICE, BOB}
    assert step.records == (record(ALICE, ("02:10", "03:10"), (1, 1), (4, 1)),)


def test_a_vanished_stream_keeps_the_stamp_that_last_held_it() -> None:
    """A stream that moved and then vanished within one run was seen before the watermark."""
    step = first_run(alice("00:00", 10), alice("01:00", 20), snapshot("02:00", {}))
    assert step.watermark == after_noon("02:00")
    assert step.checkpoints == {ALICE: Checkpoint(after_noon("01:00"), Totals(20, 0))}
    step = first_run(alice("00:00", 10), alice("01:00", 10), snapshot("02:00", {}))
    assert step.checkpoints == {ALICE: Checkpoint(after_noon("01:00"), Totals(10, 0))}


def test_a_snapshot_in_the_watermarks_own_minute_is_passed_over() -> None:
    """That minute is written; the next minute's snapshot carries the bytes."""
    books = Ledger()
    books.run(alice("00:10", 100))
    passed = books.run(alice("00:10", 100), alice("00:40", 170))
    assert (passed.snapshots, passed.records, passed.checkpoints) == (0, (), {})
    assert passed.watermark == after_noon("00:10")
    step = books.run(alice("00:10", 100), alice("00:40", 170), alice("01:00", 200))
    assert step.records == (record(ALICE, ("00:10", "01:00"), (100, 0), (200, 0)),)
    assert step.snapshots == 1


def test_snapshots_at_or_before_the_watermark_are_dropped() -> None:
    """Whatever they say, they were applied before, and change nothing."""
    books = Ledger()
    books.run(alice("00:00", 10), alice("05:00", 60))
    step = books.run(alice("00:00", 10), alice("03:00", 1), alice("05:00", 60))
    assert (step.snapshots, step.samples) == (0, 0)
    assert (step.records, step.held, step.gaps, step.checkpoints) == ((), (), (), {})
    assert step.watermark == after_noon("05:00")


def test_no_snapshots_move_nothing() -> None:
    """An empty answer is no progress."""
    assert first_run().watermark is None
    step = next_run("00:00", {})
    assert (step.watermark, step.first_at, step.snapshots) == (after_noon("00:00"), None, 0)
    assert (step.samples, step.resets, step.differences, step.rejected) == (0, 0, 0, ())


def test_samples_and_snapshots_that_were_applied_are_counted() -> None:
    """What was dropped by the watermark is not processed, so it is not counted."""
    books = Ledger()
    books.run(snapshot("00:00", {ALICE: (1, 1), BOB: (1, 1)}))
    step = books.run(
        snapshot("00:00", {ALICE: (1, 1), BOB: (1, 1)}),
        snapshot("01:00", {ALICE: (1, 1), BOB: (2, 1)}),
        alice("02:00", 1, 1),
    )
    assert (step.snapshots, step.samples) == (2, 3)
    assert (step.first_at, step.watermark) == (after_noon("01:00"), after_noon("02:00"))


def test_totals_reach_up_to_the_largest_bigint() -> None:
    """The whole range of the counters is computed exactly."""
    step = first_run(
        alice("00:00", 0, MAX_TOTAL - 1), alice("01:00", 1, MAX_TOTAL), policy=DeltaPolicy()
    )
    (only,) = step.records
    assert (only.uplink_bytes, only.downlink_bytes) == (1, 1)
    assert step.checkpoints[ALICE].totals == Totals(1, MAX_TOTAL)


def test_the_whole_range_of_a_counter_can_be_one_record() -> None:
    """Where every rate is believed, a stream may move 2**63-1 bytes in a minute."""
    step = first_run(alice("00:00", 0), alice("01:00", MAX_TOTAL))
    assert [one.uplink_bytes for one in step.records] == [MAX_TOTAL]


def test_stored_names_carry_the_environment() -> None:
    """The node's name in the shared tables has its environment before it, where it has one."""
    assert NODE.stored == "prod:jp-1.svc.plus"
    assert NODE._replace(env="").stored == "jp-1.svc.plus"
