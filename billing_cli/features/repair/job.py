"""`repair balances`: takes lost charges out of balances again, each loss once.

First all accounts are read without locks. Then the accounts with losses are locked, a part in each
transaction, and read again: what is repaired is what is found under the lock.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.funds import Funds
from billing_cli.core.rating import balance_of
from billing_cli.database.arrears import record_arrears, set_arrears
from billing_cli.database.balances import read_account_changes, read_changes_of
from billing_cli.database.connection import Session
from billing_cli.database.lookup import find_account
from billing_cli.database.schema import require_head
from billing_cli.features.repair.report import Repair, RepairResult, repair_of
from billing_cli.jobs.run_history import record_run, recording_failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext

JOB = "repair-balances"

# Their rows are locked while their charges are read.
ACCOUNTS_AT_ONCE = 200

# Reading ten million charges takes minutes, and those of some accounts hardly less: charges have
# no index by account, and late ones lie in any month.
STATEMENT_TIMEOUT_SECONDS = 3600.0


def repair_balances(
    context: JobContext, reason: str, *, account: str | None = None, dry_run: bool = False
) -> RepairResult:
    """Correct the balances, and restored quotas, of all accounts with lost charges, or of one.

    An account that another session holds is skipped, and one whose balance or quota nothing can be
    computed with is noted; both make the run partial. A second run finds nothing to do. Raises
    UsageError for an unknown account; BillingError where a transaction failed, with what the ones
    before it did as `so_far`.
    """
    patient = replace(context.database, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    context = replace(context, database=patient)
    started_at = context.clock()
    repairs: list[Repair] = []
    problems: list[str] = []
    skipped = 0
    steps = 0

    def outcome() -> RepairResult:
        locked = f"{skipped} accounts are locked by other sessions; repair them again later"
        notes = (*problems, *[locked] * bool(skipped))
        return RepairResult(
            job=JOB,
            run_id=context.run_id,
            status="partial" if notes else "ok",
            started_at=started_at,
            finished_at=context.clock(),
            amount=sum(
                (repair.before.balance - repair.after.balance for repair in repairs), Decimal(0)
            ),
            corrections=len(repairs),
            steps=steps,
            dry_run=dry_run,
            notes=notes,
            repairs=tuple(repairs),
            skipped=skipped,
        )

    damaged = _find_damaged(context, account)
    with (
        Session(context.database, dry_run=dry_run) as session,
        recording_failure(context, session, outcome),
    ):
        for start in range(0, len(damaged), ACCOUNTS_AT_ONCE):
            part = damaged[start : start + ACCOUNTS_AT_ONCE]

            def work(connection: Connection, part: Sequence[str] = part) -> _Part:
                return _repair(context, connection, part, reason)

            done = session.transaction(work)
            repairs += done.repairs
            problems += done.problems
            skipped += done.skipped
            steps += 1
        session.transaction(lambda connection: _record(context, connection, outcome()))
    return outcome()


def _find_damaged(context: JobContext, account: str | None) -> list[str]:
    """Return the accounts that have losses that are not repaired, in key order."""
    quota = context.tariff.initial_included_quota_bytes

    def work(connection: Connection) -> list[str]:
        require_head(connection)
        if account is not None:
            return [find_account(connection, account).account_uuid]
        changes = read_account_changes(connection, None, quota)
        return [found.account_uuid for found in changes if found.open_losses]

    with Session(context.database) as session:
        return session.read_one_state(work)


class _Part(NamedTuple):
    """What a transaction did, why accounts with losses can't be repaired, how many are skipped."""

    repairs: list[Repair]
    problems: list[str]
    skipped: int


def _repair(
    context: JobContext, connection: Connection, account_uuids: Sequence[str], reason: str
) -> _Part:
    """Repair accounts in the open transaction."""
    funds, unusable, skipped = lock_funds(connection, account_uuids)
    quota = context.tariff.initial_included_quota_bytes
    repairs, problems = [], []
    for found in read_changes_of(connection, sorted({*funds, *unusable}), quota):
        account = found.account_uuid
        if account in unusable:
            if found.open_losses:
                problems.append(f"account {account} can't be repaired: {unusable[account]}")
            continue
        for loss in found.open_losses:
            repair = repair_of(account, loss, funds[account])
            funds[account] = repair.after
            repairs.append(repair)
    below_zero = {
        repair.account_uuid for repair in repairs if funds[repair.account_uuid].balance < 0
    }
    # Before the balances are written: those that are found decide whose a flag is.
    record_arrears(connection, below_zero)
    for repair in repairs:
        write_repair(connection, repair, reason, context.run_id)
    set_arrears(connection, below_zero)
    return _Part(repairs, problems, skipped)


def _record(context: JobContext, connection: Connection, result: RepairResult) -> None:
    """Write the row in the run history; the repairs themselves are on record with the run's id."""
    record_run(context, connection, replace(result, repairs=()))


# In key order, as every run locks them. Rows that others hold are left to the next repair.
LOCK_FUNDS = """
SELECT account_uuid::text, current_balance, remaining_included_quota
  FROM public.account_quota_states
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
 ORDER BY account_uuid
   FOR UPDATE SKIP LOCKED
"""

COUNT_STATES = """
SELECT count(*) FROM public.account_quota_states
 WHERE account_uuid = ANY (%(account_uuids)s::uuid[])
"""


class LockedFunds(NamedTuple):
    """Accounts under lock: their funds, or why nothing can be computed with them.

    `skipped` counts accounts that other sessions hold.
    """

    funds: dict[str, Funds]
    problems: dict[str, str]
    skipped: int


def lock_funds(connection: Connection, account_uuids: Sequence[str]) -> LockedFunds:
    """Lock accounts, except those that others hold, and read their funds."""
    wanted = {"account_uuids": list(account_uuids)}
    rows = connection.execute(LOCK_FUNDS, wanted).fetchall()
    count = connection.execute(COUNT_STATES, wanted).fetchone()
    funds, problems = {}, {}
    for account, balance, quota in rows:
        try:
            amount = balance_of(balance)
        except ValueError as error:
            problems[account] = f"{error}; set a valid balance first"
            continue
        if quota is None:
            problems[account] = "a remaining quota of NULL; set a valid quota first"
        else:
            funds[account] = Funds(amount, quota)
    return LockedFunds(funds, problems, (count[0] if count else 0) - len(rows))


SET_FUNDS = """
UPDATE public.account_quota_states
   SET current_balance = %(balance)s::numeric::double precision,
       remaining_included_quota = %(quota)s, effective_at = now(), updated_at = now()
 WHERE account_uuid = %(account_uuid)s::uuid
"""

# The stamp is taken under the lock: entries that follow the repair are stamped after it.
ADD_REPAIR = """
INSERT INTO billing.repairs
       (account_uuid, after_id, repair_id, ledger_ids, amount_delta, balance_before,
        balance_after, quota_before, quota_after, reason, run_id, at)
VALUES (%(account_uuid)s, %(after_id)s, %(repair_id)s, %(ledger_ids)s::uuid[], %(amount_delta)s,
        %(balance_before)s, %(balance_after)s, %(quota_before)s, %(quota_after)s, %(reason)s,
        %(run_id)s, clock_timestamp())
RETURNING at
"""


def write_repair(connection: Connection, repair: Repair, reason: str, run_id: str) -> datetime:
    """Set the funds of a locked account and record why; return when."""
    connection.execute(
        SET_FUNDS,
        {
            "account_uuid": repair.account_uuid,
            "balance": repair.after.balance,
            "quota": repair.after.quota,
        },
    )
    row = connection.execute(
        ADD_REPAIR,
        {
            "account_uuid": repair.account_uuid,
            "after_id": repair.after_id,
            "repair_id": repair.repair_id,
            "ledger_ids": [charge.ledger_id for charge in repair.charges],
            "amount_delta": repair.after.balance - repair.before.balance,
            "balance_before": repair.before.balance,
            "balance_after": repair.after.balance,
            "quota_before": repair.before.quota,
            "quota_after": repair.after.quota,
            "reason": reason,
            "run_id": run_id,
        },
    ).fetchone()
    if row is None:
        raise AssertionError("an INSERT with RETURNING has a row")
    at: datetime = row[0]
    return at
