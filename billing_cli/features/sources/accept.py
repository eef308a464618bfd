"""`sources accept`: the operator's word that the streams of a source are real, for one run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes
from billing_cli.core.result import RunResult, SourceResult
from billing_cli.database.schema import require_head
from billing_cli.database.sources import add_sources, try_lock_sources
from billing_cli.database.stream_limits import accept_one_run
from billing_cli.jobs.context import select_sources
from billing_cli.jobs.run_history import in_one_transaction
from billing_cli.jobs.stream_limits import ACCEPTED_FOR

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext

JOB = "sources-accept"


@dataclass(frozen=True, slots=True)
class AcceptResult(RunResult):
    """That one run of a source may pass its limits of streams, until when, and why."""

    source_id: str = ""
    reason: str = ""
    until: datetime | None = None

    @property
    def details(self) -> Mapping[str, Any]:
        """What is accepted, as `accepted`; null where nothing is."""
        if self.until is None:
            return {"accepted": None}
        return {"accepted": attributes(self, "source_id reason until")}


def accept_source(
    context: JobContext, source_id: str, reason: str, *, dry_run: bool = False
) -> AcceptResult:
    """Let one run of a source pass the limits of its streams.

    Raises UsageError for a source that is not configured. The status is `busy` where another run
    holds it.
    """
    started_at = context.clock()
    select_sources(context, [source_id])

    def work(connection: Connection) -> AcceptResult:
        require_head(connection)
        begun = AcceptResult(JOB, context.run_id, "ok", started_at, started_at, dry_run=dry_run)
        add_sources(connection, [source_id])
        if not try_lock_sources(connection, [source_id]):
            return replace(
                begun,
                status="busy",
                finished_at=context.clock(),
                error=f"another run holds the source {source_id}",
                sources=(SourceResult(source_id, "busy"),),
            )
        accept_one_run(connection, source_id, started_at, reason)
        return replace(
            begun,
            finished_at=context.clock(),
            sources=(SourceResult(source_id),),
            source_id=source_id,
            reason=reason,
            until=started_at + ACCEPTED_FOR,
        )

    return in_one_transaction(context, JOB, started_at, work, dry_run=dry_run)
