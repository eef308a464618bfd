"""The table that a run ends with, where it is written, and how time is shared out."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from tests.torture.attacks import ATTACKS, Attack
from tests.torture.runner import rounds_of
from tests.torture.table import BEGIN, END, Circumstances, table_of, write_into
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

CIRCUMSTANCES = Circumstances(date(2026, 4, 8), "python -m tests.torture --seed 7", 7, "18.1", 3.4)


def test_the_last_row_is_the_sum_of_all() -> None:
    """What is wrong with one fault can't hide among the others."""
    table = table_of([Tally("kill", 1000, lost_bytes=1), Tally("crash", 100, broken_invariants=2)])
    assert "| kill | 1,000 | 1 | 0 | 0 | 0 |  |" in table
    assert "| **all** |  | 1 | 0 | 2 | 0 |  |" in table


def test_a_long_remark_follows_the_table() -> None:
    """A short one stands in its row."""
    table = table_of(
        [Tally("cut", 3, detail="3 of 9 cut points"), Tally("soak", 1, detail="x" * 99)]
    )
    assert "| cut | 3 | 0 | 0 | 0 | 0 | 3 of 9 cut points |" in table
    assert table.endswith(f"\n\n- soak: {'x' * 99}\n")


def test_the_table_replaces_the_one_before(tmp_path: Path) -> None:
    """The text around it stays, and so do the marks for the next one."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_into(page, table_of([Tally("kill", 1)]), CIRCUMSTANCES)
    written = page.read_text()
    assert written.startswith(f"before\n{BEGIN}\n")
    assert written.endswith(f"{END}\nafter\n")
    assert "old" not in written
    assert written.count("| kill | 1 |") == 1
    assert "on 2026-04-08" in written
    assert "seed 7, PostgreSQL 18.1" in written


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    """Rather than being overwritten."""
    page = tmp_path / "page.md"
    page.write_text("about something else\n")
    with pytest.raises(ValueError, match="no place for the table"):
        write_into(page, table_of([]), CIRCUMSTANCES)
    assert page.read_text() == "about something else\n"


@pytest.mark.parametrize(
    "wrong",
    [
        Tally("kill", 1, lost_bytes=1),
        Tally("kill", 1, doubled_bytes=1),
        Tally("kill", 1, broken_invariants=1),
        Tally("kill", 1, wrong_nanos=1),
    ],
)
def test_each_figure_alone_makes_a_tally_unclean(wrong: Tally) -> None:
    """And it stays so, whatever is added."""
    assert Tally("kill", 5).is_clean
    assert not wrong.is_clean
    assert not Tally("kill", 5).plus(wrong).is_clean


def test_a_full_run_has_what_is_promised() -> None:
    """Every cut point, a thousand kills, a hundred crashes."""
    rounds = rounds_of(ATTACKS, None, None)
    assert rounds["kill-forks"] + rounds["kill-commands"] >= 1000
    assert rounds["crash"] >= 100
    assert all(rounds[name] >= 100_000 for name in rounds if name.startswith("cut-"))


def test_rounds_are_cut_to_the_minutes_that_there_are() -> None:
    """Two attacks at once; each has its share of the time, and one round at least."""
    attacks = [attack("long", 1000, 1.0), attack("short", 100, 2.0), attack("rare", 1, 0.1)]
    rounds = rounds_of(attacks, None, minutes=1)
    assert rounds == {"long": 99, "short": 9, "rare": 1}


def attack(name: str, rounds: int, seconds_per_round: float) -> Attack:
    """Return an attack that does nothing."""
    return Attack(name, lambda _arena, _seed, _rounds: [], rounds, 1, seconds_per_round)
