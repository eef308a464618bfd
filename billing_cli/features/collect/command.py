"""`billing collect`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from billing_cli.cli.from_file import file_of, from_file_option
from billing_cli.cli.options import dry_run_option, json_option, shard_option, source_option
from billing_cli.cli.running import in_shard, run_job

if TYPE_CHECKING:
    from billing_cli.cli.root import Options
    from billing_cli.core.result import RunResult
    from billing_cli.core.shard import Shard
    from billing_cli.jobs.context import JobContext


@click.command("collect")
@source_option
@shard_option
@from_file_option
@dry_run_option
@json_option
@click.pass_obj
def command(
    options: Options,
    source_ids: tuple[str, ...],
    shard: Shard | None,
    file_path: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move each source one bounded step forward from its watermark.

    This is what the timer runs every minute. What is new up to the last closed minute, about
    step_max_samples samples at most, is fetched, rated and committed in one transaction. Sources
    that can't move within their share take up to 10 further steps, one transaction each. A source
    that fails is left where it was, and the others go on. Running it twice is the same as running
    it once.

    A source that is seen for the first time is asked for its last 72 hours (a setting); the
    oldest snapshot is the baseline, and what flowed since is charged. To begin somewhere else,
    use catch-up --since for the first run.

    A source that was named is asked whatever its interval, and whatever its shard. Ends with 3
    where some sources or samples failed, with 69 where all sources or the database are out of
    reach, and with 75 where another run is in progress: then there is nothing to do.

    With --from-file, snapshots are read from a file: those that an exporter stored, or those that
    a log shipper wrote. Sources that the file has nothing of are left alone.

    \b
    Examples:
      billing collect
      billing collect --source jp-1 --source jp-2
      billing collect --shard 2/8
      billing collect --dry-run
      billing collect --from-file jp-1.json.gz
      billing collect --json | jq .amount
    """
    from billing_cli.jobs.collect import collect  # noqa: PLC0415

    file = file_of(file_path, is_shown=not as_json and sys.stderr.isatty())

    def work(context: JobContext) -> RunResult:
        return collect(in_shard(context, source_ids, shard), source_ids, dry_run=dry_run, file=file)

    run_job(options, "collect", as_json, work, dry_run=dry_run, files_checked=file is None)
