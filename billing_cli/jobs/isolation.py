"""A faulty source fails alone: what its data is to blame for is rolled back without the others."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

import psycopg

from billing_cli.database.failures import DataRefusedError, is_about_data, translate
from billing_cli.database.write_path import UNDO_WRITE
from billing_cli.jobs.entries import FactConflictError
from billing_cli.jobs.write import StoredBacklog, write
from billing_cli.jobs.written import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.database.connection import Session
    from billing_cli.database.facts import Run
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.plans import SourcePlan

Result = TypeVar("Result")
# A source id, or None for the usage of nodes that no source carries.
Unit = TypeVar("Unit")

UNCARRIED = "usage that waited on nodes that no source carries any more"

# Constraints and triggers that are deferred to COMMIT speak now.
CHECK_CONSTRAINTS = "SET CONSTRAINTS ALL IMMEDIATE"


class IncludedSources(NamedTuple):
    """The part of a step that a transaction takes.

    `refused` says why other sources are left out. With `sources_only` nothing is written of those,
    nor of accounts without usage (their quota periods and arrears), nor usage of nodes that no
    source carries.
    """

    source_ids: Sequence[str] = ()
    refused: Mapping[str, str] = {}
    sources_only: bool = False

    def takes(self, source_id: str | None) -> bool:
        """Return whether usage that waited is part of it."""
        return source_id not in self.refused and not (self.sources_only and source_id is None)


class _UndoneError(Exception):
    """A transaction that was only tried."""


def transaction_isolated(
    session: Session,
    source_ids: Sequence[str],
    work: Callable[[Connection, IncludedSources], Result],
) -> Result:
    """Do the work in one transaction; where data is refused up to COMMIT, without its sources.

    Those are found in transactions that are undone, for as long as a statement may take, and left
    out of the one that stands. Raises as `session.transaction` does.
    """
    try:
        return session.transaction(lambda connection: work(connection, IncludedSources(source_ids)))
    except DataRefusedError as error:
        if session.dry_run:
            raise
        failure = error
    until = time.monotonic() + session.database.statement_timeout_seconds

    def refusal_of(some: Sequence[str], *, sources_only: bool) -> str:
        if time.monotonic() > until:
            raise failure
        return _refusal_of(
            session,
            lambda connection: work(connection, IncludedSources(some, {}, sources_only)),
        )

    # What is refused without any source is not theirs to blame for.
    sources_only = bool(refusal_of((), sources_only=False))
    if sources_only and refusal_of((), sources_only=True):
        raise failure
    refused = find_refused(source_ids, partial(refusal_of, sources_only=sources_only))
    rest = [source_id for source_id in source_ids if source_id not in refused]
    if not sources_only:
        try:
            return session.transaction(
                lambda connection: work(connection, IncludedSources(rest, refused))
            )
        except DataRefusedError:
            pass  # Even that they failed can't be written.
    return session.transaction(
        lambda connection: work(connection, IncludedSources(rest, refused, sources_only=True))
    )


def _refusal_of(session: Session, work: Callable[[Connection], object]) -> str:
    """Do the work and undo it; return why its data is refused, or an empty text."""

    def attempt(connection: Connection) -> NoReturn:
        work(connection)
        connection.execute(CHECK_CONSTRAINTS)
        raise _UndoneError

    try:
        session.transaction(attempt)
    except _UndoneError:
        return ""
    except DataRefusedError as error:
        return str(error)


def write_isolated(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    backlog: StoredBacklog,
    run: Run,
) -> tuple[Written, dict[str, str]]:
    """Write all plans, and what waits; where some sources can't be written, all the others.

    What waits of accounts without late usage is left to a later run where it can't be written. So
    is late usage of nodes that no source carries, which a note reports: it is a unit of its own.
    Returns what was written and, by source id, why a source was left out. Other errors (lost
    connection, deadlock) are raised.
    """
    if not plans and not backlog:
        return Written(), {}
    written, reason = _try_to_write(context, connection, plans, backlog, run)
    if not reason:
        return written, {}
    late_ids = {usage.source_id for usage in backlog.late}
    source_ids: list[str | None] = [
        *sorted(
            {plan.source_id for plan in plans}
            | {source_id for source_id in late_ids if source_id is not None}
        ),
        *[None] * (None in late_ids),
    ]
    unused = backlog._replace(late=())
    if len(source_ids) == 1 and not unused:
        return _outcome(Written(), {source_ids[0]: reason})

    # What is tried is undone, so that the good ones are then written as one: an account's entries
    # follow each other in the order of their minutes, whichever node they are from.
    def refusal_of(some: Sequence[str | None]) -> str:
        _, reason = _try_to_write(context, connection, *_only(plans, backlog, some), run)
        connection.execute(UNDO_WRITE)
        return reason

    failed = find_refused(source_ids, refusal_of)
    good, late = _only(plans, backlog, set(source_ids) - failed.keys())
    # Where no source is to blame, what waits without usage is.
    for more in (unused, StoredBacklog()) if failed and unused else (StoredBacklog(),):
        usage = more._replace(late=late.late)
        written, reason = _try_to_write(context, connection, good, usage, run)
        if not reason:
            return _outcome(written, failed)
    return _outcome(Written(), dict.fromkeys(source_ids, reason) | failed)


def _outcome(written: Written, failed: Mapping[str | None, str]) -> tuple[Written, dict[str, str]]:
    """Return what was written and why sources failed; a note reports what has no source."""
    if None in failed:
        note = f"{UNCARRIED} was not charged: {failed[None]}"
        written = replace(written, notes={**written.notes, None: [note]})
    return written, {source_id: why for source_id, why in failed.items() if source_id is not None}


def find_refused(
    source_ids: Sequence[Unit], refusal_of: Callable[[Sequence[Unit]], str]
) -> dict[Unit, str]:
    """Find by halves the sources whose data is refused, and why; all others are good together.

    `refusal_of` tries some sources without the others, and returns why they are refused, or an
    empty text. All together were refused before. Of sources that are only refused together, such as
    two that a constraint allows one of, the first ones are good.
    """
    failed = _refused_halves(source_ids, refusal_of)
    rest = [source_id for source_id in source_ids if source_id not in failed]
    if failed and not (rest and refusal_of(rest)):
        return failed
    good: list[Unit] = []

    def refusal_with_good(some: Sequence[Unit]) -> str:
        reason = refusal_of([*good, *some])
        if not reason:
            good.extend(some)
        return reason

    return failed | _refused_halves(rest, refusal_with_good)


def _refused_halves(
    some: Sequence[Unit], refusal_of: Callable[[Sequence[Unit]], str]
) -> dict[Unit, str]:
    """Return those of some refused sources that are refused by themselves, and why."""
    failed: dict[Unit, str] = {}
    middle = len(some) // 2
    for half in (some[:middle], some[middle:]):
        reason = refusal_of(half) if half else ""
        if reason and len(half) == 1:
            failed[half[0]] = reason
        elif reason:
            failed |= _refused_halves(half, refusal_of)
    return failed


def refusal(error: psycopg.Error | FactConflictError) -> str:
    """Return why data was refused; raises the error again where data is not to blame."""
    if isinstance(error, psycopg.Error):
        if not is_about_data(error):
            raise error
        return str(translate(error))
    return str(error)


def _try_to_write(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    backlog: StoredBacklog,
    run: Run,
) -> tuple[Written, str]:
    """Write the plans; where they can't be, undo that and return why."""
    try:
        return write(context, connection, plans, backlog, run), ""
    except (psycopg.Error, FactConflictError) as error:
        reason = refusal(error)
        connection.execute(UNDO_WRITE)
        return Written(), reason


def _only(
    plans: Sequence[SourcePlan], backlog: StoredBacklog, source_ids: Collection[str | None]
) -> tuple[list[SourcePlan], StoredBacklog]:
    return (
        [plan for plan in plans if plan.source_id in source_ids],
        StoredBacklog([usage for usage in backlog.late if usage.source_id in source_ids]),
    )
