"""What a command prints: lines and tables, for a terminal, a pipe, CSV or JSON.

A command describes its output once, as parts. On a terminal, tables are coloured and fit its width:
columns that are marked as extra are left out, long texts are wrapped, and where that is not enough
each row is printed as a block. A pipe gets plain aligned columns, all of them, however wide.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

import click

from billing_cli.cli.tables import STYLES, Line, Table, Terminal, csv_text, plain_text, texts_of
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from billing_cli.cli.tables import Part

Output = Literal["table", "csv", "json"]
Report = TypeVar("Report")


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


def text_of(parts: Sequence[Part], shown_on: Terminal | None = None) -> str:
    """Return lines and tables as text; without a terminal they are not coloured or wrapped."""
    return "\n".join(_shown(part, shown_on) for part in parts)


def _shown(part: Part, shown_on: Terminal | None) -> str:
    if isinstance(part, Table):
        if not part.rows:
            return part.empty
        if shown_on is None:
            return plain_text(part)
        # Imported only for a terminal.
        from billing_cli.cli.rich_tables import fitted  # noqa: PLC0415

        return fitted(part, texts_of(part), shown_on)
    text, state = (part.text, part.state) if isinstance(part, Line) else (part, "")
    text = printable(text)
    if shown_on is None:
        return text
    if len(text) > shown_on.width:
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        text = textwrap.fill(text, shown_on.width, subsequent_indent=indent, break_on_hyphens=False)
    color = STYLES.get(state)
    return click.style(text, fg=color) if color and shown_on.has_colors else text
