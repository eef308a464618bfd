"""A bad source fails alone: what its data is to blame for is rolled back without the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from billing_cli.database.failures import translate
from billing_cli.jobs.payers import ChargedBeforeError, FactConflictError
from billing_cli.jobs.write import Written, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.source_plan import SourcePlan

# What one source's data may be to blame for; a trigger on a shared table may refuse them as well.
DATA_ERRORS = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.RaiseException,
    FactConflictError,
)


def write_isolated(
    context: JobContext, connection: Connection, plans: Sequence[SourcePlan], now: datetime
) -> tuple[Written, dict[str, str]]:
    """Write all plans in a savepoint; where the data of some are at fault, all the others.

    Returns what was written and, by source id, why a source was left out. Errors that are not
    about the data (lost connection, deadlock) are raised.
    """
    moving = [plan for plan in plans if plan.has_news]
    if not moving:
        return Written(), {}
    written, reason = _try_to_write(context, connection, moving, now)
    if not reason:
        return written, {}
    if len(moving) == 1:
        return Written(), {moving[0].source_id: reason}
    # Each is tried alone and undone, so that the good ones are then written as one: an account's
    # entries follow each other in the order of their minutes, whichever node they are from.
    failed = {}
    for plan in moving:
        _, reason = _try_to_write(context, connection, [plan], now, is_trial=True)
        if reason:
            failed[plan.source_id] = reason
    if failed:
        good = [plan for plan in moving if plan.source_id not in failed]
        written, others = write_isolated(context, connection, good, now)
        return written, {**failed, **others}
    return _write_one_by_one(context, connection, moving, now)


def _try_to_write(
    context: JobContext,
    connection: Connection,
    plans: Sequence[SourcePlan],
    now: datetime,
    *,
    is_trial: bool = False,
) -> tuple[Written, str]:
    """Write the plans in a savepoint; return why they can't be, if so. A trial is undone."""
    written = Written()
    try:
        try:
            with connection.transaction(force_rollback=is_trial):
                written = write(context, connection, plans, now)
        except ChargedBeforeError:
            with connection.transaction(force_rollback=is_trial):
                written = write(context, connection, plans, now, beside_older=True)
    except DATA_ERRORS as error:
        return Written(), str(translate(error) if isinstance(error, psycopg.Error) else error)
    return written, ""


def _write_one_by_one(
    context: JobContext, connection: Connection, plans: Sequence[SourcePlan], now: datetime
) -> tuple[Written, dict[str, str]]:
    """Write plans of which each is good by itself, but not all together."""
    written, failed = Written(), {}
    for plan in plans:
        alone, reason = _try_to_write(context, connection, [plan], now)
        written = written.plus(alone)
        if reason:
            failed[plan.source_id] = reason
    return written, failed
