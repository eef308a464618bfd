"""`billing repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.options import AccountType, dry_run_option, json_option, reason_option
from billing_cli.cli.running import run_job

if TYPE_CHECKING:
    from billing_cli.cli.root import Options


@click.group("repair")
def command() -> None:
    """Repair what another service undid.

    \b
    Example:
      billing repair balances --reason 'stale write on 8 April' --dry-run
    """


@command.command("balances")
@click.option(
    "--account",
    type=AccountType(),
    shell_complete=complete_accounts,
    metavar="ACCOUNT",
    help="Only this account: its uuid or its e-mail address. [default: all]",
)
@reason_option
@dry_run_option
@json_option
@click.pass_obj
def balances_command(
    options: Options, account: str | None, reason: str, dry_run: bool, as_json: bool
) -> None:
    """Take charges out of balances again that a stale write had undone.

    `billing audit` names such charges. A service read the quota state before them, and wrote the
    whole row back afterwards. Each loss is corrected once, under the lock of the row, and recorded
    with the reason; the charges and their ledger rows stay as they are.

    \b
    Examples:
      billing repair balances --reason 'stale write on 8 April' --dry-run
      billing repair balances --account user@example.com --reason 'stale write on 8 April'
    """
    from billing_cli.features.repair.job import JOB, repair_balances  # noqa: PLC0415
    from billing_cli.features.repair.report import repair_parts  # noqa: PLC0415

    run_job(
        options,
        JOB,
        as_json,
        lambda context: repair_balances(context, reason, account=account, dry_run=dry_run),
        dry_run=dry_run,
        text_of=repair_parts,
        files_checked=False,
    )
