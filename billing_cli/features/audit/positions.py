"""Noting an audit of all accounts, and where the next one goes on after a clean one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from billing_cli.features.audit import queries_positions as positions

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.features.audit.findings import AuditReport
    from billing_cli.features.audit.scope import Scope


def save_audit(connection: Connection, run_id: str, report: AuditReport, scope: Scope) -> None:
    """Note what was audited, in the transaction that read it.

    A replica, or a role that may not write, proves as well, but the next audit has as much to read.
    So it is where another audit ended first.
    """
    row = connection.execute(positions.MAY_WRITE).fetchone()
    if not row or not row[0]:
        return
    given = {
        "run_id": run_id,
        "is_full": report.is_full,
        "violations": report.violations,
        "notices": report.notices,
        "first_minute": scope.since,
    }
    try:
        with connection.transaction():
            connection.execute(positions.SAVE_AUDIT, given)
            if not report.violations:
                connection.execute(positions.SAVE_SEALS.encode())
                connection.execute(positions.SAVE_STREAMS)
                connection.execute(positions.SAVE_ACCOUNTS)
    except psycopg.errors.SerializationFailure:
        pass
