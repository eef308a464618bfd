"""The options that several subcommands share, and the types of their values."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import click

from billing_cli.cli.completion import complete_sources
from billing_cli.core.shard import Shard, parse_shard
from billing_cli.core.times import parse_time


class MomentType(click.ParamType[datetime]):
    """An RFC 3339 time with a zone, a duration back from now, or `today` or `yesterday` (UTC)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the UTC datetime, or fail as a usage error."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_time(value, datetime.now(UTC))
        except ValueError as error:
            self.fail(
                f"{error}; give one such as 2026-04-08T12:00:00Z, a duration back from now such as"
                " 2h or 3d, today or yesterday",
                param,
                ctx,
            )


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


class AccountType(click.ParamType[str]):
    """An account: its uuid, a proxy uuid of it, or its e-mail address."""

    name = "account"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return a uuid in its usual form, or the address as it is; or fail as a usage error."""
        if "@" in str(value):
            return str(value)
        try:
            return str(UUID(value))
        except ValueError:
            self.fail(f"{value!r} is neither a uuid nor an e-mail address", param, ctx)


class LineType(click.ParamType[str]):
    """One line of readable text that is not empty, to be stored with what is done."""

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


class ShardType(click.ParamType[Shard]):
    """A shard such as 2/8."""

    name = "shard"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shard:
        """Return the shard, or fail as a usage error."""
        if isinstance(value, Shard):
            return value
        try:
            return parse_shard(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


source_option = click.option(
    "--source",
    "source_ids",
    multiple=True,
    metavar="ID",
    shell_complete=complete_sources,
    help="Only this source; may be given several times. [default: every enabled source]",
)
shard_option = click.option(
    "--shard",
    type=ShardType(),
    metavar="I/N",
    help="Only the I-th of N parts of the sources. [default: BILLING_SHARD, else all]",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Do everything, roll it back, and say what would be written."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print exactly one JSON object to stdout."
)
reason_option = click.option(
    "--reason",
    type=LineType(),
    required=True,
    metavar="TEXT",
    help="Why; it is stored with what is done.",
)
