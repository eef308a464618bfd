"""What a command prints: lines and tables, for a terminal, a pipe, CSV or JSON.

A command describes its output once, as parts. On a terminal, tables are coloured and fit its width:
columns that are marked as extra are left out, long texts are wrapped, and where that is not enough
each row is printed as a block. A pipe gets plain aligned columns, all of them, however wide.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import textwrap
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO, TypeVar

import click

from billing_cli.cli.units import human_bytes, human_rate, human_seconds
from billing_cli.core.times import format_rfc3339
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Output = Literal["table", "csv", "json"]
Kind = Literal[
    "text", "prose", "state", "count", "bytes", "rate", "money", "change", "moment", "seconds"
]  # fmt: skip
Cell = str | int | float | Decimal | datetime | None
Report = TypeVar("Report")

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


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command print a table, CSV or JSON; its parameter is called `output`."""
    for option in (
        click.option("--json", "output", flag_value="json", help="The same as --output json."),
        click.option(
            "--output",
            "output",
            type=click.Choice(["table", "csv", "json"]),
            default="table",
            show_default=True,
            help="A table for people, CSV with a header line, or exactly one JSON object.",
        ),
    ):
        command = option(command)
    return command


def print_report(
    output: Output,
    report: Report,
    object_of: Callable[[Report], dict[str, Any]],
    parts_of: Callable[[Report], Sequence[Part]],
    list_of: Callable[[Report], Table] | None = None,
) -> None:
    """Print a report to stdout as one JSON object, as the CSV of its list, or for people.

    `list_of` gives the list where it is not shown to people as it is.
    """
    if output == "json":
        click.echo(json.dumps(object_of(report)))
    elif output == "csv":
        listed = list_of(report) if list_of else _list_in(parts_of(report))
        click.echo(csv_text(listed), nl=False)
    else:
        print_parts(parts_of(report))


def _list_in(parts: Sequence[Part]) -> Table:
    return next(part for part in parts if isinstance(part, Table) and part.is_list)


def print_parts(parts: Sequence[Part]) -> None:
    """Print lines and tables to stdout as its reader can take them."""
    click.echo(text_of(parts, terminal()))


def terminal(stream: TextIO | None = None) -> Terminal | None:
    """Return what is behind stdout, or behind a stream; None where that is no terminal."""
    # There is no stdout where it was closed.
    stdout: TextIO | None = stream or sys.stdout
    if stdout is None or not stdout.isatty():
        return None
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Terminal(shutil.get_terminal_size().columns, has_colors=not is_plain)


def shows_blocks() -> bool:
    """Return whether stdout is a terminal that can show bars."""
    return terminal() is not None and (sys.stdout.encoding or "").lower().startswith("utf")


def csv_text(table: Table) -> str:
    """Return a table as CSV (RFC 4180, but lines end in a line feed), values unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    writer.writerows([[_csv_value(cell) for cell in row] for row in table.rows])
    return text.getvalue()


def text_of(parts: Sequence[Part], shown_on: Terminal | None = None) -> str:
    """Return lines and tables as text; without a terminal they are not coloured or wrapped."""
    return "\n".join(_shown(part, shown_on) for part in parts)


def _shown(part: Part, shown_on: Terminal | None) -> str:
    if isinstance(part, Table):
        if not part.rows:
            return part.empty
        if shown_on is None:
            return _plain(part)
        # Imported only where somebody looks.
        from billing_cli.cli.rich_tables import fitted  # noqa: PLC0415

        return fitted(part, _texts(part), shown_on)
    text, state = (part.text, part.state) if isinstance(part, Line) else (part, "")
    text = printable(text)
    if shown_on is None:
        return text
    if len(text) > shown_on.width:
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        text = textwrap.fill(text, shown_on.width, subsequent_indent=indent, break_on_hyphens=False)
    color = STYLES.get(state)
    return click.style(text, fg=color) if color and shown_on.has_colors else text


def _plain(table: Table) -> str:
    """Return aligned columns, two spaces apart, numbers to the right."""
    lines = [[column.title for column in table.columns], *_texts(table)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    return "\n".join(
        GAP.join(
            cell.rjust(width) if column.kind in NUMBERS else cell.ljust(width)
            for cell, width, column in zip(line, widths, table.columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _texts(table: Table) -> list[list[str]]:
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
