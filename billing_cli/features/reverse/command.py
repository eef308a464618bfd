"""`billing reverse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts, complete_sources
from billing_cli.cli.options import MomentType, dry_run_option, json_option, reason_option
from billing_cli.cli.running import run_job

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from billing_cli.cli.root import Options


@click.command("reverse")
@click.option(
    "--source",
    "source_id",
    required=True,
    metavar="ID",
    shell_complete=complete_sources,
    help="The source.",
)
@click.option(
    "--since", type=MomentType(), required=True, metavar="TIME", help="First minute to reverse."
)
@click.option("--until", type=MomentType(), metavar="TIME", help="Where to stop, exclusive.")
@click.option(
    "--account",
    "account_uuid",
    type=click.UUID,
    shell_complete=complete_accounts,
    metavar="UUID",
    help="Only this account.",
)
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def command(
    options: Options,
    source_id: str,
    since: datetime,
    until: datetime | None,
    account_uuid: UUID | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give back everything that a source charged in a range.

    For a node that was compromised or counted wrongly. Bytes are taken out of the buckets, money
    goes back at the price that was charged, and included quota to the period it came from, by new
    ledger entries with the reason. Counters and watermark stay: the source goes on from where it
    stands. The same call again changes nothing.

    Stop the source first (enabled = false). Once its history is clean, `billing reconcile --source
    ID --since TIME` charges again what it shows; without --since it leaves alone what was reversed.
    What `billing held release` charged goes back for good: history does not charge it again.

    \b
    Examples:
      billing reverse --source jp-1 --since 2026-04-08T12:00:00Z --reason 'compromised' --dry-run
      billing reverse --source jp-1 --since 2026-04-08T12:00:00Z --reason 'compromised'
    """
    from billing_cli.features.reverse.job import JOB, Order, reverse  # noqa: PLC0415
    from billing_cli.features.reverse.report import reverse_parts  # noqa: PLC0415

    order = Order(source_id, since, until, str(account_uuid) if account_uuid else None, reason)
    run_job(
        options,
        JOB,
        as_json,
        lambda context: reverse(context, order, dry_run=dry_run),
        dry_run=dry_run,
        text_of=reverse_parts,
        files_checked=False,
    )
