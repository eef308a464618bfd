"""The pages that the benchmarks write, and what counts as met."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.measure import Cost
from benchmarks.page import BEGIN, END, write_pages
from benchmarks.results import LIMITS, Figure, Results, Storage

if TYPE_CHECKING:
    from pathlib import Path


def results() -> Results:
    """One of everything, of which the second figure is beyond its limit."""
    found = Results()
    found.figure("small", 1.04, "x floor", "active")
    found.figure("large", LIMITS["active"] + 1, "x floor", "active")
    found.run("small", Cost(2.5, 99.0, 12, 3_400_000, 7_000), 1_000)
    found.stored(Storage("public.ledger", 10, 100.0, 20.0))
    found.carries("rows", "7 million")
    return found


def test_tables_replace_what_stands_between_the_marks(tmp_path: Path) -> None:
    """The rest of both pages stays as somebody wrote it, however often they are written."""
    page, scaling = tmp_path / "performance.md", tmp_path / "scaling.md"
    for one in (page, scaling):
        one.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    for _ in range(2):
        write_pages(page, results(), "Measured somewhere.")
    text = page.read_text()
    assert text.startswith(f"above\n{BEGIN}\n\nMeasured somewhere.\n")
    assert text.endswith(f"{END}\nbelow\n")
    assert "old" not in text
    assert "| small | 1.04 | x floor | 1.8 | yes |" in text
    assert "| large | 2.80 | x floor | 1.8 | **no** |" in text
    assert "| small | 1,000 | 99 | 12 | 3.4 | 7,000 | 2.50 |" in text
    assert "| `public.ledger` | 10 | 100 | 20 | 120 |" in text
    assert "| rows | 7 million |" in scaling.read_text()


def test_a_page_without_marks_is_left_alone(tmp_path: Path) -> None:
    """Nobody would find the tables at its end."""
    page = tmp_path / "performance.md"
    page.write_text("no marks\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        write_pages(page, results(), "Measured somewhere.")
    assert page.read_text() == "no marks\n"


def test_a_figure_is_met_within_its_limit_and_a_tolerance() -> None:
    """The quick run lets pass what may be noise; a figure without a limit is always met."""
    figure = Figure("what", 1.9, "x floor", limit=1.0)
    assert not figure.is_met()
    assert figure.is_met(tolerance=2.0)
    assert Figure("what", 1e9, "x floor").is_met()
