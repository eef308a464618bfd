"""Tables as a terminal shows them: coloured, within its width, or each row as a block."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from billing_cli.cli.tables import GAP, NUMBERS, STYLES, Column, Table, Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_PROSE = 24
"""A column of prose is wrapped, but never to fewer characters than this."""


def fitted(table: Table, texts: Sequence[Sequence[str]], shown_on: Terminal) -> str:
    """Return a table whose cells have these texts as a terminal shows it: the columns that fit."""
    columns = list(enumerate(table.columns))
    least = [_least_width(column, [line[i] for line in texts]) for i, column in columns]
    extras = [i for i, column in columns if column.is_extra]
    kept = [i for i, _ in columns]
    while sum(least[i] for i in kept) + len(GAP) * (len(kept) - 1) > shown_on.width:
        if not extras:
            return _blocks(table, texts, shown_on)
        kept.remove(extras.pop())
    return _rich(
        [table.columns[i] for i in kept], [[line[i] for i in kept] for line in texts], shown_on
    )


def _least_width(column: Column, cells: Sequence[str]) -> int:
    widest = max(len(cell) for cell in cells)
    return max(len(column.title), min(widest, LEAST_PROSE) if column.kind == "prose" else widest)


def _rich(columns: Sequence[Column], lines: Sequence[Sequence[str]], shown_on: Terminal) -> str:
    shown = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, len(GAP), 0, 0))
    for column in columns:
        shown.add_column(
            column.title,
            justify="right" if column.kind in NUMBERS else "left",
            no_wrap=column.kind != "prose",
            overflow="fold",
        )
    for line in lines:
        shown.add_row(
            *(
                Text(cell, STYLES.get(cell, "") if cell == "-" or column.kind == "state" else "")
                for cell, column in zip(line, columns, strict=True)
            )
        )
    return _rendered(shown, shown_on)


def _blocks(table: Table, texts: Sequence[Sequence[str]], shown_on: Terminal) -> str:
    """Return each row as a block of its own: a line for each column."""
    blocks = []
    for line in texts:
        shown = RichTable.grid(padding=(0, len(GAP), 0, 0), pad_edge=False)
        shown.add_column(style="bold", no_wrap=True)
        shown.add_column(overflow="fold")
        for column, cell in zip(table.columns, line, strict=True):
            shown.add_row(column.title, Text(cell))
        blocks.append(_rendered(shown, shown_on))
    return "\n\n".join(blocks)


def _rendered(shown: Any, shown_on: Terminal) -> str:
    file = io.StringIO()
    Console(
        file=file,
        width=shown_on.width,
        force_terminal=True,
        color_system="standard" if shown_on.has_colors else None,
        legacy_windows=False,
    ).print(shown)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
