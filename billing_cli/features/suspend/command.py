"""`billing suspend`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from billing_cli.cli.options import dry_run_option, json_option
from billing_cli.cli.running import run_job

if TYPE_CHECKING:
    from billing_cli.cli.root import Options

DURATION = re.compile(r"(\d{1,5})([dhm])")
UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class DurationType(click.ParamType[timedelta]):
    """A duration such as 14d, 36h or 90m."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Return the duration, or fail as a usage error."""
        if isinstance(value, timedelta):
            return value
        found = DURATION.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no duration such as 14d, 36h or 90m", param, ctx)
        return timedelta(**{UNITS[found[2]]: int(found[1])})


@click.command("suspend")
@click.option(
    "--after",
    type=DurationType(),
    default="14d",
    show_default=True,
    metavar="DURATION",
    help="How long an account may be in arrears: days, hours or minutes.",
)
@dry_run_option
@json_option
@click.pass_obj
def command(options: Options, after: timedelta, dry_run: bool, as_json: bool) -> None:
    """Suspend accounts that have been in arrears for long, and release settled ones.

    An account is in arrears while its balance is below zero. Only what this command suspended is
    released by it, once the balance is 0 or more. It also clears the arrears flags that billing
    set, where accounts have been settled without any traffic since.

    Needs a role of its own: `billing migrate --grant-suspend-to ROLE`.

    \b
    Examples:
      billing suspend --dry-run
      billing suspend --after 14d --json
    """
    from billing_cli.features.suspend.job import JOB, suspend  # noqa: PLC0415
    from billing_cli.features.suspend.report import suspend_parts  # noqa: PLC0415

    run_job(
        options,
        JOB,
        as_json,
        lambda context: suspend(context, after, dry_run=dry_run),
        dry_run=dry_run,
        text_of=suspend_parts,
        files_checked=False,
    )
