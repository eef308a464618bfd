"""A faulty source fails alone: what its data is to blame for is rolled back without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import errors as pg

from billing_cli.database.failures import translate
from billing_cli.jobs.entries import FactConflictError
from billing_cli.jobs.write import Written, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from billing_cli.database.facts import Run
    from billing_cli.database.streams import BillableUsage
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.plans import SourcePlan

# What one source's data may be to blame for; a trigger on a shared table may refuse them as well.
DATA_ERRORS = (
    pg.DataError,
    pg.IntegrityError,
    pg.CardinalityViolation,
    pg.RaiseException,
    FactConflictError,
)


def write_isolated(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    late: Sequence[BillableUsage],
    renewed: Sequence[str],
    run: Run,
) -> tuple[Written, dict[str, str]]:
    """Write all plans, and late usage of their sources; where some can't be, all the others.

    `renewed` are accounts with a new quota period. Returns what was written and, by source id, why
    a source was left out. Other errors (lost connection, deadlock) are raised.
    """
    source_ids = sorted({plan.source_id for plan in plans} | {usage.source_id for usage in late})
    if not source_ids and not renewed:
        return Written(), {}
    written, reason = _try_to_write(context, connection, plans, late, renewed, run)
    if not reason:
        return written, {}
    if len(source_ids) <= 1:
        return Written(), dict.fromkeys(source_ids, reason)
    # Each is tried alone and undone, so that the good ones are then written as one: an account's
    # entries follow each other in the order of their minutes, whichever node they are from.
    failed = {}
    for source_id in source_ids:
        _, reason = _try_to_write(context, connection, *_only(plans, late, source_id), (), run)
        connection.execute("ROLLBACK TO SAVEPOINT accounts")
        if reason:
            failed[source_id] = reason
    if failed:
        good = [plan for plan in plans if plan.source_id not in failed]
        rest = [usage for usage in late if usage.source_id not in failed]
        written, others = write_isolated(context, connection, good, rest, renewed, run)
        return written, {**failed, **others}
    # Each is good by itself, but not all together.
    for source_id in source_ids:
        mine = _only(plans, late, source_id)
        alone, reason = _try_to_write(context, connection, *mine, renewed, run)
        written = written.plus(alone)
        if reason:
            failed[source_id] = reason
    return written, failed


def _try_to_write(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    late: Sequence[BillableUsage],
    renewed: Sequence[str],
    run: Run,
) -> tuple[Written, str]:
    """Write the plans; where they can't be, undo that and return why."""
    try:
        return write(context, connection, plans, late, renewed, run), ""
    except DATA_ERRORS as error:
        connection.execute("ROLLBACK TO SAVEPOINT accounts")
        return Written(), str(translate(error) if isinstance(error, psycopg.Error) else error)


def _only(
    plans: Sequence[SourcePlan], late: Sequence[BillableUsage], source_id: str
) -> tuple[list[SourcePlan], list[BillableUsage]]:
    return (
        [plan for plan in plans if plan.source_id == source_id],
        [usage for usage in late if usage.source_id == source_id],
    )
