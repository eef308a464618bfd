"""A faulty source fails alone: what its data is to blame for is rolled back without the others."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

import psycopg

from billing_cli.database.failures import DataRefusedError
from billing_cli.database.write_path import UNDO_WRITE
from billing_cli.jobs.entries import FactConflictError
from billing_cli.jobs.refusals import ConflictReason, find_refused, refusal
from billing_cli.jobs.usage import billed, billed_late
from billing_cli.jobs.write import StoredBacklog, write
from billing_cli.jobs.written import Written, notes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.database.connection import Session
    from billing_cli.database.facts import Run
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.plans import SourcePlan

Result = TypeVar("Result")

UNCARRIED = "usage that waited on nodes that no source carries any more"

# How long a step looks for the accounts that are to blame: other services wait for its locks.
ACCOUNT_SEARCH_SECONDS = 10.0

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

    # What is tried is undone, so that the good ones are then written as one: an account's entries
    # follow each other in the order of their minutes, whichever node they are from.
    def refusal_of(some: Sequence[str | None]) -> str:
        _, reason = _try_to_write(context, connection, *_only(plans, backlog, some), run)
        connection.execute(UNDO_WRITE)
        return reason

    is_one = len(source_ids) == 1 and not unused
    failed = {source_ids[0]: reason} if is_one else find_refused(source_ids, refusal_of)
    waiting = _refused_accounts(context, connection, plans, backlog, failed, run)
    for accounts in (waiting, {}) if waiting else ({},):
        rest = unused.without({account for found in accounts.values() for account in found})
        # Where no source is to blame, what waits without usage is.
        backlogs = (rest, StoredBacklog()) if failed and rest else (StoredBacklog(),)
        refused = {source_id: why for source_id, why in failed.items() if source_id not in accounts}
        good, late = _only(plans, backlog, set(source_ids) - refused.keys(), accounts)
        for more in backlogs:
            usage = more._replace(late=late.late)
            written, reason = _try_to_write(context, connection, good, usage, run)
            if not reason:
                return _outcome(written, refused, accounts)
    return _outcome(Written(), dict.fromkeys(source_ids, reason) | failed, {})


def _refused_accounts(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    backlog: StoredBacklog,
    failed: Iterable[str | None],
    run: Run,
) -> dict[str | None, dict[str, str]]:
    """Find the accounts that are to blame for refused sources, and why, by source.

    A source is not among the result where all of several accounts are refused, or something else is
    to blame, or the search takes too long: it fails as a whole. So it does where a constraint is
    checked at COMMIT alone.
    """
    until = time.monotonic() + ACCOUNT_SEARCH_SECONDS
    found: dict[str | None, dict[str, str]] = {}
    known: dict[str, str] = {}
    for source_id in failed:
        own = _only(plans, backlog, [source_id])
        usage = chain(billed(own[0]), billed_late(own[1].late))
        accounts = sorted({billed.account_uuid for billed in usage})

        def refusal_of(
            some: Sequence[str],
            source_id: str | None = source_id,
            accounts: Sequence[str] = tuple(accounts),
        ) -> str:
            if time.monotonic() > until:
                raise _UndoneError
            without = {source_id: dict.fromkeys(set(accounts) - set(some), "")}
            tried = _only(plans, backlog, [source_id], without)
            _, reason = _try_to_write(context, connection, *tried, run)
            connection.execute(UNDO_WRITE)
            if isinstance(reason, ConflictReason):
                raise _UndoneError
            return reason

        with suppress(_UndoneError):
            # An account that is refused on one node is refused on the next one as a rule.
            refused = {account: known[account] for account in accounts if account in known}
            rest = [account for account in accounts if account not in refused]
            if not refused or refusal_of(rest):
                refused = {} if refusal_of(()) else find_refused(accounts, refusal_of)
            if refused and (len(refused) < len(accounts) or len(accounts) == 1):
                found[source_id] = refused
                known |= refused
    return found


def _outcome(
    written: Written,
    failed: Mapping[str | None, str],
    waiting: Mapping[str | None, Mapping[str, str]],
) -> tuple[Written, dict[str, str]]:
    """Return what was written and why sources failed; notes report accounts, and no source."""
    notes: dict[str | None, Sequence[str]] = dict(written.notes)
    for source_id, accounts in waiting.items():
        texts = [f"account {uuid} can't be charged: {why}" for uuid, why in accounts.items()]
        notes[source_id] = [*notes.get(source_id, ()), *notes_of(texts)]
    if None in failed:
        notes[None] = [f"{UNCARRIED} was not charged: {failed[None]}"]
    written = replace(written, notes=notes)
    return written, {source_id: why for source_id, why in failed.items() if source_id is not None}


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
    plans: Sequence[SourcePlan],
    backlog: StoredBacklog,
    source_ids: Collection[str | None],
    waiting: Mapping[str | None, Collection[str]] = MappingProxyType({}),
) -> tuple[list[SourcePlan], StoredBacklog]:
    """Return what is of these sources; usage of `waiting` accounts, by source, is not charged."""
    return (
        [
            replace(plan, waiting=frozenset(waiting.get(plan.source_id, ())))
            for plan in plans
            if plan.source_id in source_ids
        ],
        StoredBacklog(
            [
                usage
                for usage in backlog.late
                if usage.source_id in source_ids
                and usage.account_uuid not in waiting.get(usage.source_id, ())
            ]
        ),
    )
