"""The table that a run of all attacks ends with, and its place in a page."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from billing_cli import __version__
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from pathlib import Path

BEGIN = "<!-- written by a run: begin -->"
END = "<!-- written by a run: end -->"

CELL_LENGTH = 60

HEADER = """\
| fault | runs | bytes lost | bytes doubled | invariants broken | balances off, in 1e-9 | |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
"""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When and how a run was made, and of what: the commit, `-dirty` with changes beside it.

    `missing` are the attacks that have not ended.
    """

    day: date
    command: str
    seed: int
    server_version: str
    commit: str
    minutes: float
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"Written by `{self.command}` on {self.day}: billing {__version__}, "
            f"commit {self.commit}, seed {self.seed}, PostgreSQL {self.server_version}, "
            f"Python {platform.python_version()}, {self.minutes:.0f} minutes on "
            f"{os.cpu_count()} cores."
            + (f" **Not ended: {', '.join(self.missing)}.**" if self.missing else "")
        )


def table_of(tallies: Sequence[Tally]) -> str:
    """Return the tallies as a table; its last row is the sum of what was found wrong.

    Remarks that are too long for a cell follow as a list.
    """
    total = reduce(Tally.plus, tallies, Tally("", 0))
    rows = [_row(tally.fault, f"{tally.runs:,}", tally) for tally in tallies]
    table = HEADER + "".join(f"{row}\n" for row in (*rows, _row("**all**", "", total)))
    remarks = [
        f"- {tally.fault}: {tally.detail}\n" for tally in tallies if len(tally.detail) > CELL_LENGTH
    ]
    return "\n".join([table, "".join(remarks)]) if remarks else table


def write_into(page: Path, table: str, circumstances: Circumstances) -> None:
    """Replace what stands between the two marks of a page. Raises ValueError where they lack."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table, between {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n\n{circumstances}\n\n{table}\n{end}{after}")


def _row(fault: str, runs: str, tally: Tally) -> str:
    figures = (
        tally.lost_bytes,
        tally.doubled_bytes,
        tally.broken_invariants,
        tally.wrong_nanos,
    )
    remark = tally.detail if len(tally.detail) <= CELL_LENGTH else ""
    cells = [fault, runs, *(f"{figure:,}" for figure in figures), remark]
    return f"| {' | '.join(cells)} |"
