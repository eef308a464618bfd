"""`billing catch-up`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

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
    from billing_cli.core.result import RunResult, SourceResult
    from billing_cli.core.shard import Shard
    from billing_cli.jobs.context import JobContext


@click.command("catch-up")
@source_option
@shard_option
@click.option(
    "--since", type=MomentType(), metavar="TIME", help="Where a source without watermark begins."
)
@click.option(
    "--until", type=MomentType(), metavar="TIME", help="Where to stop. [default: now, minute-cut]"
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
    """Repeat bounded steps, one transaction each, until every source is current.

    Use it after an outage, or to begin a new source somewhere in its history. It may be
    interrupted at any time: the steps that are done stand, the next call goes on from there.

    --since counts for sources that were never collected: the first snapshot from then on is
    their baseline, which charges nothing. All others go on from their watermark, and a note says
    so. Times are RFC 3339, a duration back from now (2h, 3d), today or yesterday (UTC).

    With --from-file, snapshots are read from a file: from the disk of a node that is dead, or from
    what a log shipper wrote. It may hold several nodes, as lists, pages or lines of snapshots,
    also compressed with gzip. Sources that the file has nothing of are left alone.

    \b
    Examples:
      billing catch-up
      billing catch-up --source jp-1 --since 2026-04-08T00:00:00Z
      billing catch-up --source jp-1 --from-file /mnt/jp-1/snapshots.json
      zcat shipped-*.gz | billing catch-up --from-file -
      billing catch-up --until 2026-04-08T12:00:00Z --dry-run
    """
    from billing_cli.jobs.catch_up import catch_up  # noqa: PLC0415

    is_shown = not as_json and sys.stderr.isatty()
    file = file_of(file_path, is_shown=is_shown)

    def work(context: JobContext) -> RunResult:
        with ProgressBar(enabled=is_shown) as progress:
            return catch_up(
                in_shard(context, source_ids, shard),
                source_ids,
                since=since,
                until=until,
                dry_run=dry_run,
                file=file,
                on_step=progress.on_step,
            )

    run_job(options, "catch-up", as_json, work, dry_run=dry_run, files_checked=file is None)


class ProgressBar:
    """How far the slowest source has come between where it stood first and the goal."""

    LENGTH = 1000

    def __init__(self, *, enabled: bool) -> None:
        self.first: dict[str, datetime] = {}
        self.bar = click.progressbar(
            length=self.LENGTH, label="catching up", file=sys.stderr, hidden=not enabled
        )

    def __enter__(self) -> Self:
        self.bar.__enter__()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *error: object) -> None:
        if error_type is None:
            # Whoever is current stands at its last snapshot, a little before the goal.
            self.bar.update(self.LENGTH - self.bar.pos)
        self.bar.__exit__(None, None, None)

    def on_step(self, results: Mapping[str, SourceResult], goal: datetime) -> None:
        """Move the bar to the mean part of the way that the sources have come."""
        parts = []
        for source_id, result in results.items():
            reached = result.last_completed_until
            if reached is None or result.status == "error":
                continue
            first = self.first.setdefault(source_id, reached)
            way = (goal - first).total_seconds()
            parts.append(1.0 if way <= 0 else (reached - first).total_seconds() / way)
        position = int(self.LENGTH * sum(parts) / len(parts)) if parts else 0
        self.bar.update(max(0, position - self.bar.pos))
