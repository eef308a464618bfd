"""`suspend`: one transaction, in which accounts in arrears are suspended or released.

A role of its own runs it, because the role of the jobs may not run these statements.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.arrears import ACTIVE, SUSPENDED, ArrearsState, next_step
from billing_cli.core.rating import balance_of
from billing_cli.database.arrears import (
    clear_arrears,
    has_arrears_since,
    record_flags_of_others,
    set_arrears,
)
from billing_cli.database.begin import IS_MOMENT
from billing_cli.database.schema import require_head
from billing_cli.features.suspend.report import SuspendResult
from billing_cli.jobs.run_history import in_one_transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from psycopg import Connection

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
    states, problems, skipped = lock_states(connection, now)
    steps: defaultdict[str | None, list[ArrearsState]] = defaultdict(list)
    for state in states:
        steps[next_step(state, now, after)].append(state)
    flagged = set_arrears(connection, [state.account_uuid for state in states if state.balance < 0])
    cleared = clear_arrears(connection)
    record_flags_of_others(connection)
    if steps["suspend"]:
        suspend_accounts(connection, steps["suspend"], now, context.run_id)
    if steps["release"]:
        release_accounts(connection, steps["release"], now, context.run_id)
    if steps["close"]:
        close_suspensions(connection, steps["close"], now, None)
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


# Accounts that a step may be due for: those below zero, and those that we suspended. Rows that
# others hold are left to the next run. Of a flag that another service raised, only the time since
# a run saw the balance below 0 counts.
LOCK_STATES = """
SELECT state.account_uuid::text, state.current_balance, state.suspend_state,
       CASE WHEN open_flag.is_flag_ours IS FALSE THEN open_flag.since
            WHEN closed_flag.is_flag_ours IS FALSE AND state.arrears THEN %(now)s
            ELSE coalesce({arrears_since} open_flag.since, %(now)s) END,
       open.suspension_id IS NOT NULL, closed.released_at
  FROM public.account_quota_states AS state
  LEFT JOIN billing.arrears AS open_flag
    ON open_flag.account_uuid = state.account_uuid AND open_flag.cleared_at IS NULL
  LEFT JOIN billing.arrears AS closed_flag
    ON closed_flag.account_uuid = state.account_uuid AND closed_flag.cleared_at IS NOT NULL
  LEFT JOIN billing.suspensions AS open
    ON open.account_uuid = state.account_uuid AND open.released_at IS NULL
  LEFT JOIN LATERAL (SELECT max(released_at) AS released_at
                       FROM billing.suspensions AS former
                      WHERE former.account_uuid = state.account_uuid) AS closed ON true
 WHERE state.current_balance < 0
    OR state.current_balance >= 0 AND open.suspension_id IS NOT NULL
 ORDER BY state.account_uuid
   FOR UPDATE OF state SKIP LOCKED
"""

ARREARS_SINCE = f"CASE WHEN state.arrears_since {IS_MOMENT} THEN state.arrears_since END,"

COUNT_STATES = """
SELECT count(*)
  FROM public.account_quota_states AS state
 WHERE state.current_balance < 0
    OR state.current_balance >= 0 AND EXISTS (SELECT FROM billing.suspensions AS open
                    WHERE open.account_uuid = state.account_uuid AND open.released_at IS NULL)
"""


class LockedStates(NamedTuple):
    """Locked accounts; why others can't be decided about; how many other sessions hold."""

    states: list[ArrearsState]
    problems: list[str]
    skipped: int


def lock_states(connection: Connection, now: datetime) -> LockedStates:
    """Lock and return the accounts that a step may be due for.

    One whose balance money can't be computed with is a problem of that account, never an error.
    """
    since = ARREARS_SINCE if has_arrears_since(connection) else ""
    statement = LOCK_STATES.format(arrears_since=since)
    row = connection.execute(COUNT_STATES).fetchone()
    states, problems = [], []
    for account, balance, *others in connection.execute(statement.encode(), {"now": now}):
        try:
            states.append(ArrearsState(account, balance_of(balance), *others))
        except ValueError as error:
            problems.append(f"account {account} can't be suspended or released: {error}")
    skipped = (row[0] if row else 0) - len(states) - len(problems)
    return LockedStates(states, problems, max(skipped, 0))


ADD_SUSPENSIONS = """
INSERT INTO billing.suspensions (account_uuid, arrears_since, suspended_at, balance, run_id)
SELECT account_uuid, arrears_since, %(now)s, balance, %(run_id)s
  FROM unnest(%(account_uuids)s::uuid[], %(since)s::timestamptz[], %(balances)s::numeric[])
    AS given (account_uuid, arrears_since, balance)
"""


def suspend_accounts(
    connection: Connection, states: Sequence[ArrearsState], now: datetime, run_id: str
) -> None:
    """Suspend locked accounts, and record it."""
    _set_state(connection, states, SUSPENDED)
    connection.execute(
        ADD_SUSPENSIONS,
        {
            "account_uuids": [state.account_uuid for state in states],
            "since": [state.arrears_since for state in states],
            "balances": [state.balance for state in states],
            "now": now,
            "run_id": run_id,
        },
    )


def release_accounts(
    connection: Connection, states: Sequence[ArrearsState], now: datetime, run_id: str
) -> None:
    """Release locked accounts that we suspended, and record it."""
    _set_state(connection, states, ACTIVE)
    close_suspensions(connection, states, now, run_id)


# Whoever released an account before us is not on record: such a suspension has no run.
END_SUSPENSIONS = """
UPDATE billing.suspensions AS open
   SET released_at = %(now)s, release_balance = given.balance, release_run_id = %(run_id)s
  FROM unnest(%(account_uuids)s::uuid[], %(balances)s::numeric[])
    AS given (account_uuid, balance)
 WHERE open.account_uuid = given.account_uuid AND open.released_at IS NULL
"""


def close_suspensions(
    connection: Connection, states: Sequence[ArrearsState], now: datetime, run_id: str | None
) -> None:
    """Record that suspensions ended; no run is given where another service ended them."""
    connection.execute(
        END_SUSPENSIONS,
        {
            "account_uuids": [state.account_uuid for state in states],
            "balances": [state.balance for state in states],
            "now": now,
            "run_id": run_id,
        },
    )


SET_SUSPEND_STATE = """
UPDATE public.account_quota_states
   SET suspend_state = %(suspend_state)s, updated_at = now()
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
"""


def _set_state(connection: Connection, states: Sequence[ArrearsState], name: str) -> None:
    connection.execute(
        SET_SUSPEND_STATE,
        {"suspend_state": name, "account_uuids": [state.account_uuid for state in states]},
    )
