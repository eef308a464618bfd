"""`billing audit`."""

from __future__ import annotations

import json
import sys
import uuid
from typing import TYPE_CHECKING

import click

from billing_cli.commands.running import json_option, open_context
from billing_cli.core.audit import DEFAULT_LIMIT
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL, BillingError

if TYPE_CHECKING:
    from billing_cli.commands.root import Options


@click.command("audit")
@click.option(
    "--account",
    type=click.UUID,
    metavar="UUID",
    help="Only this account, by its uuid or its proxy uuid. [default: all]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="List at most this many findings of a kind, and accounts. All are counted.",
)
@json_option
@click.pass_obj
def command(options: Options, account: uuid.UUID | None, limit: int, as_json: bool) -> None:
    """Prove from the database alone that nothing was skipped or counted twice.

    Usage records lead from one to the next, buckets are what records say, the ledger charges
    these bytes at the recorded price, balances follow from the ledger, watermarks and checkpoints
    agree. Reads only. Exits with 3 where anything is violated; what others may rightly change,
    such as a top-up, is a notice.

    \b
    Examples:
      billing audit
      billing audit --account 11111111-1111-1111-1111-111111111111
      billing audit --json --limit 1000
    """
    from billing_cli.core.audit import audit_object  # noqa: PLC0415
    from billing_cli.jobs.audit import audit  # noqa: PLC0415
    from billing_cli.report.audit import audit_text  # noqa: PLC0415

    is_shown = not as_json and sys.stderr.isatty()

    def show(number: int, count: int, title: str) -> None:
        if is_shown:
            click.echo(f"{number} of {count}: {title}", err=True)

    try:
        context = open_context(options, "audit", str(uuid.uuid4()), files_checked=False)
        report = audit(
            context, account=str(account) if account else None, limit=limit, on_check=show
        )
    except BillingError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"job": "audit", "status": "error", "error": str(error)}))
        sys.exit(error.exit_code)
    click.echo(json.dumps(audit_object(report)) if as_json else audit_text(report))
    sys.exit(EXIT_PARTIAL if report.violations else EXIT_OK)
