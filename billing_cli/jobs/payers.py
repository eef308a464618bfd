"""The accounts that pay, locked and read; and writing what is charged to them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from billing_cli.core.adjustments import settle
from billing_cli.core.makers import maker
from billing_cli.core.model import Account
from billing_cli.core.prices import NoPrice, price_of
from billing_cli.core.rating import ONE, balance_of, is_balance, multipliers_of, rate
from billing_cli.database import accounts as store_accounts
from billing_cli.database import adjustments as store_adjustments
from billing_cli.database import facts
from billing_cli.database.entries import EntryColumns
from billing_cli.database.failures import table_of
from billing_cli.errors import BillingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.adjustments import Correction
    from billing_cli.core.model import Bucket, Charge, Price, Rating
    from billing_cli.database.accounts import QuotaStates
    from billing_cli.jobs.context import JobContext


# Charges take much memory until they are columns.
RATED_AT_ONCE = 20_000

_account = maker(Account)
_included_bytes_of = attrgetter("included_bytes")
_rated_bytes_of = attrgetter("rated_bytes")
_amount_of = attrgetter("amount_delta")


class FactConflictError(BillingError):
    """A fact that was to be written exists already; nothing is overwritten silently."""


class ChargedBeforeError(FactConflictError):
    """A minute that was to be charged has a bucket or an entry already."""


CHARGED_BEFORE = "some of these minutes were charged before, and not from these counters"


@contextmanager
def facts_are_new() -> Iterator[None]:
    """Raise FactConflictError where a fact is appended in here that is there already.

    Where it is one that others may write as well, it is a ChargedBeforeError.
    """
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        if f"{error.diag.schema_name}.{error.diag.table_name}" in facts.WRITTEN_BY_OTHERS:
            raise ChargedBeforeError(CHARGED_BEFORE) from error
        raise FactConflictError(
            f"some of this is on record already: {error.diag.constraint_name} of {table_of(error)}"
        ) from error


@dataclass(frozen=True, slots=True)
class Payers:
    """The accounts that pay: which are gone, and why some that are to be charged can't be."""

    gone: AbstractSet[str]
    problems: Mapping[str, str]
    states: Sequence[QuotaStates]
    prices: Mapping[str, Price]

    def accounts(self) -> dict[str, Account]:
        """Make the accounts that can be charged, by uuid.

        Exact balances take a while, and a run has work for the server to do meanwhile.
        """
        problems, prices = self.problems, self.prices
        return {
            account_uuid: _account((account_uuid, quota, balance_of(balance), prices[account_uuid]))
            for states in self.states
            for account_uuid, quota, balance in states.rows()
            if account_uuid in prices and account_uuid not in problems
        }


def lock_payers(
    context: JobContext, connection: Connection, account_uuids: AbstractSet[str]
) -> Payers:
    """Lock accounts and their quota states, each in key order, and read what they pay."""
    locking = store_accounts.lock_users(connection, account_uuids)
    locking = store_accounts.lock_quota_states(connection, locking, account_uuids)
    return payers_of(context, connection, locking)


def payers_of(
    context: JobContext, connection: Connection, locking: store_accounts.Locking
) -> Payers:
    """Return the accounts that are locked to be charged; one without a quota state gets its first.

    An account whose figures money can't be computed with is a problem, never an error: what it
    used waits for it.
    """
    prices: dict[str, Price] = {}
    reasons: dict[str, str] = {}
    users = store_accounts.read_users(locking)
    for group in users:
        price = price_of(group.profile, context.tariff.prices)
        if isinstance(price, NoPrice):
            reasons.update(dict.fromkeys(group.account_uuids, price.reason))
        else:
            prices.update(dict.fromkeys(group.account_uuids, price))
    gone: AbstractSet[str] = frozenset()
    if len(prices) + len(reasons) < sum(len(kept) for kept, _ in locking.users):
        gone = {one for kept, _ in locking.users for one in kept} - prices.keys() - reasons.keys()
    states = [store_accounts.read_quota_states(locking)]
    if len(states[0]) < len(locking.charged):
        states.append(_first_quota_states(context, connection, users, locking.charged, states[0]))
    for one in states:
        if not all(map(is_balance, one.current_balances)):
            for account_uuid, _, balance in one.rows():
                if not is_balance(balance):
                    reasons.setdefault(account_uuid, f"a balance of {balance}")
    problems = {
        account_uuid: f"account {account_uuid} can't be charged: {reasons[account_uuid]}"
        for account_uuid in (reasons.keys() & locking.charged) - gone
    }
    return Payers(gone, problems, states, prices)


class Charged(NamedTuple):
    """What charges come to: how many minutes they are of, and their bytes and amounts."""

    minutes: int = 0
    included_bytes: int = 0
    rated_bytes: int = 0
    amount_delta: Decimal = Decimal(0)

    def plus(self, charges: Sequence[Charge], minutes: int) -> Charged:
        """Return it with the charges of so many other minutes."""
        return Charged(
            self.minutes + minutes,
            self.included_bytes + sum(map(_included_bytes_of, charges)),
            self.rated_bytes + sum(map(_rated_bytes_of, charges)),
            sum(map(_amount_of, charges), self.amount_delta),
        )


class Entries(NamedTuple):
    """What was sent: entries and the buckets that they are the first of; what both leave."""

    charged: Charged
    accounts: Mapping[str, Account]
    buckets: facts.Sent
    ledger: facts.Sent

    def require_new(self) -> None:
        """Raise ChargedBeforeError where a bucket or an entry was there already."""
        if not (self.buckets.reached_all and self.ledger.reached_all):
            raise ChargedBeforeError(CHARGED_BEFORE)


class SentBuckets(NamedTuple):
    """Buckets on their way, `beside_older` those of another writer or not."""

    sent: facts.Sent
    beside_older: bool


def send_buckets(
    context: JobContext,
    connection: Connection,
    buckets: Sequence[Bucket],
    prices: Mapping[str, Price],
    *,
    beside_older: bool,
) -> SentBuckets:
    """Send new buckets, within a pipeline: the server stores them while they are rated here.

    Where one is not new, its key refuses it; `beside_older` it stays as it is.
    """
    tariff = context.tariff
    multipliers = multipliers_of(buckets, prices, tariff.peak_hours)
    version = tariff.pricing_rule_version
    sent = facts.add_buckets(connection, buckets, multipliers, version, beside_older=beside_older)
    return SentBuckets(sent, beside_older)


def charge_buckets(
    context: JobContext,
    connection: Connection,
    sent: SentBuckets,
    buckets: Sequence[Bucket],
    accounts: Mapping[str, Account],
    *,
    has_arrears_since: bool,
) -> Entries:
    """Send what buckets cost their accounts, in key order, within the pipeline that they are in.

    Where an entry is not new, its key refuses it, or `require_new` tells; as with its bucket.
    """
    peak_hours, version = context.tariff.peak_hours, context.tariff.pricing_rule_version
    columns, charged = EntryColumns(), Charged()
    for start in range(0, len(buckets), RATED_AT_ONCE):
        rating = rate(buckets[start : start + RATED_AT_ONCE], accounts, peak_hours)
        accounts = rating.accounts
        columns.add(rating.charges)
        charged = charged.plus(rating.charges, len(rating.charges))
    ledger = columns.write(connection, version, context.run_id, beside_older=sent.beside_older)
    last_bucket = {bucket.key.account_uuid: bucket.key.bucket_start for bucket in buckets}
    _save_accounts(connection, accounts, last_bucket, has_arrears_since=has_arrears_since)
    return Entries(charged, accounts, sent.sent, ledger)


def write_rating(
    context: JobContext,
    connection: Connection,
    rating: Rating,
    *,
    pricing_rule_version: str | None = None,
) -> None:
    """Append a rating's ledger entries and write what it leaves of the accounts.

    Raises ChargedBeforeError where an entry exists already.
    """
    if not rating.charges:
        return
    has_arrears_since = store_accounts.has_arrears_since(connection)
    version = pricing_rule_version or context.tariff.pricing_rule_version
    columns = EntryColumns()
    columns.add(rating.charges)
    last_bucket = {one.key.account_uuid: one.key.bucket_start for one in rating.charges}
    with facts_are_new(), connection.pipeline():
        ledger = columns.write(connection, version, context.run_id, beside_older=True)
        _save_accounts(
            connection, rating.accounts, last_bucket, has_arrears_since=has_arrears_since
        )
    if not ledger.reached_all:
        raise ChargedBeforeError("some of these adjustments are on record already")


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


def _save_accounts(
    connection: Connection,
    accounts: Mapping[str, Account],
    last_bucket: Mapping[str, datetime],
    *,
    has_arrears_since: bool,
) -> None:
    store_accounts.save_accounts(
        connection,
        [(accounts[account_uuid], last) for account_uuid, last in last_bucket.items()],
        has_arrears_since=has_arrears_since,
    )


def _first_quota_states(
    context: JobContext,
    connection: Connection,
    users: Iterable[store_accounts.ProfiledUsers],
    charged: AbstractSet[str],
    states: QuotaStates,
) -> QuotaStates:
    """Give those to be charged that have no quota state their first."""
    missing = set(charged).difference(account_uuid for account_uuid, _, _ in states.rows())
    return store_accounts.add_quota_states(
        connection,
        sorted(
            (account_uuid, group.included_quota_bytes)
            for group in users
            for account_uuid in missing.intersection(group.account_uuids)
        ),
        context.tariff.initial_included_quota_bytes,
        context.tariff.initial_balance,
    )
