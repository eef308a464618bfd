"""`billing collect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from billing_cli.cli.running import (
    dry_run_option,
    in_shard,
    json_option,
    run_job,
    shard_option,
    source_option,
)

if TYPE_CHECKING:
    from billing_cli.cli.root import Options
    from billing_cli.core.shard import Shard


@click.command("collect")
@source_option
@shard_option
@dry_run_option
@json_option
@click.pass_obj
def command(
    options: Options,
    source_ids: tuple[str, ...],
    shard: Shard | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Move each source one bounded step forward from its watermark.

    This is what the timer runs every minute. Everything new up to the last closed minute is
    fetched, rated and committed in one transaction; a source that fails is left where it was,
    and the others go on. Running it twice is the same as running it once.

    A source that is seen for the first time is asked for its last 72 hours (a setting); the
    oldest snapshot is the baseline, and what flowed since is charged. To begin somewhere else,
    use catch-up --since for the first run.

    A source that was named is asked whatever its interval, and whatever its shard. Ends with 3
    where some sources or samples failed, with 69 where all sources or the database are out of
    reach, and with 75 where another run is at it: then there is nothing to do.

    \b
    Examples:
      billing collect
      billing collect --source jp-1 --source jp-2
      billing collect --shard 2/8
      billing collect --dry-run
      billing collect --json | jq .amount
    """
    from billing_cli.jobs.collect import collect  # noqa: PLC0415

    run_job(
        options,
        "collect",
        as_json,
        lambda context: collect(in_shard(context, source_ids, shard), source_ids, dry_run=dry_run),
        dry_run=dry_run,
    )
