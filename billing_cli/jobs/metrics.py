"""What the database holds for metrics: read at the end of a run, cheaply, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.core.totals import StoredMetrics
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.database.source_status import read_source_status
from billing_cli.database.totals import read_clean_audits, read_totals

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.jobs.context import JobContext

# A run that is done has little of its minute left, and waits no longer for what is merely reported.
MAX_CONNECT_SECONDS = 2
MAX_STATEMENT_SECONDS = 2.0


def read_metrics(context: JobContext) -> StoredMetrics:
    """Return the totals of all jobs and the state of every enabled source, as of one moment.

    What it costs depends on neither the number of runs nor that of streams. Raises BillingError
    where the database can't be read.
    """
    database = replace(
        context.database,
        connect_timeout_seconds=min(context.database.connect_timeout_seconds, MAX_CONNECT_SECONDS),
        statement_timeout_seconds=MAX_STATEMENT_SECONDS,
    )
    now = context.clock()

    def work(connection: Connection) -> StoredMetrics:
        require_head(connection)
        sources = read_source_status(
            connection, [source.source_id for source in context.sources if source.enabled]
        )
        return StoredMetrics(
            tuple(read_totals(connection)),
            tuple(
                replace(source, lag_seconds=max(0.0, (now - source.watermark).total_seconds()))
                if source.watermark
                else source
                for source in sources
            ),
            tuple(read_clean_audits(connection)),
        )

    with Session(database) as session:
        return session.read_one_state(work)
