"""Continuity: gaps in a source's history, differences at its watermark, samples it rejects."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing_cli.core.deltas import NodeState, advance, hold_takeover
from billing_cli.core.model import Checkpoint, DeltaPolicy, Gap, HeldDelta, Totals
from billing_cli.core.plausibility import Debt, NodeCredit
from tests.unit.core.stories import (
    ALICE,
    BELIEVE_ALL,
    BOB,
    Ledger,
    after_noon,
    alice,
    next_run,
    record,
    snapshot,
)


def gap(kind: str, clocks: tuple[str, str], streams: int = 0) -> Gap:
    """Return a gap between two moments after noon."""
    return Gap(kind, after_noon(clocks[0]), after_noon(clocks[1]), streams)  # type: ignore[arg-type]


def test_a_watermark_that_is_met_again_leaves_no_gap() -> None:
    """Neighbours a minute apart prove that nothing lies between them."""
    books = Ledger()
    books.run(alice("00:00", 1))
    assert books.run(alice("00:00", 1), alice("01:00", 2)).gaps == ()


def test_a_watermark_that_is_not_met_again_is_lost_history() -> None:
    """The exporter no longer has what was applied last, so what lies between is not known."""
    books = Ledger()
    books.run(alice("00:00", 1))
    step = books.run(alice("05:00", 4), alice("06:00", 5))
    assert step.gaps == (gap("history_lost", ("00:00", "05:00")),)
    assert sum(one.uplink_bytes for one in step.records) == 4


def test_lost_history_is_told_even_between_close_neighbours() -> None:
    """The missing snapshot is what speaks, not the time that passed."""
    books = Ledger()
    books.run(alice("00:00", 1))
    assert books.run(alice("01:00", 2)).gaps == (gap("history_lost", ("00:00", "01:00")),)


def test_lost_history_is_not_told_where_no_history_is_kept() -> None:
    """An exporter that offers its latest snapshot alone can't show the one before."""
    at = after_noon("00:00")
    step = advance(
        NodeState(at, at), [alice("01:00", 2)], {}, BELIEVE_ALL, continuity_expected=False
    )
    assert step.gaps == ()


def test_the_first_snapshots_of_a_source_lose_no_history() -> None:
    """Without a watermark there is nothing to be met again."""
    assert Ledger().run(alice("00:00", 1), alice("01:00", 2)).gaps == ()


def test_lost_history_is_told_with_the_next_snapshot_that_counts() -> None:
    """While nothing moves, the watermark still waits to be met again."""
    books = Ledger()
    books.run(alice("00:10", 1))
    assert books.run().gaps == ()
    assert books.run(alice("00:40", 1)).gaps == ()
    assert books.run(alice("01:10", 1)).gaps == (gap("history_lost", ("00:10", "01:10")),)


def test_neighbours_too_far_apart_are_late() -> None:
    """The bytes are kept, but their minutes are blurred."""
    books = Ledger(DeltaPolicy(late_after_seconds=150))
    books.run(alice("00:00", 1))
    step = books.run(alice("00:00", 1), alice("02:30", 2), alice("05:01", 3), alice("06:00", 4))
    assert step.gaps == (gap("late", ("02:30", "05:01")),)


def test_lost_history_is_not_late_as_well() -> None:
    """One stretch has one name; what follows it may still be late."""
    books = Ledger()
    books.run(alice("00:00", 1))
    step = books.run(alice("10:00", 2), alice("20:00", 3))
    assert step.gaps == (
        gap("history_lost", ("00:00", "10:00")),
        gap("late", ("10:00", "20:00")),
    )


def test_a_reset_leaves_a_gap_that_counts_its_streams() -> None:
    """What flowed between the last snapshot and the restart cannot be known."""
    books = Ledger()
    first = snapshot("00:00", {ALICE: (10, 0), BOB: (10, 0)})
    books.run(first)
    step = books.run(
        first,
        snapshot("01:00", {ALICE: (2, 0), BOB: (3, 0)}),
        snapshot("02:00", {ALICE: (3, 0), BOB: (4, 0)}),
    )
    assert step.gaps == (gap("reset", ("00:00", "01:00"), 2),)
    assert step.resets == 2


def test_a_reset_in_a_late_stretch_is_told_of_both() -> None:
    """The two say different things: minutes blurred, and bytes that may be missing."""
    books = Ledger()
    books.run(alice("00:00", 9))
    step = books.run(alice("00:00", 9), alice("10:00", 2), alice("10:30", 3))
    assert step.gaps == (gap("late", ("00:00", "10:00")), gap("reset", ("00:00", "10:00"), 1))


def test_a_watermark_that_tells_the_same_has_no_differences() -> None:
    """Streams that had vanished before the watermark are not expected in its snapshot."""
    books = Ledger()
    books.run(snapshot("00:00", {ALICE: (1, 1), BOB: (2, 2)}), snapshot("01:00", {BOB: (2, 2)}))
    again = books.run(
        snapshot("01:00", {BOB: (2, 2)}), snapshot("02:00", {ALICE: (1, 1), BOB: (2, 2)})
    )
    assert again.differences == 0


def test_streams_that_the_watermark_now_tells_differently_are_counted() -> None:
    """Changed, missing and added streams each are one difference, also where nothing is new."""
    books = Ledger()
    books.run(snapshot("00:00", {ALICE: (1, 1), BOB: (2, 2)}))
    assert books.run(snapshot("00:00", {ALICE: (1, 2), BOB: (2, 2)})).differences == 1
    assert books.run(snapshot("00:00", {BOB: (2, 2)})).differences == 1
    added = snapshot("00:00", {ALICE: (1, 1), BOB: (2, 2), ALICE._replace(inbound_tag=""): (0, 0)})
    assert books.run(added, snapshot("01:00", {})).differences == 1


def test_a_watermark_that_is_not_met_has_no_differences() -> None:
    """Nothing is told about it, so nothing is told differently; the gap says the rest."""
    books = Ledger()
    books.run(alice("00:00", 1))
    step = books.run(alice("01:00", 2))
    assert (step.differences, len(step.gaps)) == (0, 1)


def test_a_stream_that_was_seen_further_than_its_source_waits_for_news() -> None:
    """An older writer's totals may be ahead of its watermark; what they hold is not new.

    Nor is what the snapshot of that very moment says: a split total may differ from it a little.
    """
    ahead = Checkpoint(after_noon("01:30"), Totals(100, 0))
    step = next_run(
        "00:00",
        {ALICE: ahead},
        *(alice("01:00", 60), alice("01:30", 101), alice("02:00", 107)),
    )
    assert step.records == (record(ALICE, ("01:30", "02:00"), (100, 0), (107, 0)),)
    assert step.resets == 0
    assert step.checkpoints == {ALICE: Checkpoint(after_noon("02:00"), Totals(107, 0))}


def test_a_stream_that_is_ahead_holds_no_other_back() -> None:
    """What its neighbours in the snapshot moved is charged meanwhile."""
    known = {
        ALICE: Checkpoint(after_noon("01:30"), Totals(100, 0)),
        BOB: Checkpoint(after_noon("00:00"), Totals(5, 0)),
    }
    step = next_run("00:00", known, snapshot("01:00", {ALICE: (60, 0), BOB: (8, 0)}))
    assert step.records == (record(BOB, ("00:00", "01:00"), (5, 0), (8, 0)),)


def test_reasons_of_rejected_samples_are_passed_on_once_applied() -> None:
    """Each applied snapshot's reasons are told; those of a snapshot that is dropped are not."""
    books = Ledger()
    seen = snapshot("00:00", {ALICE: (1, 1)}, rejected=("uuid 'x' is no UUID",))
    assert books.run(seen).rejected == ("uuid 'x' is no UUID",)
    later = snapshot("01:00", {ALICE: (2, 1)}, rejected=("uuid 'y' is no UUID",) * 2)
    latest = snapshot("02:00", {ALICE: (2, 1)}, rejected=("uuid 'z' is no UUID",))
    step = books.run(seen, later, latest)
    assert step.rejected == (*later.rejected, *latest.rejected)
    assert [one.uplink_bytes for one in step.records] == [1]


def test_a_watermark_that_tells_nothing_any_more_has_no_differences() -> None:
    """An exporter without user statistics says nothing about streams."""
    books = Ledger()
    books.run(alice("00:00", 1))
    assert books.run(snapshot("00:00", {})).differences == 0


def test_a_run_that_applies_nothing_leaves_a_node_as_it_was() -> None:
    """Also where it waits: its restart and its credit are those of before."""
    at = after_noon("00:00")
    credit = NodeCredit(Debt(5, at), {"account": Debt(7, at)}, at)
    known = {ALICE: Checkpoint(at, Totals(500, 0))}
    node = NodeState(at, at, known, restarted_at=at, credit=credit)
    for snapshots in ([alice("00:00", 500)], [alice("00:00", 500), alice("01:00", 40)]):
        step = advance(node, snapshots, {}, BELIEVE_ALL)
        assert (step.watermark, step.samples_at, step.restarted_at) == (at, at, at)
        assert step.credit == credit
        assert step.waits_for_successor == (len(snapshots) == 2)


BEFORE, LATER = (
    record(ALICE, ("00:00", "01:00"), (1, 0), (4, 0)),
    record(ALICE, ("01:00", "02:00"), (4, 0), (9, 0)),
)


@pytest.mark.parametrize(
    ("story", "is_held"),
    [
        pytest.param((("00:00", 1), ("01:00", 4), ("02:00", 9)), False, id="the counters go on"),
        pytest.param((("01:00", 4), ("02:00", 9)), True, id="the watermark is not there"),
        pytest.param((("00:00", 2), ("01:00", 4), ("02:00", 9)), True, id="it tells otherwise"),
        pytest.param((("00:00", None), ("01:00", 4), ("02:00", 9)), True, id="it tells nothing"),
    ],
)
def test_a_takeover_holds_what_differs_from_the_other_source(
    story: tuple[tuple[str, int | None], ...], *, is_held: bool
) -> None:
    """Up to the first snapshot of the new source; from there on its own counters are charged."""
    snapshots = [snapshot(at, {}) if total is None else alice(at, total) for at, total in story]
    step = next_run("00:00", {ALICE: Checkpoint(after_noon("00:00"), Totals(1, 0))}, *snapshots)
    assert step.records == (BEFORE, LATER)
    earlier = HeldDelta(BEFORE._replace(name=BOB), "duplicate")
    step = replace(step, held=(earlier,))
    found = hold_takeover(step, snapshots, after_noon("00:00"))
    if is_held:
        assert found.records == (LATER,)
        assert found.held == (earlier, HeldDelta(BEFORE, "line_rate"))
    else:
        assert found == step


def test_a_takeover_holds_nothing_that_flowed_after_the_watermark() -> None:
    """The other source reported none of it."""
    step = next_run("00:00", {}, alice("01:00", 4), alice("02:00", 9))
    step = replace(step, records=(LATER,))
    assert hold_takeover(step, [alice("01:00", 4)], after_noon("00:59")) == step
