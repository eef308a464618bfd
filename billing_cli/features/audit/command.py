"""`billing audit`."""

from __future__ import annotations

import sys
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from billing_cli.cli.completion import complete_accounts
from billing_cli.cli.options import AccountType
from billing_cli.cli.printing import output_options, print_report
from billing_cli.cli.running import context_from, open_settings
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL, BillingError
from billing_cli.features.audit.findings import DEFAULT_LIMIT

if TYPE_CHECKING:
    from billing_cli.cli.printing import Output
    from billing_cli.cli.root import Options
    from billing_cli.features.audit.findings import AuditReport, AuditResult
    from billing_cli.jobs.context import JobContext


@click.command("audit")
@click.option(
    "--account",
    type=AccountType(),
    shell_complete=complete_accounts,
    metavar="ACCOUNT",
    help="Only this account: its uuid or its e-mail address. [default: all]",
)
@click.option(
    "--full",
    "is_full",
    is_flag=True,
    help="Everything. [default: what was written since the last clean audit]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=DEFAULT_LIMIT,
    show_default=True,
    metavar="N",
    help="List at most this many findings of a kind, and accounts. All are counted.",
)
@output_options
@click.pass_obj
def command(
    options: Options, account: str | None, is_full: bool, limit: int, output: Output
) -> None:
    """Prove from the database alone that nothing was skipped or counted twice.

    Usage records lead from one to the next, buckets are what records say, the ledger charges
    these bytes at the recorded price, changes of balances and quotas are explained by rows,
    watermarks and checkpoints agree. What the last clean audit has proven is not proven again,
    unless --full is given or one account is audited. Changes none of it, and notes that all
    accounts were audited. Exits with 3 where anything is violated, such as a charge that a stale
    write of another service undid; a change that no row explains is a notice.

    \b
    Examples:
      billing audit
      billing audit --full
      billing audit --account 11111111-1111-1111-1111-111111111111
      billing audit --json --limit 1000
    """
    from billing_cli.cli.observers import Observers  # noqa: PLC0415
    from billing_cli.core.result import RunResult  # noqa: PLC0415
    from billing_cli.features.audit.findings import audit_object  # noqa: PLC0415
    from billing_cli.features.audit.job import JOB, audit, audit_result  # noqa: PLC0415
    from billing_cli.features.audit.text import audit_parts, findings_table  # noqa: PLC0415

    is_shown = output != "json" and sys.stderr.isatty()
    run_id, started_at = str(uuid.uuid4()), datetime.now(UTC)
    observers = Observers()

    def show(number: int, count: int, title: str) -> None:
        if is_shown:
            click.echo(f"{number} of {count}: {title}", err=True)

    try:
        settings = open_settings(options, JOB, run_id, files_checked=False)
        context = context_from(settings, JOB, run_id)
        if account is None:
            observers.begin(settings, context, JOB)
        report = audit(
            context,
            account=account,
            is_full=is_full,
            limit=limit,
            on_check=show,
        )
    except BillingError as error:
        failed = RunResult(JOB, run_id, "error", started_at, datetime.now(UTC), error=str(error))
        observers.end(failed, error.exit_code, error)
        raise
    exit_code = EXIT_PARTIAL if report.violations else EXIT_OK
    result = audit_result(context, report, started_at)
    if account is None:
        _record(context, result)
    _log_violations(report)
    try:
        print_report(output, report, audit_object, audit_parts, findings_table)
    finally:
        observers.end(result, exit_code)
    sys.exit(exit_code)


def _log_violations(report: AuditReport) -> None:
    """Log a line for each kind of violation: units discard stdout."""
    from billing_cli import logs  # noqa: PLC0415
    from billing_cli.features.audit.findings import VIOLATIONS  # noqa: PLC0415

    option = f" --account {report.account_uuid}" if report.account_uuid else ""
    advice = f"change nothing, and run `billing audit{option}` by hand: it lists the rows"
    for kind, meaning in VIOLATIONS.items():
        if report.counts.get(kind):
            logs.get_logger().error(
                "audit found violations",
                kind=kind,
                count=report.counts[kind],
                meaning=meaning,
                advice=advice,
            )
    if report.violations:
        # Whoever is notified of a failed unit gets the last line that begins like this.
        counts = (f"{kind} {report.counts[kind]}" for kind in VIOLATIONS if report.counts.get(kind))
        click.echo(f"Error: audit found violations: {', '.join(counts)}", err=True)


def _record(context: JobContext, result: AuditResult) -> None:
    """Note the audit where this role and this server let it: it proved what it proved."""
    from billing_cli import logs  # noqa: PLC0415
    from billing_cli.features.audit.job import record_audit  # noqa: PLC0415

    try:
        record_audit(context, result)
    except BillingError as error:
        logs.get_logger().warning("audit not recorded", error=str(error))
