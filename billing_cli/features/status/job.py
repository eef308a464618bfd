"""`status`: reads what is stored, changes nothing, asks no exporter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.database.connection import Session
from billing_cli.database.partitions import read_partition_state
from billing_cli.database.schema import require_head
from billing_cli.database.source_status import read_source_status
from billing_cli.features.status.findings import findings_of
from billing_cli.features.status.queries import (
    read_day_totals,
    read_last_hour,
    read_last_runs,
    read_last_violations,
)
from billing_cli.features.status.result import StatusReport

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.jobs.context import JobContext

RUNS_SHOWN = 5


def status(context: JobContext, *, max_lag_seconds: float) -> StatusReport:
    """Return the state of every configured source. Raises BillingError where it can't be read."""
    now = context.clock()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    enabled = {source.source_id: source.enabled for source in context.sources}

    def work(connection: Connection) -> StatusReport:
        require_head(connection)
        sources = []
        for found in read_source_status(connection, list(enabled)):
            lag = (now - found.watermark).total_seconds() if found.watermark else None
            sources.append(replace(found, enabled=enabled[found.source_id], lag_seconds=lag))
        missing = read_partition_state(connection).missing_months
        return StatusReport(
            checked_at=now,
            sources=tuple(sources),
            runs=tuple(read_last_runs(connection, RUNS_SHOWN)),
            today=read_day_totals(connection, midnight),
            missing_partitions=missing,
            findings=findings_of(
                sources, missing, max_lag_seconds, read_last_violations(connection)
            ),
            last_hour=read_last_hour(connection, now),
            currency=context.currency,
        )

    with Session(context.database) as session:
        return session.read(work)
