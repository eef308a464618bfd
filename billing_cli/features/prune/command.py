"""`billing prune`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from billing_cli.cli.options import json_option
from billing_cli.cli.running import run_job
from billing_cli.features.prune.result import months_of

if TYPE_CHECKING:
    from billing_cli.cli.root import Options
    from billing_cli.features.prune.result import PrunedMonth, PruneResult
    from billing_cli.jobs.context import JobContext


class MonthsType(click.ParamType[int]):
    """A number of months, such as 18mo."""

    name = "months"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail as a usage error."""
        if isinstance(value, int):
            return value
        try:
            return months_of(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("prune")
@click.option(
    "--keep",
    "keep_months",
    type=MonthsType(),
    required=True,
    metavar="MONTHS",
    help="Keep this month and so many whole ones before it, such as 18mo.",
)
@click.option(
    "--drop",
    "is_dropping",
    is_flag=True,
    help="Drop the tables of the months, and those detached before. [default: only detach them]",
)
@click.option(
    "--unproven",
    "is_unproven_meant",
    is_flag=True,
    help="Also where the last audit found violations, or there was none since.",
)
@click.option(
    "--without-archive",
    "is_archive_waived",
    is_flag=True,
    help="Also months that are not archived as they are; the run history says so.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing, and say what would go.")
@json_option
@click.pass_obj
def command(
    options: Options,
    keep_months: int,
    is_dropping: bool,
    is_unproven_meant: bool,
    is_archive_waived: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take whole months of old evidence away, once `billing archive` has written them.

    Usage records and charges are detached month by month; each month becomes tables of its own,
    to be archived and dropped. Buckets and ledger stay. What audits need goes into the place of
    the evidence: sums by account and month, and where each stream's chain goes on. Rows of the run
    history and resolved gaps of that time are deleted. Connect as the role that migrates.

    \b
    Examples:
      billing prune --keep 18mo --dry-run
      billing prune --keep 18mo
      billing prune --keep 18mo --drop --json
    """
    from billing_cli.features.prune.job import JOB, prune  # noqa: PLC0415
    from billing_cli.features.prune.text import prune_parts  # noqa: PLC0415

    is_shown = not as_json and sys.stderr.isatty()

    def show(month: PrunedMonth) -> None:
        if is_shown:
            click.echo(f"pruned {month.month:%Y-%m}", err=True)

    def work(context: JobContext) -> PruneResult:
        return prune(
            context,
            keep_months,
            is_dropping=is_dropping,
            is_unproven_meant=is_unproven_meant,
            is_archive_waived=is_archive_waived,
            dry_run=dry_run,
            on_month=show,
        )

    run_job(
        options,
        JOB,
        as_json,
        work,
        dry_run=dry_run,
        text_of=prune_parts,
        files_checked=False,
    )
