"""The accounts of a run: locked, read, and sorted into those that can be charged and all others."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, LiteralString, NamedTuple

from psycopg.errors import LockNotAvailable

from billing_cli.core.model import Account
from billing_cli.core.prices import NoPrice, price_of
from billing_cli.core.rating import balance_of
from billing_cli.database import accounts as store
from billing_cli.database import arrays
from billing_cli.database.begin import FIRST_MOMENT, LAST_MOMENT
from billing_cli.database.write_path import STAGING_TABLES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.model import BucketKey, Price, Renewal, Totals
    from billing_cli.core.prices import ProfileRow
    from billing_cli.jobs.context import JobContext

# How long a run waits for a row that another session holds, before it goes on without it.
LOCK_WAIT_SECONDS = 2.0


class NewPeriod(NamedTuple):
    """A quota period that no run has seen, and the quota that such a period begins with, bytes."""

    period_start: datetime
    full_quota: int


@dataclass(frozen=True, slots=True)
class LockedAccounts:
    """Accounts under lock. `chargeable` are those wanted to be charged that can be, by uuid.

    `kept` exist, and stay until the transaction ends. `problems` says why some of those that exist
    can't be charged now: what they use is pending. `renewed` are chargeable accounts with a new
    quota period. `on_record` are buckets that were charged before, whoever did it, and their bytes.
    """

    chargeable: Mapping[str, Account] = field(default_factory=dict)
    kept: AbstractSet[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)
    renewed: Mapping[str, NewPeriod] = field(default_factory=dict)
    on_record: Mapping[BucketKey, Totals | None] = field(default_factory=dict)


def lock_accounts(
    context: JobContext,
    connection: Connection,
    charged: Collection[str],
    kept: Iterable[str] = (),
    *,
    fresh: Sequence[BucketKey] = (),
    late: Sequence[BucketKey] = (),
    first: Sequence[LiteralString] = STAGING_TABLES,
) -> LockedAccounts:
    """Lock accounts and the quota states of those to be charged, each in key order; read both.

    An account without a quota state gets its first. One whose row another session holds for longer
    than LOCK_WAIT_SECONDS, or whose figures money can't be computed with, is a problem of that
    account, never an error. `fresh` and `late` are the buckets to be charged in key order, as far
    as they are known: `fresh` ones should not have been charged before. `first` are statements that
    are sent before the locks, in the same round trip; whoever writes needs the staging tables.
    """
    initial_quota_bytes = context.tariff.initial_included_quota_bytes
    rows = _lock_rows(
        context,
        connection,
        store.Wanted(
            {*charged, *kept},
            charged,
            initial_quota_bytes,
            context.tariff.initial_balance,
            fresh,
            late,
        ),
        first,
    )
    chargeable: dict[str, Account] = {}
    problems: dict[str, str] = {}
    renewed: dict[str, NewPeriod] = {}
    prices: dict[ProfileRow, Price | NoPrice] = {}
    for state in rows.states:
        account = state.account_uuid
        if account not in rows.users:
            continue
        included_quota_bytes, profile = rows.users[account]
        seen = rows.renewals.get(account, ())
        try:
            chargeable[account] = _account(context, profile, state, seen, prices)
        except ValueError as error:
            problems[account] = f"account {account} can't be charged: {error}"
            continue
        start = state.period_start
        if start is not None and all(start > renewal.period_start for renewal in seen):
            full_quota = store.full_quota(included_quota_bytes, initial_quota_bytes)
            renewed[account] = NewPeriod(start, full_quota)
    settled = chargeable.keys() | problems.keys()
    problems |= {
        account: f"account {account} is locked by another session and can't be charged now"
        for account in rows.existing
        if account not in rows.users or (account in charged and account not in settled)
    }
    problems |= {
        account: f"account {account} can't be locked, and is not charged: see `billing check`"
        for account in _existing(connection, {*charged} - rows.users.keys() - problems.keys())
    }
    return LockedAccounts(chargeable, frozenset(rows.users), problems, renewed, rows.on_record)


def _lock_rows(
    context: JobContext,
    connection: Connection,
    wanted: store.Wanted,
    first: Sequence[LiteralString],
) -> store.LockedRows:
    """Lock the rows, at first with a little patience, then those that are available.

    Where another session is adding the quota state of a new account, new accounts are left out.
    """
    patience = context.database.lock_timeout_seconds
    waits = store.Waits(min(LOCK_WAIT_SECONDS, patience), patience)
    with suppress(LockNotAvailable):
        return store.lock_accounts(connection, wanted, waits, first)
    with suppress(LockNotAvailable):
        return store.lock_available_accounts(connection, wanted, waits, adds_states=True)
    return store.lock_available_accounts(connection, wanted, waits, adds_states=False)


def _existing(connection: Connection, unlocked: Collection[str]) -> list[str]:
    """Return those of the accounts that exist: row level security may hide them from the locks.

    They were found in this transaction, so that most runs have none to ask for.
    """
    if not unlocked:
        return []
    wanted = {"account_uuids": arrays.plain(unlocked)}
    return [account for (account,) in connection.execute(store.READ_USERS, wanted)]


def _account(
    context: JobContext,
    profile: ProfileRow,
    state: store.QuotaState,
    seen: tuple[Renewal, ...],
    prices: dict[ProfileRow, Price | NoPrice],
) -> Account:
    """Return the account, with the renewals that its quota state follows.

    Raises ValueError where money can't be computed with its figures.

    Most accounts have the same profile, or none: `prices` keeps what was computed.
    """
    quota = state.remaining_included_quota
    if quota is None:
        raise ValueError("a remaining quota of NULL")
    price = prices.get(profile)
    if price is None:
        price = prices[profile] = price_of(profile, context.tariff.prices)
    if isinstance(price, NoPrice):
        raise ValueError(price.reason)  # noqa: TRY004 - it is about the account's figures
    balance, start = balance_of(state.current_balance), state.period_start
    if start in {FIRST_MOMENT, LAST_MOMENT}:
        raise ValueError("a quota period without a begin")
    renewals = seen and tuple(
        renewal for renewal in seen if start is not None and renewal.period_start <= start
    )
    return Account(state.account_uuid, quota, balance, price, renewals)
