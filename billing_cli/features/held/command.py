"""`billing held`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from billing_cli.cli.listing import any_source_option, show
from billing_cli.cli.reasons import reason_option
from billing_cli.cli.running import dry_run_option, json_option, run_job

if TYPE_CHECKING:
    from billing_cli.cli.root import Options

held_ids_argument = click.argument(
    "held_ids", nargs=-1, required=True, type=click.IntRange(1, 2**63 - 1), metavar="ID..."
)


@click.group("held")
def command() -> None:
    """List the deltas that no line can carry, charge them, or drop them.

    A counter that jumps further than its line could have carried in the time is not charged; it
    waits here until somebody has found out what it was.

    \b
    Examples:
      billing held list
      billing held release 17 --reason 'the line was upgraded to 10 Gbit/s'
      billing held reject 18 19 --reason 'the exporter mixed up two nodes'
    """


@command.command("list")
@any_source_option
@click.option("--all", "is_decided_shown", is_flag=True, help="Show those that are decided, too.")
@json_option
@click.pass_obj
def list_command(
    options: Options, source_ids: tuple[str, ...], is_decided_shown: bool, as_json: bool
) -> None:
    """Show the deltas that wait for a decision, oldest first.

    The rate tells what the line would have had to carry; streams and totals tell where to look.

    \b
    Examples:
      billing held list
      billing held list --source jp-1 --all
    """
    from billing_cli.features.held.job import list_held  # noqa: PLC0415
    from billing_cli.features.held.result import held_list_object  # noqa: PLC0415
    from billing_cli.features.held.text import held_list_text  # noqa: PLC0415

    show(
        options,
        "held-list",
        as_json,
        lambda context: list_held(context, source_ids, is_decided_shown=is_decided_shown),
        held_list_object,
        held_list_text,
    )


@command.command("release")
@held_ids_argument
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def release_command(
    options: Options, held_ids: tuple[int, ...], reason: str, dry_run: bool, as_json: bool
) -> None:
    """Charge held deltas, all that are named or none.

    Their bytes count in the minute of the source's watermark, at today's price. A decision is
    final: bytes that were released by mistake are not taken back here.

    \b
    Examples:
      billing held release 17 --reason 'the line was upgraded to 10 Gbit/s' --dry-run
      billing held release 17 --reason 'the line was upgraded to 10 Gbit/s'
    """
    from billing_cli.features.held.job import RELEASE_JOB, release_held  # noqa: PLC0415
    from billing_cli.features.held.text import held_result_text  # noqa: PLC0415

    run_job(
        options,
        RELEASE_JOB,
        as_json,
        lambda context: release_held(context, held_ids, reason, dry_run=dry_run),
        dry_run=dry_run,
        text_of=held_result_text,
        files_checked=False,
    )


@command.command("reject")
@held_ids_argument
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def reject_command(
    options: Options, held_ids: tuple[int, ...], reason: str, dry_run: bool, as_json: bool
) -> None:
    """Decide that held deltas are never charged, all that are named or none.

    They stay on record with the reason. A decision is final.

    \b
    Example:
      billing held reject 18 19 --reason 'the exporter mixed up two nodes'
    """
    from billing_cli.features.held.job import REJECT_JOB, reject_held  # noqa: PLC0415
    from billing_cli.features.held.text import held_result_text  # noqa: PLC0415

    run_job(
        options,
        REJECT_JOB,
        as_json,
        lambda context: reject_held(context, held_ids, reason, dry_run=dry_run),
        dry_run=dry_run,
        text_of=held_result_text,
        files_checked=False,
    )
