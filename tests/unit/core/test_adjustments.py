"""Corrections and re-rating: new entries that bring a minute's charges right, to the nano."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, time
from decimal import Decimal, localcontext
from itertools import permutations
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from billing_cli.core.adjustments import Correction, reprice, settle
from billing_cli.core.bucket_history import BucketHistory, PriorEntry, in_order, standing_charges
from billing_cli.core.model import Account, Bucket, BucketKey, Charge, Price
from billing_cli.core.peak import PeakHours
from billing_cli.core.rating import EXACT, adjustment_id, amount_of, ledger_id
from tests.unit.core.stories import ALICE, NODE, after_noon

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

KEY = BucketKey(after_noon("01:00"), NODE.stored, ALICE.sample_uuid, "", ALICE.inbound_tag)
NEXT_KEY = KEY._replace(bucket_start=after_noon("02:00"))
ONE_EACH = Price(Decimal(1), Decimal(1), Decimal(1), Decimal(1))

NOON_IS_PEAK = PeakHours(((time(12), time(13)),), UTC)


def account(quota: int = 0, balance: str = "100", price: str = "0.01") -> Account:
    """Return Alice's account."""
    per_byte = replace(ONE_EACH, per_byte=Decimal(price))
    return Account(ALICE.sample_uuid, quota, Decimal(balance), per_byte)


@dataclass
class Minute:
    """One minute's ledger as a database would keep it, and the account that pays."""

    account: Account
    key: BucketKey = KEY
    is_charged: bool = False
    entries: list[Charge] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    def correct(self, total_bytes: int) -> list[Charge]:
        """Add bytes to the minute, or take them from it."""
        correction = Correction(Bucket(self.key, 0, total_bytes), "because")
        histories = {self.key: self.history()}
        rating = settle([correction], histories, {self.account.account_uuid: self.account})
        self.account = rating.accounts[self.account.account_uuid]
        return self._append(rating.charges, "v1")

    def reprice(
        self, per_byte: str, version: str = "v2", peak_hours: PeakHours | None = None
    ) -> list[Charge]:
        """Bring what is charged to another price."""
        price = replace(self.account.price, per_byte=Decimal(per_byte))
        self.account = self.account._replace(price=price)
        self.account, entries = reprice(
            self.key, self.history(), self.account, peak_hours, "prices were wrong"
        )
        return self._append(entries, version)

    def history(self) -> BucketHistory:
        """Return what is on record, as it is read from the evidence."""
        return BucketHistory(
            in_order(self.key, prior_entries(self.entries, self.versions)), self.is_charged
        )

    def _append(self, entries: Sequence[Charge], version: str) -> list[Charge]:
        self.entries.extend(entries)
        self.versions.extend(version for _ in entries)
        self.is_charged = self.is_charged or bool(entries)
        return list(entries)


def prior_entries(entries: Sequence[Charge], versions: Sequence[str]) -> list[PriorEntry]:
    """Return entries as their evidence has them."""
    return [
        PriorEntry(
            one.ledger_id,
            one.adjusts,
            one.included_bytes,
            one.rated_bytes,
            one.price_per_byte,
            one.multiplier,
            one.amount_delta,
            version,
        )
        for one, version in zip(entries, versions, strict=True)
    ]


def test_a_minute_that_nobody_charged_gets_its_own_charge() -> None:
    """Its id is the one that every writer derives, and the reason says where it came from."""
    (entry,) = Minute(account(quota=4)).correct(10)
    assert (entry.ledger_id, entry.entry_type) == (ledger_id(KEY), "traffic_charge")
    assert (entry.included_bytes, entry.rated_bytes) == (4, 6)
    assert (entry.amount_delta, entry.reason) == (Decimal("-0.060000000"), "because")


def test_bytes_that_a_charged_minute_lacks_become_an_adjustment_at_todays_price() -> None:
    """The charge stays what it was; the difference stands on its own."""
    minute = Minute(account(price="0.01"))
    minute.correct(10)
    minute.account = minute.account._replace(price=replace(ONE_EACH, per_byte=Decimal("0.03")))
    (entry,) = minute.correct(5)
    assert (entry.ledger_id, entry.adjusts) == (adjustment_id(KEY, 1), None)
    assert (entry.entry_type, entry.amount_delta) == ("traffic_adjustment", Decimal("-0.15"))


def test_a_minute_that_another_writer_charged_gets_adjustments_only() -> None:
    """Its charge has no evidence here, so the first entry of ours is the adjustment number 0."""
    (entry,) = Minute(account(), is_charged=True).correct(10)
    assert (entry.ledger_id, entry.entry_type) == (adjustment_id(KEY, 0), "traffic_adjustment")


def test_a_single_byte_is_charged_and_given_back() -> None:
    """The smallest correction is one, in either direction."""
    minute = Minute(account(price="0.01"))
    (charge,) = minute.correct(1)
    assert (charge.entry_type, charge.amount_delta) == ("traffic_charge", Decimal("-0.01"))
    (refund,) = minute.correct(-1)
    assert (refund.rated_bytes, refund.amount_delta) == (-1, Decimal("0.01"))


def test_bytes_go_back_at_the_price_that_was_charged() -> None:
    """Today's price is nobody's business where something is taken back."""
    minute = Minute(account(price="0.01"))
    minute.correct(10)
    minute.account = minute.account._replace(price=replace(ONE_EACH, per_byte=Decimal(7)))
    (entry,) = minute.correct(-4)
    assert (entry.rated_bytes, entry.price_per_byte) == (-4, Decimal("0.01"))
    assert (entry.amount_delta, entry.adjusts) == (Decimal("0.04"), ledger_id(KEY))


def test_bytes_beyond_the_quota_go_back_before_those_within_it() -> None:
    """The quota was used up first, so what it covered is the last to be given back."""
    minute = Minute(account(quota=6))
    minute.correct(10)
    (first,) = minute.correct(-3)
    (second,) = minute.correct(-3)
    assert (first.included_bytes, first.rated_bytes) == (0, -3)
    assert (second.included_bytes, second.rated_bytes) == (-2, -1)
    assert minute.account.remaining_included_quota == 2
    (third,) = minute.correct(-5)
    assert (third.included_bytes, third.rated_bytes) == (-4, 0)
    assert minute.account.remaining_included_quota == 6


def test_as_many_bytes_beyond_the_quota_as_within_it_go_back_together() -> None:
    """Both parts are in one entry, whatever their sizes."""
    minute = Minute(account(quota=6))
    minute.correct(10)
    (entry,) = minute.correct(-8)
    assert (entry.included_bytes, entry.rated_bytes) == (-4, -4)
    assert minute.account.remaining_included_quota == 4


def test_what_was_charged_last_goes_back_first() -> None:
    """A correction that reaches beyond the last charge takes the rest from the one before."""
    minute = Minute(account())
    minute.correct(10)
    (added,) = minute.correct(5)
    entries = minute.correct(-8)
    assert [(entry.adjusts, entry.rated_bytes) for entry in entries] == [
        (added.ledger_id, -5),
        (ledger_id(KEY), -3),
    ]
    assert [entry.ledger_id for entry in entries] == [adjustment_id(KEY, 2), adjustment_id(KEY, 3)]
    (last,) = minute.correct(-4)
    assert (last.adjusts, last.rated_bytes) == (ledger_id(KEY), -4)


def test_what_one_charge_gives_back_is_not_asked_of_the_one_before() -> None:
    """Included bytes count as given back just as rated ones do."""
    minute = Minute(account(quota=12))
    minute.correct(10)
    minute.correct(5)
    entries = minute.correct(-8)
    assert [(entry.included_bytes, entry.rated_bytes) for entry in entries] == [(-2, -3), (-3, 0)]


def test_bytes_that_the_evidence_does_not_hold_are_left_out() -> None:
    """Nobody gets money for bytes that were never charged to them."""
    minute = Minute(account())
    minute.correct(10)
    entries = minute.correct(-25)
    assert [entry.rated_bytes for entry in entries] == [-10]
    assert minute.correct(-1) == []


def test_entries_are_put_in_order_by_their_ids() -> None:
    """A charge comes before its adjustments, and these as they were counted."""
    minute = Minute(account())
    for total_bytes in (10, 5, -3):
        minute.correct(total_bytes)
    entries = prior_entries(minute.entries, minute.versions)
    assert len(entries) == 3
    for count in range(4):
        for shuffled in permutations(entries[:count]):
            assert in_order(KEY, shuffled) == tuple(entries[:count])


def test_bytes_that_change_direction_alone_leave_the_ledger_as_it_is() -> None:
    """Uplink and downlink cost the same."""
    minute = Minute(account())
    minute.correct(10)
    correction = Correction(Bucket(KEY, 3, -3), "because")
    accounts = {minute.account.account_uuid: minute.account}
    assert settle([correction], {KEY: minute.history()}, accounts).charges == ()


def test_corrections_of_one_account_build_on_each_other_in_bucket_order() -> None:
    """Each entry begins with the funds that the one before it left."""
    corrections = [
        Correction(Bucket(NEXT_KEY, 0, 8), "because"),
        Correction(Bucket(KEY, 3, 2), "because"),
    ]
    rating = settle(corrections, {}, {ALICE.sample_uuid: account(quota=7)})
    first, second = rating.charges
    assert [charge.key for charge in rating.charges] == [KEY, NEXT_KEY]
    assert [charge.ledger_id for charge in rating.charges] == [ledger_id(KEY), ledger_id(NEXT_KEY)]
    assert (first.included_bytes, second.included_bytes, second.quota_before) == (5, 2, 2)
    assert second.balance_before == first.balance_after
    assert rating.accounts[ALICE.sample_uuid].current_balance == second.balance_after


def test_repricing_changes_the_amount_and_no_bytes() -> None:
    """Twice the price is as much again for the rated bytes, and nothing for the included ones."""
    minute = Minute(account(quota=4, price="0.01"))
    minute.correct(10)
    (entry,) = minute.reprice("0.02")
    assert (entry.included_bytes, entry.rated_bytes) == (0, 0)
    assert (entry.amount_delta, entry.price_per_byte) == (Decimal("-0.06"), Decimal("0.02"))
    assert (entry.ledger_id, entry.adjusts) == (adjustment_id(KEY, 1), ledger_id(KEY))
    assert (entry.entry_type, entry.reason) == ("traffic_adjustment", "prices were wrong")


def test_a_lower_price_gives_money_back() -> None:
    """An adjustment is signed: what was charged too much is added to the balance."""
    minute = Minute(account(balance="100", price="0.01"))
    minute.correct(10)
    (entry,) = minute.reprice("0.001")
    assert entry.amount_delta == Decimal("0.09")
    assert minute.account.current_balance == Decimal("99.99")


def test_repricing_to_the_same_price_does_nothing() -> None:
    """Neither what was charged at it, nor what was brought to it, gets a further entry."""
    minute = Minute(account(price="0.01"))
    minute.correct(10)
    assert minute.reprice("0.01") == []
    assert len(minute.reprice("0.02")) == 1
    assert minute.reprice("0.02") == []


def test_included_bytes_have_no_price() -> None:
    """A minute within the quota costs nothing at any price."""
    minute = Minute(account(quota=10))
    minute.correct(10)
    assert minute.reprice("5") == []


def test_each_charge_of_a_minute_is_repriced_on_its_own() -> None:
    """Bytes that were added later stand beside the first charge."""
    minute = Minute(account(price="0.01"))
    minute.correct(10)
    (added,) = minute.correct(5)
    entries = minute.reprice("0.03")
    assert [(entry.adjusts, entry.amount_delta) for entry in entries] == [
        (ledger_id(KEY), Decimal("-0.2")),
        (added.ledger_id, Decimal("-0.1")),
    ]
    assert [entry.ledger_id for entry in entries] == [adjustment_id(KEY, 2), adjustment_id(KEY, 3)]


def test_a_charge_that_is_right_already_holds_no_other_back() -> None:
    """The quota covered the first bytes; those that were added are brought to the new price."""
    minute = Minute(account(quota=10, price="0.01"))
    minute.correct(10)
    (added,) = minute.correct(5)
    (entry,) = minute.reprice("0.03")
    assert (entry.adjusts, entry.amount_delta) == (added.ledger_id, Decimal("-0.1"))


def test_bytes_go_back_at_the_price_that_they_were_brought_to() -> None:
    """After re-rating the new price is the one that was charged."""
    minute = Minute(account(price="0.01"))
    minute.correct(10)
    minute.reprice("0.02")
    (entry,) = minute.correct(-10)
    assert entry.amount_delta == Decimal("0.2")
    assert minute.account.current_balance == Decimal(100)


def test_repricing_multiplies_as_rating_would_at_that_hour() -> None:
    """Peak hours are those of the minute that was charged."""
    minute = Minute(account(price="0.01"))
    minute.correct(10)
    price = replace(minute.account.price, multiplier=Decimal(2), peak_multiplier=Decimal(3))
    minute.account = minute.account._replace(price=price)
    (entry,) = minute.reprice("0.01", peak_hours=NOON_IS_PEAK)
    assert (entry.multiplier, entry.amount_delta) == (Decimal(6), Decimal("-0.5"))
    (refund,) = minute.correct(-4)
    assert (refund.multiplier, refund.amount_delta) == (Decimal(6), Decimal("0.24"))


def test_a_standing_charge_is_under_the_version_that_set_its_price() -> None:
    """A refund that follows says which version it was written under, but sets no price."""
    minute = Minute(account())
    minute.correct(10)
    minute.reprice("0.02", "v2")
    minute.correct(-4)
    (standing,) = standing_charges(minute.history().entries)
    assert standing.pricing_rule_version == "v2"
    assert (standing.rated_bytes, standing.amount_delta) == (6, Decimal("-0.12"))


many = settings(deadline=None, max_examples=200)

PRICES = st.decimals("0", "1000", places=12).map(str)
BYTES = st.integers(1, 2**62)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("correct"), BYTES),
        st.tuples(st.just("correct"), BYTES.map(lambda count: -count)),
        st.tuples(st.just("reprice"), PRICES),
    ),
    max_size=8,
)


@many
@given(steps=STEPS, quota=st.integers(-5, 2**62), price=PRICES, is_charged=st.booleans())
def test_every_charge_costs_its_bytes_at_the_price_that_holds_for_it(
    steps: list[tuple[str, int | str]], quota: int, price: str, is_charged: bool
) -> None:
    """Whatever happened to a minute, and in whatever order, no nano is off."""
    minute = Minute(account(quota=quota, price=price), is_charged=is_charged)
    for step in steps:
        take(minute, step)
        with localcontext(EXACT):
            for charge in standing_charges(minute.history().entries):
                assert charge.included_bytes >= 0
                assert charge.rated_bytes >= 0
                assert charge.amount_delta == amount_of(
                    charge.rated_bytes, charge.price_per_byte, charge.multiplier
                )


@many
@given(steps=STEPS, quota=st.integers(0, 2**62), price=PRICES)
def test_quota_and_balance_follow_the_entries(
    steps: list[tuple[str, int | str]], quota: int, price: str
) -> None:
    """Each entry begins where the last one ended, and has an id of its own."""
    opening = account(quota=quota, price=price)
    minute = Minute(opening)
    for step in steps:
        take(minute, step)
    with localcontext(EXACT):
        left, balance = opening.remaining_included_quota, opening.current_balance
        for entry in minute.entries:
            assert (entry.quota_before, entry.balance_before) == (left, balance)
            left -= entry.included_bytes
            balance += entry.amount_delta
            assert entry.balance_after == balance
    assert minute.account.remaining_included_quota == left
    assert minute.account.current_balance == balance
    assert len({entry.ledger_id for entry in minute.entries}) == len(minute.entries)


@many
@given(steps=STEPS, quota=st.integers(0, 2**62), price=PRICES)
def test_giving_everything_back_gives_back_every_byte_and_nano(
    steps: list[tuple[str, int | str]], quota: int, price: str
) -> None:
    """Rounding leaves no dust, however the charge came about."""
    opening = account(quota=quota, price=price)
    minute = Minute(opening)
    for step in steps:
        take(minute, step)
    minute.correct(-(2**70))
    with localcontext(EXACT):
        assert sum(entry.included_bytes for entry in minute.entries) == 0
        assert sum(entry.rated_bytes for entry in minute.entries) == 0
        assert sum(entry.amount_delta for entry in minute.entries) == 0
    assert minute.account.remaining_included_quota == opening.remaining_included_quota
    assert minute.account.current_balance == opening.current_balance


@many
@given(steps=STEPS, price=PRICES, target=PRICES)
def test_repricing_leads_to_what_rating_at_that_price_would_have_cost(
    steps: list[tuple[str, int | str]], price: str, target: str
) -> None:
    """Where the first price was wrong makes no difference, and a second time changes nothing."""
    minute = Minute(account(price=price))
    for step in steps:
        take(minute, step)
    minute.reprice(target)
    with localcontext(EXACT):
        for charge in standing_charges(minute.history().entries):
            assert charge.amount_delta == amount_of(charge.rated_bytes, Decimal(target), Decimal(1))
    assert minute.reprice(target) == []


@many
@given(steps=STEPS, is_charged=st.booleans(), shuffle=st.randoms())
def test_the_order_of_entries_is_known_from_their_ids(
    steps: list[tuple[str, int | str]], is_charged: bool, shuffle: Random
) -> None:
    """Their stamps may be out of order, as clocks can be set back."""
    minute = Minute(account(), is_charged=is_charged)
    for step in steps:
        take(minute, step)
    entries = prior_entries(minute.entries, minute.versions)
    shuffled = list(entries)
    shuffle.shuffle(shuffled)
    assert in_order(KEY, shuffled) == tuple(entries)


def take(minute: Minute, step: tuple[str, int | str]) -> None:
    """Take one of the steps that hypothesis makes up."""
    kind, argument = step
    if kind == "correct":
        minute.correct(int(argument))
    else:
        minute.reprice(str(argument))
