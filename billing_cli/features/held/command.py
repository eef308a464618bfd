"""`billing held`."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from billing_cli.cli.completion import complete_sources
from billing_cli.cli.listing import any_source_option, show
from billing_cli.cli.options import MomentType, dry_run_option, json_option, reason_option
from billing_cli.cli.printing import output_options
from billing_cli.cli.running import run_job
from billing_cli.core.model import HeldReason
from billing_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from typing import Any

    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.jobs.context import JobContext

# Why deltas are held, and the kinds of gaps that state uncertain bytes.
KINDS = (*get_args(HeldReason), "disorder", "uncertain")


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command name held deltas by id, or by source and time."""
    for option in (
        click.option(
            "--until", type=MomentType(), metavar="TIME", help="Where to stop, exclusive."
        ),
        click.option(
            "--since", type=MomentType(), metavar="TIME", help="With --source: from this minute on."
        ),
        click.option(
            "--source",
            "source_id",
            metavar="ID",
            shell_complete=complete_sources,
            help="All that waits of this source since TIME.",
        ),
        click.argument("held_ids", nargs=-1, type=click.IntRange(1, 2**63 - 1), metavar="[ID...]"),
    ):
        command = option(command)
    return command


def _selected(
    context: JobContext,
    held_ids: tuple[int, ...],
    source_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> tuple[int, ...]:
    """Return the ids that are meant. Raises UsageError for none, or for both ways at once."""
    from billing_cli.features.held.job import select_held  # noqa: PLC0415

    if held_ids:
        if source_id or since or until:
            raise UsageError("ids exclude --source, --since and --until")
        return held_ids
    if source_id is None or since is None:
        raise UsageError("name held deltas by their ids, or by --source and --since")
    return tuple(select_held(context, source_id, since, until))


@click.group("held")
def command() -> None:
    """List the deltas that are held, charge them, or drop them.

    An account's minute above account_rate_bits_per_second or a daily maximum (max_daily_charge,
    max_daily_charge_per_source), a node's minute above line_rate_bits_per_second, and what a
    duplicate stream counts are not charged: they wait here for a decision.

    \b
    Examples:
      billing held list
      billing held release 17 --reason 'the line was upgraded to 10 Gbit/s'
      billing held release --source jp-1 --since 2026-04-08T12:00:00Z --reason 'a load test'
      billing held reject 18 19 --reason 'the exporter mixed up two nodes'
    """


@command.command("list")
@any_source_option
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="Only what is held for this reason, or gaps of this kind; may be given several times.",
)
@click.option("--all", "is_decided_shown", is_flag=True, help="Show those that are decided, too.")
@output_options
@click.pass_obj
def list_command(
    options: Options,
    source_ids: tuple[str, ...],
    kinds: tuple[str, ...],
    is_decided_shown: bool,
    output: Output,
) -> None:
    """Show the deltas that wait for a decision, oldest first.

    First by what is decided together: an account's minute (account_rate, daily_charge), a node's
    minute (line_rate), or a duplicate stream. Then one by one: the rate tells what the line would
    have had to carry. Last, for information only, bytes that were not charged because the
    snapshots allow for less.

    \b
    Examples:
      billing held list
      billing held list --source jp-1 --all
      billing held list --kind duplicate --output csv
    """
    from billing_cli.features.held.job import list_held  # noqa: PLC0415
    from billing_cli.features.held.result import held_list_object  # noqa: PLC0415
    from billing_cli.features.held.text import held_list_parts  # noqa: PLC0415

    show(
        options,
        "held-list",
        output,
        lambda context: list_held(context, source_ids, kinds, is_decided_shown=is_decided_shown),
        held_list_object,
        held_list_parts,
    )


@command.command("release")
@selection_options
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def release_command(
    options: Options,
    held_ids: tuple[int, ...],
    source_id: str | None,
    since: datetime | None,
    until: datetime | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Charge held deltas, all that are named or none.

    Their bytes count in the minute of the source's watermark, at today's price, and consume no
    credit. A duplicate stream is released as a whole, and is charged from then on. A decision is
    final: bytes that were released by mistake are not taken back here.

    \b
    Examples:
      billing held release 17 --reason 'the line was upgraded to 10 Gbit/s' --dry-run
      billing held release 17 --reason 'the line was upgraded to 10 Gbit/s'
      billing held release --source jp-1 --since 2026-04-08T12:00:00Z --reason 'a load test'
    """
    from billing_cli.features.held.job import RELEASE_JOB, release_held  # noqa: PLC0415
    from billing_cli.features.held.text import held_result_parts  # noqa: PLC0415

    run_job(
        options,
        RELEASE_JOB,
        as_json,
        lambda context: release_held(
            context,
            _selected(context, held_ids, source_id, since, until),
            reason,
            dry_run=dry_run,
        ),
        dry_run=dry_run,
        text_of=held_result_parts,
        files_checked=False,
    )


@command.command("reject")
@selection_options
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def reject_command(
    options: Options,
    held_ids: tuple[int, ...],
    source_id: str | None,
    since: datetime | None,
    until: datetime | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Decide that held deltas are never charged, all that are named or none.

    They stay on record with the reason. A duplicate stream is rejected as a whole: it is ignored
    from then on, and never charged. A decision is final.

    \b
    Example:
      billing held reject 18 19 --reason 'the exporter mixed up two nodes'
    """
    from billing_cli.features.held.job import REJECT_JOB, reject_held  # noqa: PLC0415
    from billing_cli.features.held.text import held_result_parts  # noqa: PLC0415

    run_job(
        options,
        REJECT_JOB,
        as_json,
        lambda context: reject_held(
            context,
            _selected(context, held_ids, source_id, since, until),
            reason,
            dry_run=dry_run,
        ),
        dry_run=dry_run,
        text_of=held_result_parts,
        files_checked=False,
    )
