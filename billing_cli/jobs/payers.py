"""The accounts that pay, locked and read; and writing what is charged to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.adjustments import settle
from billing_cli.core.model import Account
from billing_cli.core.rating import ONE, balance_of, price_of
from billing_cli.errors import BillingError
from billing_cli.store import accounts as store_accounts
from billing_cli.store import adjustments as store_adjustments
from billing_cli.store import facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.adjustments import Correction
    from billing_cli.core.model import Bucket, Price, Rating
    from billing_cli.core.rating import ProfileRow
    from billing_cli.jobs.context import JobContext
    from billing_cli.store.accounts import LockedUser, QuotaState


class FactConflictError(BillingError):
    """A fact that was to be written exists already; nothing is overwritten silently."""


@dataclass(frozen=True, slots=True)
class Payers:
    """Accounts that can be charged, by uuid, and why others can't."""

    accounts: Mapping[str, Account]
    problems: Mapping[str, str]


def lock_payers(context: JobContext, connection: Connection, users: Iterable[LockedUser]) -> Payers:
    """Lock the quota states of accounts that exist, in key order, and read what they pay."""
    ordered = sorted(users)
    return payers_of(context, ordered, lock_quota_states(context, connection, ordered))


def lock_quota_states(
    context: JobContext, connection: Connection, users: Sequence[LockedUser]
) -> Mapping[str, QuotaState]:
    """Lock the users' quota states in key order, and return them; an account's first is made."""
    return store_accounts.lock_quota_states(
        connection,
        users,
        context.tariff.initial_included_quota_bytes,
        context.tariff.initial_balance,
    )


def payers_of(
    context: JobContext, users: Iterable[LockedUser], states: Mapping[str, QuotaState]
) -> Payers:
    """Return the accounts that can be charged.

    An account whose figures money can't be computed with is a problem, never an error: what it
    used waits for it.
    """
    accounts, problems = {}, {}
    prices: dict[ProfileRow, Price] = {}
    for account_uuid, _, profile in users:
        quota, balance = states[account_uuid]
        try:
            price = prices.get(profile)
            if price is None:
                price = prices[profile] = price_of(profile, context.tariff.price_per_byte)
            accounts[account_uuid] = Account(account_uuid, quota, balance_of(balance), price)
        except ValueError as error:
            problems[account_uuid] = f"account {account_uuid} can't be charged: {error}"
    return Payers(accounts, problems)


def write_rating(
    context: JobContext,
    connection: Connection,
    rating: Rating,
    *,
    new_buckets: Sequence[Bucket] = (),
    pricing_rule_version: str | None = None,
) -> None:
    """Append a rating's ledger entries and write what it leaves of the accounts.

    `new_buckets` are those that its entries are the first of, in their order. Raises
    FactConflictError where a bucket or an entry exists already.
    """
    charges = rating.charges
    if not charges:
        return
    version = pricing_rule_version or context.tariff.pricing_rule_version
    last_bucket = {one.key.account_uuid: one.key.bucket_start for one in charges}
    has_arrears_since = store_accounts.has_arrears_since(connection)
    with connection.pipeline():
        multipliers = [one.multiplier for one in charges] if new_buckets else []
        buckets = facts.add_buckets(connection, new_buckets, multipliers, version)
        entries = facts.add_ledger_entries(connection, charges, version)
        evidence = facts.add_charges(connection, charges, version, context.run_id)
        store_accounts.save_accounts(
            connection,
            [(rating.accounts[account], last) for account, last in last_bucket.items()],
            has_arrears_since=has_arrears_since,
        )
    if not buckets.was_all_new:
        raise FactConflictError("some of these minutes are on record already with other figures")
    if not (entries.was_all_new and evidence.was_all_new):
        raise FactConflictError(
            "some of these minutes were charged before, and not from these counters"
        )


def write_corrections(
    context: JobContext,
    connection: Connection,
    corrections: Sequence[Correction],
    accounts: Mapping[str, Account],
) -> Rating:
    """Bring buckets to their corrected figures and settle the difference as new entries.

    The corrections' accounts are locked and among `accounts`; there is at most one correction
    for a bucket. Returns the entries that were written.
    """
    histories = store_adjustments.read_bucket_histories(
        connection, (one.bucket.key for one in corrections)
    )
    rating = settle(corrections, histories, accounts, context.tariff.peak_hours)
    multipliers = {one.key: one.multiplier for one in rating.charges}
    store_adjustments.adjust_buckets(
        connection,
        [(one.bucket, multipliers.get(one.bucket.key, ONE)) for one in corrections],
        context.tariff.pricing_rule_version,
    )
    write_rating(context, connection, rating)
    return rating
