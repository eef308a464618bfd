"""docs/evidence/mutants.md: changes that nobody can notice, with reasons; the figures of a run."""

from __future__ import annotations

import platform
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.unit.mutants.trial import MODULES, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Path(__file__).parents[3] / "docs" / "evidence" / "mutants.md"

ROW = re.compile(r"^\| `(\w+)\.py` \| `([\w.]+)` \| `` (.+) `` \| .*\w.* \|$", re.MULTILINE)
LINE = re.compile(r"^(\| `(\w+)\.py` .*\|)$", re.MULTILINE)
FIGURES = re.compile(r"(?<=<!-- written by the run -->\n).*(?=<!-- end -->)", re.DOTALL)

Figures = Counter[Outcome]


class Change(NamedTuple):
    """A mutant as the page names it, which stays when lines move."""

    module: str
    function: str
    change: str


def argued() -> set[Change]:
    """Return the changes that the page gives a reason for."""
    found = ROW.findall(PAGE.read_text("utf-8"))
    return {Change(*(part.replace(r"\|", "|") for part in row)) for row in found}


def row(change: Change) -> str:
    """Return a change's row of the page, with room for the reason."""
    shown = change.change.replace("|", r"\|")
    return f"| `{change.module}.py` | `{change.function}` | `` {shown} `` |  |"


def write(figures: Mapping[str, Figures]) -> None:
    """Write the figures of a run to the page; those of modules that it left out stay."""
    text = PAGE.read_text("utf-8")
    found = FIGURES.search(text)
    if found is None:
        raise SystemExit(f"{PAGE} has no place for the figures")
    lines = {module: line for line, module in LINE.findall(found[0])}
    run = f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}"
    lines |= {module: _line(module, counted, run) for module, counted in figures.items()}
    table = [
        "| module | mutants | killed | timed out | survived | run |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        *(lines[module] for module in MODULES if module in lines),
    ]
    PAGE.write_text(FIGURES.sub(lambda _: "\n".join([*table, ""]), text), "utf-8")


def _line(module: str, counted: Figures, run: str) -> str:
    outcomes: tuple[Outcome, ...] = ("killed", "timed out", "survived")
    numbers = [str(counted.total()), *(str(counted[outcome]) for outcome in outcomes)]
    return " | ".join([f"| `{module}.py`", *numbers, f"{run} |"])
