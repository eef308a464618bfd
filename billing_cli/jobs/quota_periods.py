"""Quota periods that have become visible: what their accounts had left, and what is re-rated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.core.quota_periods import begin_period
from billing_cli.database import quota_periods as store
from billing_cli.database.adjustments import read_bucket_histories
from billing_cli.database.early_renewals import EarlyRenewal, read_early_renewals
from billing_cli.database.quota_periods import SeenPeriod

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.bucket_history import BucketHistory
    from billing_cli.core.model import Account, BucketKey, Renewal
    from billing_cli.database.quota_periods import QuotasLeft
    from billing_cli.jobs.accounts import LockedAccounts, NewPeriod


@dataclass(frozen=True, slots=True)
class OpenedPeriods:
    """Accounts with all their quota periods, before anything is charged to them.

    `histories` are those of the buckets to be re-rated, `seen` by account the periods that no run
    has seen before this one; the quotas of `moved` ones change with that.
    """

    accounts: Mapping[str, Account]
    histories: Mapping[BucketKey, BucketHistory] = field(default_factory=dict)
    seen: Mapping[str, SeenPeriod] = field(default_factory=dict)
    moved: AbstractSet[str] = frozenset()

    def seen_with(self, charged: Mapping[str, Account]) -> list[SeenPeriod]:
        """Return the new periods with what the charges of this run leave of the former quotas."""
        return [
            period._replace(former_quota_bytes=charged[account].renewals[-1].former_quota)
            for account, period in self.seen.items()
        ]

    def changed_with(self, charged: Mapping[str, Account]) -> list[tuple[str, Renewal]]:
        """Return what the charges of this run leave of other former quotas, where that changed."""
        return [
            (account_uuid, renewal)
            for account_uuid, account in charged.items()
            if account.renewals
            for before, renewal in zip(
                self.accounts[account_uuid].renewals, account.renewals, strict=True
            )
            if renewal != before and not self._is_new(account_uuid, renewal)
        ]

    def _is_new(self, account_uuid: str, renewal: Renewal) -> bool:
        period = self.seen.get(account_uuid)
        return period is not None and period.period_start == renewal.period_start


def open_periods(connection: Connection, locked: LockedAccounts) -> OpenedPeriods:
    """Let the renewals that no run has seen take effect; nothing is written yet.

    Minutes of the new period that were charged before use the new quota, and what they had used of
    the former one can be used by minutes of the former period.
    """
    if not locked.renewed:
        return OpenedPeriods(locked.chargeable)
    starts = {account: period.period_start for account, period in locked.renewed.items()}
    left = store.read_quotas_left(connection, starts)
    kept = {
        account for account, quotas in left.items() if _is_kept(locked.chargeable[account], quotas)
    }
    unclear = {
        account: locked.renewed[account]
        for account in kept
        if not _is_certain(locked.chargeable[account], left[account], locked.renewed[account])
    }
    early = read_early_renewals(connection, unclear)
    renewed = {account: starts[account] for account in left.keys() - kept | early.keys()}
    risen = {account: renewal.risen_at for account, renewal in early.items()}
    affected = store.read_affected_buckets(connection, renewed, risen)
    histories = read_bucket_histories(connection, affected)
    included_before = _included_since(renewed, histories)

    accounts, seen, moved = dict(locked.chargeable), {}, set()
    for account in sorted(left.keys() - (unclear.keys() - early.keys())):
        start, included = starts[account], included_before[account]
        former_quota, moving, _ = early.get(account) or EarlyRenewal(
            _former_quota(left[account], locked.renewed[account], is_renewed=account in renewed),
            included,
        )
        opened = begin_period(accounts[account], start, former_quota, moving)
        accounts[account] = opened
        if moving:
            moved.add(account)
        quota, former = opened.remaining_included_quota, opened.renewals[-1].former_quota
        seen[account] = SeenPeriod(account, start, quota, included, former)
    return OpenedPeriods(accounts, histories, seen, moved)


def _included_since(
    starts: Mapping[str, datetime], histories: Mapping[BucketKey, BucketHistory]
) -> Counter[str]:
    """Return the included bytes of each account's buckets since a start."""
    included: Counter[str] = Counter()
    for key, history in histories.items():
        if key.bucket_start >= starts[key.account_uuid]:
            included[key.account_uuid] += sum(entry.included_bytes for entry in history.entries)
    return included


def _is_kept(account: Account, left: QuotasLeft) -> bool:
    """Return whether the quota is the one that we left: our entries since may have used it.

    Where no period was seen before, as after an update of this program, those of the new period
    may have used the renewed one already.
    """
    newest = left.previous if left.newest is None else left.newest
    return newest == account.remaining_included_quota


def _is_certain(account: Account, left: QuotasLeft, period: NewPeriod) -> bool:
    """Return whether a period that begins with the quota that we left can be recorded.

    Otherwise its renewal may still come, as it is written in two statements. Until then, or until
    another period begins, the minutes before and after its start share one quota.
    """
    if not left.is_previous_seen or left.newest is None:
        return True
    return period.full_quota == account.remaining_included_quota


def _former_quota(left: QuotasLeft, period: NewPeriod, *, is_renewed: bool) -> int:
    """Return what was left of the former quota: all of it where nothing was charged to it."""
    is_on_record = is_renewed or left.is_previous_seen
    candidates = (left.newest, left.previous) if is_on_record else (left.former,)
    return next((candidate for candidate in candidates if candidate is not None), period.full_quota)
