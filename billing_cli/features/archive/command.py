"""`billing archive`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from billing_cli.cli.options import MonthType, json_option
from billing_cli.cli.running import run_job

if TYPE_CHECKING:
    from datetime import date

    from billing_cli.cli.root import Options
    from billing_cli.cli.tables import Part
    from billing_cli.core.result import RunResult
    from billing_cli.jobs.context import JobContext


@click.command("archive")
@click.option("--month", type=MonthType(), required=True, metavar="MONTH", help="Such as 2026-08.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The month becomes a directory in this one.",
)
@json_option
@click.pass_obj
def command(options: Options, month: date, to: Path, as_json: bool) -> None:
    """Write a month's usage records, charges, seals and days as Parquet files.

    The files prove themselves: `billing verify --archive DIR --public-key FILE` needs no database.
    What was written is read back and verified before the directory gets its name. `billing prune`
    takes away only months that are archived. All facts of the month must be in the signed log.
    Needs the package pyarrow (extra `archive`).

    \b
    Examples:
      billing archive --month 2026-08 --to /srv/archive
      billing archive --month 2026-08 --to /srv/archive --json
    """
    from billing_cli.cli.units import plural  # noqa: PLC0415
    from billing_cli.features.archive.job import JOB, ArchiveResult, archive  # noqa: PLC0415

    def work(context: JobContext) -> RunResult:
        return archive(context, month, to)

    def text_of(result: RunResult) -> list[Part]:
        if not isinstance(result, ArchiveResult):
            raise TypeError(result)
        how = "archived" if result.is_new else "archived before, unchanged"
        rows = (
            f"{plural(result.records, 'usage record')}, {plural(result.charges, 'charge')}, "
            f"{plural(result.seals, 'seal')}, {plural(result.days, 'day')}"
        )
        return [f"archive: {result.month} {how} - {rows} in {result.directory}"]

    run_job(options, JOB, as_json, work, dry_run=False, text_of=text_of, files_checked=False)
