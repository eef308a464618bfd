"""Quota periods: every minute uses the quota of its own period, whenever it is charged."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.adjustments import (
    RENEWAL_REASON,
    RETURNED_REASON,
    Correction,
    returned_quotas,
    settle,
)
from billing_cli.core.bucket_history import BucketHistory, PriorEntry, in_order
from billing_cli.core.quota_periods import begin_period, use_quota
from tests.unit.core import tariffs
from tests.unit.core.examples import examples
from tests.unit.core.stories import NOON

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from billing_cli.core.adjustments import ReturnedQuota
    from billing_cli.core.model import Account, Bucket, BucketKey, Charge

PRICE = Decimal("0.000000003")
PERIOD_MINUTES = 10
PERIODS = 3

PERIOD_STARTS = [NOON + timedelta(minutes=PERIOD_MINUTES * number) for number in range(PERIODS)]


@dataclass
class Ledger:
    """An account and all its entries in the order in which they were written."""

    account: Account
    entries: list[Charge] = field(default_factory=list)
    seen: int = 0

    def charge(self, buckets: Sequence[Bucket]) -> None:
        """Charge minutes in one run, at the quotas that are known."""
        self._settle(buckets, ())

    def renew(self, period: int, quota: int, buckets: Sequence[Bucket]) -> None:
        """Let a renewal become visible to a run that charges minutes."""
        start = PERIOD_STARTS[period]
        former_quota = self.account.remaining_included_quota
        early = [entry for entry in self.entries if entry.key.bucket_start >= start]
        renewed = self.account._replace(remaining_included_quota=quota)
        included = sum(entry.included_bytes for entry in early)
        self.account = begin_period(renewed, start, former_quota, included)
        first = self.entries.index(early[0]) if early else len(self.entries)
        self._settle(buckets, {entry.key for entry in self.entries[first:]})

    def correct(self, *buckets: Bucket) -> None:
        """Add bytes to minutes, or take them from those that are charged, in one run."""
        corrections = [Correction(bucket, "because") for bucket in buckets]
        accounts = {self.account.account_uuid: self.account}
        charged = {entry.key for entry in self.entries}
        known = {key: self._history(key) for key in charged}
        rated = [
            key
            for quota in returned_quotas(corrections, known, accounts)
            for key in self._rated(quota)
        ]
        rating = settle(corrections, known, accounts, None, dict.fromkeys(rated, RETURNED_REASON))
        self.account = rating.accounts[self.account.account_uuid]
        self.entries.extend(rating.charges)

    def included(self) -> dict[int, int]:
        """Return the included bytes of the minutes of each period."""
        sums: defaultdict[int, int] = defaultdict(int)
        for entry in self.entries:
            sums[period_of(entry.key)] += entry.included_bytes
        return sums

    def _rated(self, returned: ReturnedQuota) -> Iterator[BucketKey]:
        """Yield the first rated minutes of a period, up to so many bytes."""
        since, end, before = returned.since, returned.period.end, 0
        for key in sorted({entry.key for entry in self.entries}):
            rated = sum(entry.rated_bytes for entry in self.entries if entry.key == key)
            is_inside = (since is None or since <= key.bucket_start) and (
                end is None or key.bucket_start < end
            )
            if is_inside and rated and before < returned.rated_bytes:
                before += rated
                yield key

    def _settle(self, buckets: Sequence[Bucket], requoted: set[BucketKey] | tuple[()]) -> None:
        rating = settle(
            [Correction(bucket, "") for bucket in buckets],
            {key: self._history(key) for key in requoted},
            {self.account.account_uuid: self.account},
            None,
            dict.fromkeys(requoted, RENEWAL_REASON),
        )
        self.account = rating.accounts[self.account.account_uuid]
        self.entries.extend(rating.charges)

    def _history(self, key: BucketKey) -> BucketHistory:
        entries = [prior(entry) for entry in self.entries if entry.key == key]
        return BucketHistory(in_order(key, entries), is_charged=True)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[tuple[int, list[Bucket]]]]:
    """Return each period's quota, and runs: how many periods each sees, and what it charges."""
    quotas = draw(st.lists(st.integers(0, 100), min_size=PERIODS, max_size=PERIODS))
    sizes = draw(st.dictionaries(st.integers(0, PERIODS * PERIOD_MINUTES - 1), st.integers(1, 60)))
    minutes = draw(st.permutations(sorted(sizes)))
    visible = sorted(draw(st.lists(st.integers(0, 8), min_size=PERIODS - 1, max_size=PERIODS - 1)))
    runs: list[tuple[int, list[Bucket]]] = []
    for number in range(9):
        size = draw(st.integers(0, 8)) if number < 8 else len(minutes)
        taken, minutes = minutes[:size], minutes[size:]
        buckets = [tariffs.bucket(sizes[minute], minute=minute) for minute in taken]
        runs.append((sum(at <= number for at in visible), buckets))
    return quotas, runs


def play(quotas: Sequence[int], runs: Sequence[tuple[int, list[Bucket]]]) -> Ledger:
    """Bill the runs, each with the renewals that are visible to it."""
    ledger = Ledger(tariffs.account(tariffs.price(str(PRICE)), quota=quotas[0]))
    for visible, buckets in runs:
        for period in range(ledger.seen + 1, visible + 1):
            ledger.renew(period, quotas[period], buckets if period == visible else [])
        if visible == ledger.seen:
            ledger.charge(buckets)
        ledger.seen = visible
    return ledger


@examples()
@given(histories())
def test_each_period_s_quota_is_used_up_by_its_own_minutes(
    history: tuple[list[int], list[tuple[int, list[Bucket]]]],
) -> None:
    """In any order: the included bytes of a period are its quota or its bytes, the smaller."""
    quotas, runs = history
    ledger = play(quotas, runs)
    used: defaultdict[int, int] = defaultdict(int)
    for _, buckets in runs:
        for bucket in buckets:
            used[period_of(bucket.key)] += bucket.total_bytes
    expected = {period: min(quotas[period], used[period]) for period in range(PERIODS)}
    assert {period: ledger.included()[period] for period in range(PERIODS)} == expected
    rated = sum(used.values()) - sum(expected.values())
    assert ledger.account.current_balance == -rated * PRICE
    left = [*(renewal.former_quota for renewal in ledger.account.renewals)]
    left.append(ledger.account.remaining_included_quota)
    assert left == [quotas[period] - expected[period] for period in range(PERIODS)]


@examples()
@given(histories())
def test_amounts_are_those_of_renewals_that_are_visible_at_once(
    history: tuple[list[int], list[tuple[int, list[Bucket]]]],
) -> None:
    """The ideal order: all renewals visible first, then all minutes in the order of time."""
    quotas, runs = history
    minutes = sorted(bucket for _, buckets in runs for bucket in buckets)
    ideal = play(quotas, [(PERIODS - 1, []), (PERIODS - 1, minutes)])
    actual = play(quotas, runs)
    assert actual.account.current_balance == ideal.account.current_balance
    assert actual.account == ideal.account
    assert all(not entry.reason for entry in ideal.entries)


@examples()
@given(histories())
def test_entries_follow_each_other_in_the_quota_of_their_period(
    history: tuple[list[int], list[tuple[int, list[Bucket]]]],
) -> None:
    """What an entry leaves of a former quota is what the next one of that period finds."""
    quotas, runs = history
    ledger = play(quotas, [(PERIODS - 1, []), *((PERIODS - 1, buckets) for _, buckets in runs)])
    by_period: defaultdict[int, list[Charge]] = defaultdict(list)
    for entry in ledger.entries:
        by_period[period_of(entry.key)].append(entry)
    for entries in by_period.values():
        for entry, following in pairwise(entries):
            assert following.quota_before == entry.quota_before - entry.included_bytes


def test_charges_that_the_new_quota_covers_give_their_price_back() -> None:
    """80 bytes after the renewal paid with a used-up quota; once it is visible they are free."""
    early = tariffs.bucket(80, minute=PERIOD_MINUTES)
    late = tariffs.bucket(30, minute=1)
    ledger = play([50, 100, 0], [(0, [early]), (0, [late]), (1, [])])
    charged, late_charge, *adjustments = ledger.entries
    assert (charged.included_bytes, charged.rated_bytes) == (50, 30)
    assert (late_charge.included_bytes, late_charge.rated_bytes) == (0, 30)
    assert [
        (entry.adjusts, entry.included_bytes, entry.rated_bytes, entry.amount_delta)
        for entry in adjustments
    ] == [
        (late_charge.ledger_id, 30, -30, 30 * PRICE),
        (charged.ledger_id, 30, -30, 30 * PRICE),
    ]
    assert {entry.reason for entry in adjustments} == {
        "the quota of the period that the minute lies in, visible after it was charged"
    }
    assert ledger.account.remaining_included_quota == 20
    assert ledger.account.renewals[0].former_quota == 20


@examples()
@given(
    histories(),
    st.lists(
        st.dictionaries(
            st.integers(0, PERIODS * PERIOD_MINUTES - 1), st.integers(-60, 60), min_size=1
        ),
        max_size=6,
    ),
)
def test_after_any_corrections_no_byte_is_rated_while_quota_of_its_period_is_left(
    history: tuple[list[int], list[tuple[int, list[Bucket]]]],
    corrected: list[dict[int, int]],
) -> None:
    """Bytes move between minutes, within periods and across renewals."""
    quotas, runs = history
    ledger = play(quotas, [*runs, (PERIODS - 1, [])])
    for sizes in corrected:
        ledger.correct(
            *(tariffs.bucket(size, minute=minute) for minute, size in sizes.items() if size)
        )
        used = ledger.included()
        left = [*(renewal.former_quota for renewal in ledger.account.renewals)]
        left.append(ledger.account.remaining_included_quota)
        assert left == [quotas[period] - used[period] for period in range(PERIODS)]
        for period in range(PERIODS):
            rated = sum(
                entry.rated_bytes for entry in ledger.entries if period_of(entry.key) == period
            )
            assert left[period] >= 0
            assert rated == 0 or left[period] == 0
        total = sum(entry.rated_bytes for entry in ledger.entries)
        assert ledger.account.current_balance == -total * PRICE


def test_bytes_given_back_return_to_the_quota_of_their_period() -> None:
    """A correction of a minute before the renewal leaves the present quota as it is."""
    former = tariffs.bucket(30, minute=1)
    ledger = play([50, 100, 0], [(0, [former]), (1, [])])
    ledger.correct(former._replace(uplink_bytes=-20))
    assert ledger.account.renewals[0].former_quota == 40
    assert ledger.account.remaining_included_quota == 100


@pytest.mark.parametrize("changed_by", [100, 1, -100])
def test_a_correction_uses_no_quota_that_others_have_changed(changed_by: int) -> None:
    """What was rated for want of quota stays so when the account gets more of it, or less."""
    first, second = tariffs.bucket(50, minute=1), tariffs.bucket(50, minute=2)
    ledger = play([70, 100, 0], [(0, [first, second]), (1, [])])
    (renewal,) = ledger.account.renewals
    changed = renewal._replace(former_quota=renewal.former_quota + changed_by)
    ledger.account = ledger.account._replace(renewals=(changed,))
    ledger.correct(first._replace(uplink_bytes=-10))
    assert [entry.included_bytes for entry in ledger.entries] == [50, 20, -10]


def test_before_the_first_renewal_minutes_since_the_corrected_one_use_what_it_returned() -> None:
    """Earlier ones may be of a period that ended without that anything told."""
    first, second, third = (tariffs.bucket(40, minute=minute) for minute in (1, 2, 3))
    ledger = play([40, 100, 0], [(0, [second]), (0, [first, third])])
    ledger.correct(second._replace(uplink_bytes=-15))
    assert [
        (entry.key.bucket_start - NOON, entry.included_bytes, entry.rated_bytes)
        for entry in ledger.entries
    ] == [
        (timedelta(minutes=2), 40, 0),
        (timedelta(minutes=1), 0, 40),
        (timedelta(minutes=3), 0, 40),
        (timedelta(minutes=2), -15, 0),
        (timedelta(minutes=3), 15, -15),
    ]


def period_of(key: BucketKey) -> int:
    """Return the number of the period that a minute lies in."""
    return sum(start <= key.bucket_start for start in PERIOD_STARTS) - 1


def prior(charge: Charge) -> PriorEntry:
    """Return an entry as it is read from the evidence."""
    return PriorEntry(
        charge.ledger_id,
        charge.adjusts,
        charge.included_bytes,
        charge.rated_bytes,
        charge.price_per_byte,
        charge.multiplier,
        charge.amount_delta,
        "v1",
    )


def test_an_account_without_periods_uses_its_only_quota() -> None:
    """Whichever minute it is."""
    account = tariffs.account(tariffs.price("0.000000003"), quota=100)
    assert use_quota(account, NOON, 30).remaining_included_quota == 70


def test_quota_that_a_correction_returned_is_used_by_what_was_rated_for_want_of_it() -> None:
    """In the period that is over, for the price that was paid; the entry says so."""
    first, second = tariffs.bucket(50, minute=1), tariffs.bucket(30, minute=2)
    ledger = play([50, 100, 0], [(0, [first, second]), (1, [])])
    ledger.correct(first._replace(uplink_bytes=-20))
    assert [
        (entry.included_bytes, entry.rated_bytes, entry.amount_delta, entry.reason)
        for entry in ledger.entries[-2:]
    ] == [
        (-20, 0, 0, "because"),
        (20, -20, 20 * PRICE, "quota of the minute's period that a correction returned"),
    ]
