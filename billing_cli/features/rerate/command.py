"""`billing rerate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.listing import any_source_option
from billing_cli.cli.options import LineType, MomentType, dry_run_option, json_option, reason_option
from billing_cli.cli.running import run_job

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from billing_cli.cli.root import Options
    from billing_cli.features.rerate.report import RerateResult
    from billing_cli.jobs.context import JobContext


@click.command("rerate")
@click.option(
    "--since", type=MomentType(), required=True, metavar="TIME", help="First minute to re-rate."
)
@click.option(
    "--until", type=MomentType(), required=True, metavar="TIME", help="Where to stop, exclusive."
)
@reason_option
@click.option(
    "--pricing-rule-version",
    type=LineType(),
    required=True,
    metavar="VERSION",
    help="What the new prices are called; the entries and the buckets carry it.",
)
@click.option(
    "--account",
    "account_uuids",
    type=click.UUID,
    shell_complete=complete_accounts,
    multiple=True,
    metavar="UUID",
    help="Only this account; may be given several times. [default: all]",
)
@any_source_option
@click.option(
    "--allow-zero-price",
    "is_zero_price_meant",
    is_flag=True,
    help="Give everything back to accounts that have no price now.",
)
@dry_run_option
@json_option
@click.pass_obj
def command(
    options: Options,
    since: datetime,
    until: datetime,
    reason: str,
    pricing_rule_version: str,
    account_uuids: tuple[UUID, ...],
    source_ids: tuple[str, ...],
    is_zero_price_meant: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Bring the charges of a range to today's prices.

    Prices were wrong: put them right first, in the profiles or in the configuration. This then
    charges or gives back the difference, as new ledger entries that carry the reason and the
    version. Bytes stay what they are. It may run at the same time as collect, and be interrupted at
    any time; the same call goes on from there, and changes nothing where all is done.

    \b
    Examples:
      billing rerate --since 2026-04-01T00:00:00Z --until 2026-04-08T00:00:00Z \\
        --pricing-rule-version 2026-04-b --reason 'the April price list was not loaded' --dry-run
    """
    from billing_cli.features.rerate.job import JOB, Order, rerate  # noqa: PLC0415
    from billing_cli.features.rerate.report import rerate_parts  # noqa: PLC0415

    order = Order(
        since,
        until,
        pricing_rule_version,
        reason,
        tuple(sorted({str(uuid) for uuid in account_uuids})),
        tuple(sorted(set(source_ids))),
        is_zero_price_meant,
    )
    is_shown = not as_json and sys.stderr.isatty()

    def show(reached: datetime) -> None:
        if is_shown:
            click.echo(f"re-rated up to {reached:%Y-%m-%d %H:%M} UTC", err=True)

    def work(context: JobContext) -> RerateResult:
        return rerate(context, order, dry_run=dry_run, on_step=show)

    run_job(
        options,
        JOB,
        as_json,
        work,
        dry_run=dry_run,
        text_of=rerate_parts,
        files_checked=False,
    )
