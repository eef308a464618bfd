"""docs/evidence/mutants.md: changes that nobody can notice, with reasons; the figures of a run."""

from __future__ import annotations

import platform
import re
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.unit.mutants.trial import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Path(__file__).parents[3] / "docs" / "evidence" / "mutants.md"

ROW = re.compile(r"^\| `(\w+)\.py` \| `([\w.]+)` \| `` (.+) `` \| .*\w.* \|$", re.MULTILINE)
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


def write(figures: Mapping[str, Figures], *, is_quick: bool) -> None:
    """Write the figures of a run to the page."""
    tests = "the tests that do not make up examples" if is_quick else "all tests"
    lines = [
        "| module | mutants | killed | timed out | survived |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(_line(f"`{module}.py`", counted) for module, counted in figures.items()),
        _line("together", sum(figures.values(), Figures())),
        "",
        f"Run on {datetime.now(UTC):%Y-%m-%d} against {tests}, with {', '.join(_versions())}.",
        "",
    ]
    text = PAGE.read_text("utf-8")
    PAGE.write_text(FIGURES.sub(lambda _: "\n".join(["", *lines]), text), "utf-8")


def _versions() -> list[str]:
    packages = [f"{name} {version(name)}" for name in ("pytest", "hypothesis")]
    return [f"Python {platform.python_version()}", *packages]


def _line(name: str, counted: Figures) -> str:
    outcomes: tuple[Outcome, ...] = ("killed", "timed out", "survived")
    return (
        " | ".join(
            [f"| {name}", str(counted.total()), *(str(counted[outcome]) for outcome in outcomes)]
        )
        + " |"
    )
