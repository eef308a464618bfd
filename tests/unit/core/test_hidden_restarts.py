"""Which restarts of a history count inside a cell that is compared with it."""

from __future__ import annotations

import pytest

from billing_cli.core.corrections import Cell, Difference, differences
from billing_cli.core.history import read_history
from billing_cli.core.model import Totals
from tests.unit.core.stories import (
    ALICE,
    BELIEVE_ALL,
    BOB,
    Ledger,
    after_noon,
    alice,
    record,
    snapshot,
)


def test_a_restart_that_only_another_beginning_of_the_cell_shows_adds_no_bytes() -> None:
    """History has a higher total where the cell begins: what was charged before stays charged."""
    told = [alice("10:30", 900, 90), alice("12:30", 400, 20), alice("16:30", 700, 40)]
    history = read_history(told, {}, BELIEVE_ALL)
    assert after_noon("12:30") in history.restarts[ALICE]

    recorded = record(ALICE, ("10:30", "16:30"), (100, 10), (700, 40))
    charged = Cell(recorded, recorded.start, {after_noon("16:00"): Totals(600, 30)})
    seen = [(one.collected_at, one.totals[ALICE]) for one in told]

    assert differences(charged, seen, history.restarts[ALICE], BELIEVE_ALL) == [
        Difference(charged, after_noon("12:00"), Totals(0, 0), Totals(300, 10)),
        Difference(charged, after_noon("16:00"), Totals(600, 30), Totals(300, 20)),
    ]


def test_a_stream_that_passed_its_former_total_across_a_hidden_restart_is_charged_from_zero() -> (
    None
):
    """Bob's counter tells of the restart; Alice's total is above the one before it."""
    told = [
        snapshot("10:30", {ALICE: (0, 10), BOB: (0, 1_000)}),
        snapshot("12:30", {ALICE: (0, 50), BOB: (0, 1_000)}),
        snapshot("14:30", {ALICE: (0, 60), BOB: (0, 5)}),
        snapshot("16:30", {ALICE: (0, 200), BOB: (0, 10)}),
    ]
    at_once = Ledger(BELIEVE_ALL)
    at_once.run(told[0])
    at_once.run(*told, snapshot("17:30", {ALICE: (0, 200), BOB: (0, 10)}))
    live = Ledger(BELIEVE_ALL)
    live.run(told[0])
    live.run(told[0], told[3], snapshot("17:30", {ALICE: (0, 200), BOB: (0, 10)}))
    (charged,) = (one for one in live.records if one.name == ALICE)
    cell = Cell(charged, Totals(0, 10), {after_noon("16:00"): Totals(0, 200)})

    seen = [(one.collected_at, one.totals[ALICE]) for one in told]
    restarts = read_history(told, {}, BELIEVE_ALL).restarts[ALICE]
    found = differences(cell, seen, restarts, BELIEVE_ALL)

    assert found is not None
    assert {one.minute: one.shown.downlink for one in found} == {
        one.bucket_start: one.downlink_bytes for one in at_once.records if one.name == ALICE
    }


@pytest.mark.parametrize(("begins", "first"), [("10:30", 60), ("09:30", 50)])
def test_a_restart_in_the_first_step_counts_where_history_has_the_start(
    begins: str, first: int
) -> None:
    """Without it, the restart may have been before the cell begins, and is charged already."""
    told = [
        snapshot(begins, {ALICE: (0, 10), BOB: (0, 1_000)}),
        snapshot("14:30", {ALICE: (0, 60), BOB: (0, 5)}),
        snapshot("16:30", {ALICE: (0, 200), BOB: (0, 10)}),
    ]
    charged = record(ALICE, ("10:30", "16:30"), (0, 10), (0, 200))
    cell = Cell(charged, charged.start, {after_noon("16:00"): Totals(0, 190)})
    restarts = read_history(told, {}, BELIEVE_ALL).restarts[ALICE]

    found = differences(
        cell, [(one.collected_at, one.totals[ALICE]) for one in told], restarts, BELIEVE_ALL
    )

    assert found is not None
    assert {one.minute: one.shown.downlink for one in found} == {
        after_noon("14:00"): first,
        after_noon("16:00"): 140,
    }
