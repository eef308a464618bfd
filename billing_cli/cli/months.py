"""A month on the command line."""

from __future__ import annotations

from datetime import date
from typing import Any

import click


class MonthType(click.ParamType[date]):
    """A month, such as 2026-11: its first day."""

    name = "month"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the first day, or fail as a usage error."""
        if isinstance(value, date):
            return value
        try:
            if len(str(value)) != len("2026-11"):
                raise ValueError  # noqa: TRY301
            return date.fromisoformat(f"{value}-01")
        except ValueError:
            self.fail(f"{value!r} is no month such as 2026-11", param, ctx)
