"""What a comparison with history has found is never taken back by one that sees less of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.core.corrections import Cell, differences
from billing_cli.core.model import Totals
from tests.unit.core.stories import ALICE, BELIEVE_ALL, after_noon, record

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN_RESTART = record(ALICE, ("10:30", "15:30"), (100, 100), (150, 150))
"""It was billed as 50 bytes each way; 20 and 150 more flowed around a restart inside it."""


@pytest.mark.parametrize(
    "restart_seen",
    [
        pytest.param("15:10", id="in the minute that was billed"),
        pytest.param("13:30", id="in a minute in which nothing had flowed yet"),
    ],
)
def test_bytes_found_behind_a_restart_stay_when_its_snapshot_is_gone(restart_seen: str) -> None:
    """The exporter forgets the snapshot that told of the restart, and still has a later one."""
    restart, later = (restart_seen, (0, 0)), ("15:20", (120, 120))
    recorded = _compared({"15:00": 50}, restart, later)
    assert recorded == {"15:00": 150}
    assert _compared(recorded, later) == recorded


def test_bytes_found_in_one_direction_alone_stay() -> None:
    """Up and down are kept apart, as everywhere."""
    both = {after_noon("15:00"): Totals(150, 50)}
    cell = Cell(HIDDEN_RESTART, HIDDEN_RESTART.start, both)
    history = [(after_noon("15:20"), Totals(120, 120))]
    assert differences(cell, history, {}, BELIEVE_ALL) == []


def _compared(recorded: Mapping[str, int], *history: tuple[str, tuple[int, int]]) -> dict[str, int]:
    """Return the bytes each way by minute after a comparison."""
    by_minute = {after_noon(clock): Totals(moved, moved) for clock, moved in recorded.items()}
    found = differences(
        Cell(HIDDEN_RESTART, HIDDEN_RESTART.start, by_minute),
        [(after_noon(clock), Totals(*pair)) for clock, pair in history],
        {after_noon(clock): Totals(0, 0) for clock, pair in history if pair == (0, 0)},
        BELIEVE_ALL,
    )
    assert found is not None
    by_minute.update({one.minute: one.shown for one in found})
    assert all(one.uplink == one.downlink for one in by_minute.values())
    return {f"{minute:%M:%S}": moved.uplink for minute, moved in by_minute.items() if any(moved)}
