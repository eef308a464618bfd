"""`suspend`: one transaction, in which accounts in arrears are suspended or released.

A role of its own runs it, because the role of the jobs may not change `suspend_state`.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from billing_cli.core.arrears import next_step
from billing_cli.database.arrears import clear_arrears, record_flags_of_others, set_arrears
from billing_cli.database.schema import require_head
from billing_cli.features.suspend import queries as store
from billing_cli.features.suspend.result import SuspendResult
from billing_cli.jobs.run_history import in_one_transaction

if TYPE_CHECKING:
    from datetime import timedelta

    from psycopg import Connection

    from billing_cli.core.arrears import ArrearsState
    from billing_cli.jobs.context import JobContext

JOB = "suspend"


def suspend(context: JobContext, after: timedelta, *, dry_run: bool = False) -> SuspendResult:
    """Suspend accounts that have been below zero for `after`; release those that are settled.

    Arrears flags of ours follow the balances. An account that another session holds, or whose
    balance is no amount, is skipped, which makes the run partial. Raises BillingError where the
    database refuses.
    """
    started_at = context.clock()

    def work(connection: Connection) -> SuspendResult:
        require_head(connection)
        return _suspend(context, connection, after, dry_run=dry_run)

    return in_one_transaction(context, JOB, started_at, work, dry_run=dry_run)


def _suspend(
    context: JobContext, connection: Connection, after: timedelta, *, dry_run: bool
) -> SuspendResult:
    now = context.clock()
    states, problems, skipped = store.lock_states(connection, now)
    steps: defaultdict[str | None, list[ArrearsState]] = defaultdict(list)
    for state in states:
        steps[next_step(state, now, after)].append(state)
    flagged = set_arrears(connection, [state.account_uuid for state in states if state.balance < 0])
    cleared = clear_arrears(connection)
    record_flags_of_others(connection)
    if steps["suspend"]:
        store.suspend_accounts(connection, steps["suspend"], now, context.run_id)
    if steps["release"]:
        store.release_accounts(connection, steps["release"], now, context.run_id)
    if steps["close"]:
        store.close_suspensions(connection, steps["close"], now, None)
    notes = list(problems)
    if skipped:
        notes.append(f"{skipped} accounts are locked by other sessions; the next run looks at them")
    return SuspendResult(
        job=JOB,
        run_id=context.run_id,
        status="partial" if notes else "ok",
        started_at=now,
        finished_at=context.clock(),
        dry_run=dry_run,
        notes=tuple(notes),
        suspended=tuple(steps["suspend"]),
        released=tuple(steps["release"]),
        closed=tuple(steps["close"]),
        flagged=flagged,
        cleared=cleared,
        skipped=skipped,
    )
