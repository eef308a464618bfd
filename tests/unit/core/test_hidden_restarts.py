"""Which restarts of a history count inside a cell that is compared with it."""

from __future__ import annotations

from billing_cli.core.corrections import Cell, Difference, differences
from billing_cli.core.history import read_history
from billing_cli.core.model import Totals
from tests.unit.core.stories import ALICE, BELIEVE_ALL, after_noon, alice, record


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
