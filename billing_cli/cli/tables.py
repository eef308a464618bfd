"""Tables and lines that a command prints, as plain text and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.cli.units import human_bytes, human_rate, human_seconds
from billing_cli.core.times import format_rfc3339
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal[
    "text", "prose", "state", "count", "bytes", "rate", "money", "change", "moment", "seconds"
]  # fmt: skip
Cell = str | int | float | Decimal | datetime | None

NUMBERS = frozenset({"count", "bytes", "rate", "money", "change", "seconds"})
GAP = "  "
FORMULA_SIGNS = ("=", "+", "-", "@")

STYLES = {
    "ok": "green",
    "warning": "yellow",
    "behind": "yellow",
    "partial": "yellow",
    "failed": "red",
    "error": "red",
    "violation": "red",
    "disabled": "dim",
    "removed": "dim",
    "busy": "dim",
    "-": "dim",
}


class Column(NamedTuple):
    """A column: `key` is its name in CSV and, in capitals, its title.

    Cells are raw values: `bytes` in bytes, `rate` in bits a second, `seconds`, `moment` as UTC
    datetimes; `change` is money with a sign. `prose` may be wrapped; an `is_extra` column is left
    out where the width is short.
    """

    key: str
    kind: Kind = "text"
    is_extra: bool = False

    @property
    def title(self) -> str:
        """The key as a table's head shows it."""
        return self.key.replace("_", " ").upper()


class Table(NamedTuple):
    """Rows of raw values, one for each column. `empty` is said in place of a table without rows.

    `is_list`: this is what the command lists, and what CSV holds.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    empty: str = ""
    is_list: bool = True


class Line(NamedTuple):
    """A line of text, in the colour of a state."""

    text: str
    state: str = ""


Part = str | Line | Table


class Terminal(NamedTuple):
    """What a terminal can show."""

    width: int
    has_colors: bool


def csv_text(table: Table) -> str:
    """Return a table as CSV (RFC 4180, but lines end in a line feed), values unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([[_csv_value(cell) for cell in row] for row in table.rows])
    return text.getvalue()


def plain_text(table: Table) -> str:
    """Return aligned columns, two spaces apart, numbers to the right."""
    lines = [[column.title for column in table.columns], *texts_of(table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    return "\n".join(
        GAP.join(
            cell.rjust(width) if column.kind in NUMBERS else cell.ljust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        for line in lines
    )


def texts_of(table: Table) -> list[list[str]]:
    """Return the cells of each row as a person reads them."""
    return [
        [_text(column.kind, cell) for column, cell in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]


def _text(kind: Kind, cell: Cell) -> str:
    """Return a value as a person reads it."""
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, datetime):
        return format_rfc3339(cell.replace(microsecond=0))
    if isinstance(cell, Decimal):
        return f"{cell:+f}" if kind == "change" else f"{cell:f}"
    if kind == "seconds" and isinstance(cell, int | float):
        return human_seconds(cell)
    if isinstance(cell, int) and kind in NUMBERS:
        return {"bytes": human_bytes, "rate": human_rate}.get(kind, "{:,}".format)(cell)
    return printable(str(cell))


def _csv_value(cell: Cell) -> str | int | float:
    """Return a value as a program reads it."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return format_rfc3339(cell)
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    if isinstance(cell, str):
        # A spreadsheet would take a name that begins so for a formula.
        return printable(f"'{cell}" if cell.startswith(FORMULA_SIGNS) else cell)
    return cell
