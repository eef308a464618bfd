"""What a walk knows when it judges a decrease: earlier totals, and what a later step will see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from billing_cli.core.deltas import NodeState, advance
from billing_cli.core.history import read_history
from billing_cli.core.model import Checkpoint, Totals
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BELIEVE_ALL,
    BOB,
    BOB_MERGED,
    MERGED,
    Ledger,
    after_noon,
    alice,
    snapshot,
)

OTHER = ALICE._replace(inbound_tag="other")


def known(**totals: int) -> NodeState:
    """Return a node at noon; `before` are Alice's totals of an hour before, if they are known."""
    noon = after_noon("00:00")
    streams = {ALICE: Checkpoint(noon, Totals(totals["alice"], totals["alice"]))}
    if "bob" in totals:
        streams[BOB] = Checkpoint(noon, Totals(totals["bob"], totals["bob"]))
    earlier = {ALICE: Totals(totals["before"], totals["before"])} if "before" in totals else {}
    return NodeState(noon, noon, streams, earlier=earlier)


def test_totals_of_an_hour_before_show_that_readings_are_earlier_ones() -> None:
    """Without them, what a step begins among looks like a restart, and is unsure."""
    story = [alice("00:00", 600, 600), alice("01:00", 400, 400), alice("02:00", 410, 410)]
    story.append(alice("03:00", 700, 700))
    step = advance(known(alice=600), story, {}, BELIEVE_ALL)
    assert (step.resets, step.unsure) == (1, {ALICE})
    step = advance(known(alice=600, before=300), story, {}, BELIEVE_ALL)
    assert (step.resets, step.unsure) == (0, frozenset())
    assert sum(record.uplink_bytes for record in step.records) == 100


def test_earlier_readings_at_the_end_of_a_cut_history_wait_for_the_next_step() -> None:
    """Where history goes on to now, the totals of before do not hold up a run."""
    story = [alice("00:00", 600, 600), alice("01:00", 400, 400), alice("02:00", 410, 410)]
    before = known(alice=600, before=300)
    assert advance(before, story, {}, BELIEVE_ALL, is_cut=True).waits_for_successor
    step = advance(before, story, {}, BELIEVE_ALL)
    assert (step.waits_for_successor, step.resets) == (False, 1)


def test_a_restart_that_nothing_contradicts_is_sure() -> None:
    """No total comes back: nobody needs the totals of before."""
    story = [alice("00:00", 600, 600), alice("01:00", 5, 5), alice("02:00", 6, 6)]
    step = advance(known(alice=600), story, {}, BELIEVE_ALL)
    assert (step.resets, step.unsure) == (1, frozenset())


def test_a_single_counter_that_comes_back_is_unsure() -> None:
    """Another one grows meanwhile, so that the process did not restart."""
    story = [
        snapshot("00:00", {ALICE: (600, 600), BOB: (50, 50)}),
        snapshot("01:00", {ALICE: (400, 600), BOB: (60, 60)}),
        snapshot("02:00", {ALICE: (410, 600), BOB: (70, 70)}),
        snapshot("03:00", {ALICE: (700, 700), BOB: (80, 80)}),
    ]
    step = advance(known(alice=600, bob=50), story, {}, BELIEVE_ALL)
    assert step.resets == 1
    assert step.unsure == {ALICE}


@pytest.mark.parametrize(("peak", "older", "back"), [(500, 400, 550), (200, 100, 250)])
def test_a_counter_that_was_reset_is_judged_by_its_totals_since(
    peak: int, older: int, back: int
) -> None:
    """Earlier readings since are not below those of before the reset, whatever those were."""
    totals = (600, 10, 11, peak, older, older + 5, back)
    story = [
        snapshot(
            f"0{minute}:00",
            {ALICE: (total, total), BOB: (minute, minute), ALICE_TCP: (minute, minute)},
        )
        for minute, total in enumerate(totals)
    ]
    books = Ledger()
    books.run(story[0])
    books.node = replace(books.node, earlier={ALICE: Totals(300, 300)})
    step = books.run(*story)
    charged = sum(record.uplink_bytes for record in step.records if record.name == ALICE)
    assert (step.resets, charged) == (1, back)


def test_former_names_at_the_end_of_a_cut_history_are_left_to_the_next_step() -> None:
    """They may be readings of before an upgrade, and come to an end in it."""
    books = Ledger()
    books.live(alice("00:00", 900, 900), snapshot("01:00", {MERGED: (1_000, 1_000)}))
    seen = snapshot("01:00", {MERGED: (1_000, 1_000)})
    merged = snapshot("02:00", {MERGED: (1_005, 1_005)})
    former = alice("03:00", 910, 910), alice("04:00", 920, 920)
    step = books.run(seen, merged, *former, is_cut=True)
    assert (step.waits_for_successor, step.watermark) == (True, after_noon("02:00"))


def test_names_that_were_never_read_before_are_not_waited_for() -> None:
    """They are hardly those of an older reading, also where the history is cut."""
    books = Ledger()
    books.live(snapshot("01:00", {MERGED: (1_000, 1_000)}))
    seen = snapshot("01:00", {MERGED: (1_000, 1_000)})
    merged = snapshot("02:00", {MERGED: (1_005, 1_005)})
    begun = snapshot("03:00", {OTHER: (5, 5)}), snapshot("04:00", {OTHER: (6, 6)})
    step = books.run(seen, merged, *begun, is_cut=True)
    assert (step.waits_for_successor, step.watermark) == (False, after_noon("04:00"))


def test_former_names_are_waited_for_beside_one_that_was_never_read() -> None:
    """An older reading can hold a user of whom no run had read anything before the upgrade."""
    books = Ledger()
    books.live(alice("00:00", 900, 900), snapshot("01:00", {MERGED: (1_000, 1_000)}))
    former = snapshot("02:00", {ALICE: (910, 910), OTHER: (5, 5)})
    step = books.run(snapshot("01:00", {MERGED: (1_000, 1_000)}), former)
    assert (step.waits_for_successor, step.watermark) == (True, after_noon("01:00"))


def test_names_that_were_never_read_are_not_waited_for_beside_a_former_one_of_another_account() -> (
    None
):
    """Nothing of that account is lost."""
    books = Ledger()
    books.live(
        snapshot("00:00", {MERGED: (900, 900), BOB: (10, 10)}),
        snapshot("01:00", {MERGED: (1_000, 1_000), BOB_MERGED: (20, 20)}),
    )
    now = snapshot("02:00", {OTHER: (5, 5), BOB: (21, 21)})
    step = books.run(snapshot("01:00", {MERGED: (1_000, 1_000), BOB_MERGED: (20, 20)}), now)
    assert (step.waits_for_successor, step.watermark) == (False, after_noon("02:00"))


def test_history_names_what_is_unsure_and_takes_totals_of_before() -> None:
    """`reconcile` asks for them, and reads the history again."""
    story = [
        *(alice("00:00", 600, 600), alice("01:00", 400, 400), alice("02:00", 410, 410)),
        alice("03:00", 700, 700),
    ]
    history = read_history(story[1:], {}, BELIEVE_ALL)
    assert (history.restarts, history.unsure) == ({}, frozenset())
    history = read_history([alice("00:00", 405, 405), *story], {}, BELIEVE_ALL)
    assert (list(history.restarts[ALICE]), history.unsure) == ([after_noon("01:00")], {ALICE})
    earlier = {ALICE: Totals(300, 300)}
    history = read_history([alice("00:00", 405, 405), *story], {}, BELIEVE_ALL, earlier)
    assert history.restarts == {}


def test_the_last_snapshot_of_a_history_decides_alone() -> None:
    """What comes after it is not known to a run that compares a range."""
    story = [alice("00:00", 600, 600), alice("01:00", 610, 610), alice("02:00", 5, 5)]
    history = read_history(story, {}, BELIEVE_ALL)
    assert list(history.restarts[ALICE]) == [after_noon("02:00")]


def test_a_restart_that_was_none_continues_its_former_totals() -> None:
    """History shows a step back to them: what is read of it goes on from there."""
    story = [
        *(alice("00:00", 600, 600), alice("01:00", 5, 5), alice("02:00", 6, 6)),
        alice("03:00", 700, 700),
    ]
    continued = read_history(story, {}, BELIEVE_ALL).continued
    assert continued == {ALICE: {after_noon("03:00"): Totals(600, 600)}}
