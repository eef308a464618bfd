"""`billing reconcile`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from billing_cli.cli.from_file import file_of, from_file_option
from billing_cli.cli.options import (
    MomentType,
    dry_run_option,
    json_option,
    shard_option,
    source_option,
)
from billing_cli.cli.running import in_shard, run_job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.cli.root import Options
    from billing_cli.core.result import RunResult
    from billing_cli.core.shard import Shard
    from billing_cli.jobs.context import JobContext


@click.command("reconcile")
@source_option
@shard_option
@click.option(
    "--since",
    type=MomentType(),
    metavar="TIME",
    help="First minute to compare. [default: an hour before the end]",
)
@click.option(
    "--until",
    type=MomentType(),
    metavar="TIME",
    help="Where to stop, exclusive; records that were reversed are charged again up to their end. "
    "[default: each source's watermark]",
)
@from_file_option
@dry_run_option
@json_option
@click.pass_obj
def command(
    options: Options,
    source_ids: tuple[str, ...],
    shard: Shard | None,
    since: datetime | None,
    until: datetime | None,
    file_path: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Read history again, compare it with what is stored, append corrections.

    Missing bytes are charged, bytes in the wrong minute are moved, and bytes that a hidden
    counter reset had swallowed are recovered, always as new ledger entries. What the exporter's
    history does not cover is left alone. A second run changes nothing.

    A dry run prints each minute that differs, with its bytes and its money. Times are RFC 3339,
    a duration back from now (2h, 3d), today or yesterday (UTC). A source that is being collected
    just now is left out: run it again. Ends with 3 where some sources failed, and with 75 where
    all were left out.

    With --from-file the history is that of a file, as for catch-up.

    \b
    Examples:
      billing reconcile
      billing reconcile --dry-run
      billing reconcile --source jp-1 --since 2026-04-08T00:00:00Z --until 2026-04-09T00:00:00Z
      billing reconcile --json
    """
    from billing_cli.jobs.reconcile import reconcile  # noqa: PLC0415

    is_shown = not as_json and sys.stderr.isatty()
    file = file_of(file_path, is_shown=is_shown)

    def show(reached: Mapping[str, datetime], end: datetime) -> None:
        if is_shown:
            slowest = min(reached.values())
            click.echo(f"compared up to {slowest:%Y-%m-%d %H:%M} of {end:%H:%M} UTC", err=True)

    def work(context: JobContext) -> RunResult:
        return reconcile(
            in_shard(context, source_ids, shard),
            source_ids,
            since=since,
            until=until,
            dry_run=dry_run,
            file=file,
            on_step=show,
        )

    run_job(options, "reconcile", as_json, work, dry_run=dry_run, files_checked=file is None)
