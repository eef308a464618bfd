"""`held`: what an operator decides about deltas that are not charged by themselves.

Released bytes count in the minute of their source's watermark: the newest minute that is closed,
so that no later run writes it, and the nearest to the moment of the decision. They consume no
credit of the plausibility limit.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339, minute_of
from billing_cli.database.connection import Session
from billing_cli.database.schema import require_head
from billing_cli.database.sources import read_sources, try_lock_sources
from billing_cli.errors import BillingError, UsageError
from billing_cli.features.held import queries as store_held
from billing_cli.features.held.charges import charge_held, listed
from billing_cli.features.held.result import HeldList, HeldResult
from billing_cli.jobs.context import check_range
from billing_cli.jobs.entries import FactConflictError
from billing_cli.jobs.nodes import nodes_of
from billing_cli.jobs.run_history import in_one_transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import Rating
    from billing_cli.features.held.result import HeldDelta, HeldState
    from billing_cli.jobs.context import JobContext

RELEASE_JOB = "held-release"
REJECT_JOB = "held-reject"


def list_held(
    context: JobContext,
    source_ids: Sequence[str] = (),
    kinds: Sequence[str] = (),
    *,
    is_decided_shown: bool = False,
) -> HeldList:
    """Return the deltas that wait for a decision, oldest first; with decided ones on demand.

    `kinds` are reasons to hold, and kinds of gaps; without any, all are returned.
    """

    def work(connection: Connection) -> HeldList:
        require_head(connection)
        nodes = nodes_of(context, connection, source_ids)
        deltas = store_held.read_held_deltas(connection, nodes, is_decided_shown=is_decided_shown)
        gaps = store_held.read_uncertain_gaps(connection, nodes)
        return HeldList(
            tuple(delta for delta in deltas if not kinds or delta.held_reason in kinds),
            tuple(gap for gap in gaps if not kinds or gap.kind in kinds),
        )

    with Session(context.database) as session:
        return session.read(work)


def select_held(
    context: JobContext, source_id: str, since: datetime, until: datetime | None = None
) -> list[int]:
    """Return the ids of what waits for a decision of a source and was seen in [since, until).

    What its node had under former ids is among it. Raises UsageError for an unknown source, and
    where nothing waits.
    """
    check_range(since, until, context.clock())

    def work(connection: Connection) -> list[int]:
        require_head(connection)
        nodes = nodes_of(context, connection, [source_id]) or ()
        return store_held.read_held_ids(connection, nodes, since, until)

    with Session(context.database) as session:
        found = session.read(work)
    if not found:
        end = f" and before {format_rfc3339(until)}" if until else ""
        raise UsageError(
            f"source {source_id} has no held deltas from {format_rfc3339(since)} on{end}"
        )
    return found


def release_held(
    context: JobContext, held_ids: Iterable[int], reason: str, *, dry_run: bool = False
) -> HeldResult:
    """Charge the held deltas, all of them or none, and note why.

    All that waits of a duplicate stream is decided together, and the stream is active then.
    Raises UsageError for an id that does not exist, BillingError where a delta is decided
    already, no account can be charged for it, or a bucket would exceed a `bigint`. The status is
    `busy` where another run holds one of the sources.
    """

    def release(
        connection: Connection, deltas: Sequence[HeldDelta], result: HeldResult
    ) -> HeldResult:
        minutes = _watermark_minutes(connection, _sources(deltas))
        written, rating = charge_held(context, connection, deltas, minutes, reason)
        decided = _decide(context, connection, deltas, "released", reason)
        return _charged(replace(result, written_minutes=written, held=decided), rating)

    return _decided_together(context, RELEASE_JOB, held_ids, release, dry_run=dry_run)


def reject_held(
    context: JobContext, held_ids: Iterable[int], reason: str, *, dry_run: bool = False
) -> HeldResult:
    """Decide that the held deltas are never charged, all of them or none, and note why.

    All that waits of a duplicate stream is decided together, and the stream is ignored from then
    on. What was held in a restart that was revoked is no surplus of the stream any more. Raises as
    `release_held` does.
    """

    def reject(
        connection: Connection, deltas: Sequence[HeldDelta], result: HeldResult
    ) -> HeldResult:
        decided = _decide(context, connection, deltas, "rejected", reason)
        store_held.cut_surplus(connection, [delta.held_id for delta in decided])
        return replace(result, held=decided)

    return _decided_together(context, REJECT_JOB, held_ids, reject, dry_run=dry_run)


def _decided_together(
    context: JobContext,
    job: str,
    held_ids: Iterable[int],
    decide: Callable[[Connection, Sequence[HeldDelta], HeldResult], HeldResult],
    *,
    dry_run: bool,
) -> HeldResult:
    """Lock the held deltas and their sources, and decide about all of them in one transaction."""
    wanted = sorted(set(held_ids))
    started_at = context.clock()

    def work(connection: Connection) -> HeldResult:
        require_head(connection)
        result = HeldResult(job, context.run_id, "ok", started_at, started_at, dry_run=dry_run)
        deltas, busy = _lock(connection, wanted)
        if busy:
            result = replace(result, status="busy", error=busy)
        else:
            result = decide(connection, deltas, result)
        return replace(result, finished_at=context.clock())

    return in_one_transaction(context, job, started_at, work, dry_run=dry_run)


def _sources(deltas: Iterable[HeldDelta]) -> set[str]:
    return {delta.source_id for delta in deltas if delta.source_id is not None}


def _lock(connection: Connection, wanted: Sequence[int]) -> tuple[list[HeldDelta], str | None]:
    """Lock the deltas and their sources; return them, or in words which source is busy, if any.

    The sources' locks come first, as in every run that writes what they are about: a run that goes
    on would set the state of a stream back.
    """
    sources = _sources(_known(wanted, store_held.read_named_held_deltas(connection, wanted)))
    busy = sources - try_lock_sources(connection, sorted(sources)) if sources else sources
    deltas = [] if busy else _undecided(store_held.lock_held_deltas(connection, wanted))
    # A node may have been moved to another source since they were read.
    busy = busy or _sources(deltas) - sources
    return deltas, f"another run holds the source {', '.join(sorted(busy))}" if busy else None


def _known(wanted: Sequence[int], found: list[HeldDelta]) -> list[HeldDelta]:
    missing = sorted(set(wanted) - {delta.held_id for delta in found})
    if missing:
        raise UsageError(
            f"there is no held delta {listed(missing)}; `billing held list` shows them"
        )
    return found


def _undecided(deltas: list[HeldDelta]) -> list[HeldDelta]:
    for delta in deltas:
        if delta.state != "held":
            at = f" at {format_rfc3339(delta.decided_at)}" if delta.decided_at else ""
            raise BillingError(
                f"held delta {delta.held_id} was {delta.state} already{at} ({delta.reason}); "
                "nothing is changed"
            )
    return deltas


def _watermark_minutes(connection: Connection, sources: Iterable[str]) -> dict[str, datetime]:
    """Return, by stored node id, the newest minute that is written for each source."""
    states = read_sources(connection, sorted(sources))
    return {
        node: minute_of(state.watermark)
        for state in states.values()
        if state.identity is not None and state.watermark is not None
        for node in (state.identity.stored, *state.former_nodes)
    }


def _decide(
    context: JobContext,
    connection: Connection,
    deltas: Sequence[HeldDelta],
    state: HeldState,
    reason: str,
) -> tuple[HeldDelta, ...]:
    now = context.clock()
    ids = [delta.held_id for delta in deltas]
    if store_held.decide_held_deltas(connection, ids, state, now, reason) != len(ids):
        raise FactConflictError("another run decided some of these held deltas")
    duplicates = {delta.stream_id for delta in deltas if delta.held_reason == "duplicate"}
    if duplicates:
        store_held.decide_duplicates(
            connection, sorted(duplicates), "active" if state == "released" else "ignored"
        )
    return tuple(replace(delta, state=state, decided_at=now, reason=reason) for delta in deltas)


def _charged(result: HeldResult, rating: Rating) -> HeldResult:
    charges = rating.charges
    return replace(
        result,
        included_bytes=sum(charge.included_bytes for charge in charges),
        charged_bytes=sum(charge.rated_bytes for charge in charges),
        amount=-sum((charge.amount_delta for charge in charges), Decimal(0)),
        corrections=len(charges),
    )
