"""`audit`: proves the invariants from the database alone, and changes none of what it checks.

All checks see one state of the database, so that concurrent runs neither disturb it
nor are disturbed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.database.connection import Session
from billing_cli.database.lookup import find_account
from billing_cli.database.partitions import read_evidence_since
from billing_cli.database.schema import require_head
from billing_cli.features.audit.findings import (
    DEFAULT_LIMIT,
    AccountFigures,
    AuditReport,
    AuditResult,
)
from billing_cli.features.audit.positions import save_audit
from billing_cli.features.audit.queries import (
    CHECKS,
    find,
    read_account_figures,
    read_accounts,
    read_totals,
    read_totals_of_all,
)
from billing_cli.features.audit.scope import scope_of
from billing_cli.features.audit.sums import read_sums
from billing_cli.jobs.run_history import record_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.audit.findings import Finding
    from billing_cli.features.audit.scope import Scope
    from billing_cli.jobs.context import JobContext

JOB = "audit"

# Nothing waits for an audit, and ten million records take it minutes.
STATEMENT_TIMEOUT_SECONDS = 3600.0


def audit(
    context: JobContext,
    *,
    account: str | None = None,
    is_full: bool = True,
    limit: int = DEFAULT_LIMIT,
    on_check: Callable[[int, int, str], None] | None = None,
) -> AuditReport:
    """Check one account, or all, against the invariants.

    `account` is an account's uuid or one of its proxy uuids. Of all accounts, what the last clean
    audit has proven is not proven again, unless `is_full`. Of each kind of finding, and of the
    accounts, at most `limit` are listed; they are all counted. `on_check` is called with number,
    count and title of each check as it begins. Raises UsageError for an unknown account,
    BillingError where the database can't be read.
    """
    now = context.clock()
    default_quota_bytes = context.tariff.initial_included_quota_bytes
    patient = replace(context.database, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)

    def work(connection: Connection) -> AuditReport:
        require_head(connection)
        account_uuid = find_account(connection, account).account_uuid if account else None
        scope = scope_of(connection, account_uuid, is_full=is_full)
        sums = None if account_uuid else read_sums(connection, scope)
        tally = _Tally(limit)
        for number, check in enumerate(CHECKS, start=1):
            if on_check is not None:
                on_check(number, len(CHECKS), check.title)
            for finding in find(connection, check, scope, sums, default_quota_bytes):
                tally.add(finding)
        totals = read_totals_of_all(connection, sums) if sums else read_totals(connection, scope)
        report = AuditReport(
            checked_at=now,
            account_uuid=account_uuid,
            limit=limit,
            findings=tuple(tally.listed),
            counts=dict(tally.kinds),
            rows=totals.rows,
            totals=totals.figures,
            accounts=_accounts(connection, scope, tally),
            evidence_since=read_evidence_since(connection),
            is_full=not scope.is_incremental,
            proven_at=scope.proven_at,
            new_seals=scope.new_seals,
            currency=context.currency,
        )
        if account_uuid is None:
            save_audit(connection, context.run_id, report, scope)
        return report

    with Session(patient) as session:
        return session.read_one_state(work, is_writing=account is None)


def audit_result(context: JobContext, report: AuditReport, started_at: datetime) -> AuditResult:
    """Return an audit of all accounts as a run; violations make it partial."""
    return AuditResult(
        job=JOB,
        run_id=context.run_id,
        status="partial" if report.violations else "ok",
        started_at=started_at,
        finished_at=context.clock(),
        violations=report.violations,
        notices=report.notices,
    )


def record_audit(context: JobContext, result: AuditResult) -> None:
    """Note in the run history that an audit took place. Raises BillingError where that can't be."""
    with Session(context.database) as session:
        session.transaction(lambda connection: record_run(context, connection, result))


@dataclass(slots=True)
class _Tally:
    """What was found so far. Grows with the accounts that something was found of, not with it."""

    limit: int
    listed: list[Finding] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        self.kinds[finding.kind] += 1
        if self.kinds[finding.kind] <= self.limit:
            self.listed.append(finding)
        account = finding.account_uuid
        if account is None:
            return
        (self.violations if finding.is_violation else self.notices)[account] += 1


def _accounts(connection: Connection, scope: Scope, tally: _Tally) -> tuple[AccountFigures, ...]:
    """Return the figures of the accounts to show: those with most violations come first."""
    ranked = [account for account, _ in tally.violations.most_common(tally.limit)]
    ranked += sorted(tally.notices.keys() - tally.violations.keys())
    shown = ranked[: tally.limit]
    shown += read_accounts(connection, scope.account_uuid, shown, tally.limit - len(shown))
    return tuple(
        AccountFigures(
            account_uuid=account,
            figures=figures,
            current_balance=balance,
            opening_balance=opening,
            violations=tally.violations[account],
            notices=tally.notices[account],
        )
        for account, figures, balance, opening in read_account_figures(connection, scope, shown)
    )
