"""Texts that an operator gives along, and that are stored with what is done."""

from __future__ import annotations

from typing import Any

import click


class LineType(click.ParamType[str]):
    """One line of readable text that is not empty."""

    name = "text"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Return the text with its white space made plain, or fail as a usage error."""
        line = " ".join(str(value).split())
        if not line:
            self.fail("it is empty", param, ctx)
        if not line.isprintable():
            self.fail("it holds characters that can't be printed", param, ctx)
        return line


reason_option = click.option(
    "--reason",
    type=LineType(),
    required=True,
    metavar="TEXT",
    help="Why; it is stored with what is done.",
)
