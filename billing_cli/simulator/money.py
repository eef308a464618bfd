"""Checks of the money: ledger, charges and balances agree to the ninth decimal (I2)."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from billing_cli.core.times import format_rfc3339
from billing_cli.simulator.books import ZERO, Books, Funds, money, read_funds, rows
from billing_cli.simulator.ledger import read_charges, read_ledger, read_periods
from billing_cli.simulator.prices import ledger_id_of, price_violations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.simulator.ledger import Charge, Entry, Period

# What an account without a quota state begins with, where its profile says so.
READ_INCLUDED_QUOTAS = """
SELECT account_uuid::text, included_quota_bytes
  FROM public.account_billing_profiles
 WHERE included_quota_bytes > 0
"""

READ_ARREARS = """
SELECT account_uuid::text, current_balance, arrears, throttle_state
  FROM public.account_quota_states
 WHERE arrears <> (current_balance < 0)
    OR throttle_state <> CASE WHEN current_balance < 0 THEN 'throttled' ELSE 'normal' END
"""

MINUTE = timedelta(minutes=1)
NOTHING = Funds()


def money_violations(
    connection: Connection[Any], before: Books, top_ups: Mapping[str, Funds]
) -> list[str]:
    """Return what is wrong with the money. `top_ups` came in without a ledger row, by account."""
    entries = [
        entry for entry in read_ledger(connection) if entry.ledger_id not in before.ledger_ids
    ]
    charges = read_charges(connection)
    return [
        *_entries_against_charges(entries, charges),
        *_funds(connection, before, top_ups, entries, charges),
        *_order(entries, charges, read_periods(connection).keys()),
        *price_violations(connection),
        *_arrears(connection, top_ups),
    ]


def _entries_against_charges(
    entries: Sequence[Entry], charges: Mapping[str, Charge]
) -> Iterator[str]:
    """Each charge has its ledger row and the other way round, and they say the same."""
    unmatched = dict(charges)
    for entry in entries:
        charge = unmatched.pop(entry.ledger_id, None)
        if charge is None:
            if entry.entry_type.startswith("traffic_"):
                yield f"ledger {entry.ledger_id}: a {entry.entry_type} without evidence"
            continue
        bucket = charge.bucket
        entered = (
            entry.account_uuid,
            entry.bucket_start,
            entry.bucket_end,
            entry.entry_type,
            entry.rated_bytes,
            entry.amount_delta,
            entry.balance_after,
        )
        proven = (
            bucket.account_uuid,
            bucket.bucket_start,
            bucket.bucket_start + MINUTE,
            charge.entry_type,
            charge.rated_bytes,
            charge.amount_delta,
            charge.after.balance,
        )
        if entered != proven:
            yield f"ledger {entry.ledger_id}: says {_said(entered)}, its evidence {_said(proven)}"
        if charge.entry_type == "traffic_charge" and entry.ledger_id != ledger_id_of(bucket):
            yield f"ledger {entry.ledger_id}: is not the id of {_said(bucket)}"
        if charge.entry_type == "traffic_charge" and entry.amount_delta > 0:
            yield f"ledger {entry.ledger_id}: a charge of {entry.amount_delta} pays the account"
    for charge in unmatched.values():
        yield f"charge {charge.ledger_id}: {_said(charge.bucket)} is missing from the ledger"


def _funds(
    connection: Connection[Any],
    before: Books,
    top_ups: Mapping[str, Funds],
    entries: Sequence[Entry],
    charges: Mapping[str, Charge],
) -> Iterator[str]:
    """What an account has is what it began with plus what was written, and no step is missing.

    A step begins where another ended: taken together, the funds before all charges and at the
    end are those at the beginning and after all charges. No order is assumed for that, because
    runs that wait for each other stamp their rows before they wait.
    """
    now = read_funds(connection)
    periods = read_periods(connection)
    included_quotas = dict(rows(connection, READ_INCLUDED_QUOTAS))
    spent: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for entry in entries:
        spent[entry.account_uuid] += entry.amount_delta
    steps: dict[str, list[Charge]] = defaultdict(list)
    for charge in charges.values():
        steps[charge.bucket.account_uuid].append(charge)

    for account in sorted(before.funds.keys() | spent.keys() | steps.keys()):
        if account not in now:
            if account in spent or account in steps:
                yield f"account {account}: was charged and has no quota state"
            continue
        opening = before.funds.get(account) or Funds(
            before.default.balance, included_quotas.get(account, before.default.quota)
        )
        added = top_ups.get(account, NOTHING)
        if account in periods:
            quota = opening.quota + added.quota
            yield from _quotas(account, quota, periods[account], steps[account], now[account])
            added = added._replace(
                quota=now[account].quota
                - opening.quota
                + sum(charge.included_bytes for charge in steps[account])
            )
        included = sum(charge.included_bytes for charge in steps[account])
        balance = opening.balance + added.balance + spent[account]
        quota = opening.quota + added.quota - included
        if now[account] != (balance, quota):
            yield (
                f"account {account}: has {_said(now[account])}, "
                f"opening and ledger make {_said((balance, quota))}"
            )
        if account in top_ups or account in periods:
            continue
        begun = Counter([*(charge.before for charge in steps[account]), now[account]])
        ended = Counter([opening, *(charge.after for charge in steps[account])])
        for funds in begun - ended:
            yield f"account {account}: {_said(funds)} is where no charge before it ended"


def _quotas(
    account: str, quota: int, periods: Sequence[Period], charges: Sequence[Charge], now: Funds
) -> Iterator[str]:
    """Each period's quota is what its minutes used and what is left; nothing is rated before."""
    for period in periods:
        mine = [charge for charge in charges if charge.bucket.bucket_start < period.start]
        charges = [charge for charge in charges if charge.bucket.bucket_start >= period.start]
        yield from _used_up(account, quota, mine, period.former_left)
        quota = period.quota
    yield from _used_up(account, quota, charges, now.quota)


def _used_up(account: str, quota: int, charges: Sequence[Charge], left: int) -> Iterator[str]:
    included = sum(charge.included_bytes for charge in charges)
    rated = sum(charge.rated_bytes for charge in charges)
    if quota - included != left or (rated and left):
        yield f"account {account}: {included} of {quota} included, {left} left, {rated} rated"


def _order(
    entries: Sequence[Entry], charges: Mapping[str, Charge], with_periods: Collection[str]
) -> Iterator[str]:
    """Rows of an account written together rise in bucket order, each on top of the last.

    Those of accounts `with_periods` may use the quotas of several.
    """
    together: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.ledger_id in charges:
            together[entry.transaction, entry.account_uuid].append(entry)
    for group in together.values():
        for earlier, later in pairwise(group):
            first, second = charges[earlier.ledger_id], charges[later.ledger_id]
            if earlier.created_at == later.created_at:
                yield f"ledger {later.ledger_id}: created at the same instant as the row before"
            elif not _follows(first, second):
                yield f"ledger {later.ledger_id}: created after a row of a later bucket"
            elif first.after.balance != second.before.balance or (
                first.after.quota != second.before.quota
                and earlier.account_uuid not in with_periods
            ):
                yield f"ledger {later.ledger_id}: does not go on where the row before ended"


def _follows(first: Charge, second: Charge) -> bool:
    """Whether rows written together are in bucket order; a bucket may have many adjustments."""
    if first.entry_type != second.entry_type:
        return True
    is_charge = second.entry_type == "traffic_charge"
    return first.bucket < second.bucket or (first.bucket == second.bucket and not is_charge)


def _arrears(connection: Connection[Any], top_ups: Mapping[str, Funds]) -> Iterator[str]:
    """Arrears and throttling follow the balance; whoever else tops up may leave them."""
    for account, balance, arrears, throttle_state in rows(connection, READ_ARREARS):
        if account not in top_ups:
            yield f"account {account}: arrears {arrears}, {throttle_state} at {money(balance)}"


def _said(values: Sequence[object]) -> str:
    return ", ".join(
        format_rfc3339(value) if isinstance(value, datetime) else str(value) for value in values
    )
