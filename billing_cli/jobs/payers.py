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
    from billing_cli.core.model import Price, Rating
    from billing_cli.core.rating import ProfileRow
    from billing_cli.jobs.context import JobContext
    from billing_cli.store.accounts import LockedUser


class FactConflictError(BillingError):
    """A fact that was to be written exists already; nothing is overwritten silently."""


@dataclass(frozen=True, slots=True)
class Payers:
    """Accounts that can be charged, by uuid, and why others can't."""

    accounts: Mapping[str, Account]
    problems: Mapping[str, str]


def lock_payers(context: JobContext, connection: Connection, users: Iterable[LockedUser]) -> Payers:
    """Lock the quota states of accounts that exist, in key order, and read what they pay.

    An account whose figures money can't be computed with is a problem, never an error: what it
    used waits for it.
    """
    ordered = sorted(users)
    states = store_accounts.lock_quota_states(
        connection,
        ordered,
        context.tariff.initial_included_quota_bytes,
        context.tariff.initial_balance,
    )
    accounts, problems = {}, {}
    prices: dict[ProfileRow, Price] = {}
    for user in ordered:
        state = states[user.account_uuid]
        try:
            price = prices.get(user.profile)
            if price is None:
                price = price_of(user.profile, context.tariff.price_per_byte)
                prices[user.profile] = price
            accounts[user.account_uuid] = Account(
                user.account_uuid,
                state.remaining_included_quota,
                balance_of(state.current_balance),
                price,
            )
        except ValueError as error:
            problems[user.account_uuid] = f"account {user.account_uuid} can't be charged: {error}"
    return Payers(accounts, problems)


def write_rating(
    context: JobContext,
    connection: Connection,
    rating: Rating,
    *,
    pricing_rule_version: str | None = None,
) -> None:
    """Append a rating's ledger entries and write what it leaves of the accounts.

    Raises FactConflictError where an entry exists already.
    """
    charges = rating.charges
    version = pricing_rule_version or context.tariff.pricing_rule_version
    if facts.add_ledger_entries(connection, charges, version, context.run_id) != 2 * len(charges):
        raise FactConflictError(
            "some of these minutes were charged before, and not from these counters"
        )
    last_bucket = {one.key.account_uuid: one.key.bucket_start for one in charges}
    store_accounts.save_accounts(
        connection,
        [(rating.accounts[account], last_bucket[account]) for account in sorted(last_bucket)],
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
