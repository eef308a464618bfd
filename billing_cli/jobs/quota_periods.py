"""Quota periods that have become visible: what their accounts had left, and what is re-rated."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_cli.core.adjustments import RENEWAL_REASON, settle
from billing_cli.core.quota_periods import begin_period
from billing_cli.database import quota_periods as store
from billing_cli.database.adjustments import read_bucket_histories
from billing_cli.database.quota_periods import SeenPeriod

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import Connection

    from billing_cli.core.bucket_history import BucketHistory
    from billing_cli.core.model import Account, BucketKey, Rating, Renewal
    from billing_cli.core.peak import PeakHours
    from billing_cli.database.quota_periods import QuotasLeft
    from billing_cli.jobs.accounts import LockedAccounts, NewPeriod


@dataclass(frozen=True, slots=True)
class OpenedPeriods:
    """Accounts with all their quota periods, before anything is charged to them.

    `histories` are those of the buckets to be re-rated, `seen` by account the periods that no run
    has seen before this one.
    """

    accounts: Mapping[str, Account]
    histories: Mapping[BucketKey, BucketHistory] = field(default_factory=dict)
    seen: Mapping[str, SeenPeriod] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[BucketKey, str]:
        """Why the buckets are re-rated."""
        return dict.fromkeys(self.histories, RENEWAL_REASON)

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
    renewed = {
        account: starts[account]
        for account, quotas in left.items()
        if _is_renewed_since(locked.chargeable[account], quotas)
    }
    # Where the quota stayed, its minutes on both sides of the start are only counted.
    kept = {
        account: starts[account]
        for account, quotas in left.items()
        if account not in renewed and quotas.is_previous_seen
    }
    affected = store.read_affected_buckets(connection, renewed | kept)
    histories = read_bucket_histories(connection, affected)
    included_before: defaultdict[str, int] = defaultdict(int)
    for key, history in histories.items():
        if key.bucket_start >= starts[key.account_uuid]:
            included_before[key.account_uuid] += sum(
                entry.included_bytes for entry in history.entries
            )

    accounts, seen = dict(locked.chargeable), {}
    for account, quotas in left.items():
        start, is_renewed = starts[account], account in renewed
        former_quota = _former_quota(quotas, locked.renewed[account], is_renewed=is_renewed)
        included = included_before[account]
        if is_renewed:
            opened = begin_period(accounts[account], start, former_quota, included)
        else:
            opened = begin_period(accounts[account], start, former_quota + included, 0)
        accounts[account] = opened
        seen[account] = SeenPeriod(
            account,
            start,
            opened.remaining_included_quota,
            included,
            opened.renewals[-1].former_quota,
        )
    requoted = {key: history for key, history in histories.items() if key.account_uuid in renewed}
    return OpenedPeriods(accounts, requoted, seen)


def requote(opened: OpenedPeriods, peak_hours: PeakHours | None) -> Rating:
    """Return what the renewals alone change: charges of before that use another quota now."""
    return settle((), opened.histories, opened.accounts, peak_hours, opened.reasons)


def _is_renewed_since(account: Account, left: QuotasLeft) -> bool:
    """Return whether the quota was renewed after our newest entry.

    It was not where it is what that entry left: the start of the period changed alone, or our
    entries have used the renewed quota already.
    """
    return left.newest != account.remaining_included_quota


def _former_quota(left: QuotasLeft, period: NewPeriod, *, is_renewed: bool) -> int:
    """Return what was left of the former quota: all of it where nothing was charged to it."""
    is_of_newest = is_renewed or left.is_previous_seen
    candidates = (left.newest, left.previous) if is_of_newest else (left.former,)
    return next((candidate for candidate in candidates if candidate is not None), period.full_quota)
