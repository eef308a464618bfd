"""Money adds up: for any buckets, quotas, prices and balances."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import MAX_TOTAL, Account, Bucket, BucketKey, Price
from billing_cli.core.prices import PriceList, ProfileRow, price_of
from billing_cli.core.rating import balance_of, rate
from tests.unit.core.examples import examples
from tests.unit.core.stories import NOON
from tests.unit.core.tariffs import ALICE_UUID, BOB_UUID

if TYPE_CHECKING:
    from random import Random

NANOS_PER_UNIT = 10**9

byte_counts = st.one_of(
    st.integers(0, 5_000), st.integers(0, 10**12), st.just(2**53 + 1), st.just(MAX_TOTAL)
)
stored_figures = st.one_of(
    st.none(), st.floats(-1, 1_000), st.sampled_from([0.0, 0.1, 1.5, 1e-9, 3e-10, 5e-324])
)
prices = st.builds(
    price_of,
    st.builds(ProfileRow, st.none(), *[stored_figures] * 5),
    st.builds(
        PriceList,
        st.sampled_from([Decimal(0), Decimal("1e-9"), Decimal("2.5e-10"), Decimal("0.37")]),
        allow_zero_price=st.just(True),
    ),
).filter(lambda found: isinstance(found, Price))
balances = st.integers(-(10**24) + 1, 10**24 - 1).map(lambda nanos: Decimal(nanos).scaleb(-9))
quotas = st.one_of(st.integers(0, 10_000), st.integers(0, MAX_TOTAL), st.integers(-5, 0))
keys = st.builds(
    BucketKey,
    st.integers(0, 5).map(lambda minute: NOON + timedelta(minutes=minute)),
    st.sampled_from(["prod:jp-1", "test:jp-1"]),
    st.sampled_from([ALICE_UUID, BOB_UUID]),
    st.sampled_from(["", "jp"]),
    st.sampled_from(["", "xhttp"]),
)
bucket_lists = st.lists(
    st.builds(Bucket, keys, byte_counts, st.integers(0, 3)),
    max_size=12,
    unique_by=lambda one: one.key,
)


def accounts_of(quota_balance_price: tuple[tuple[int, Decimal, Price], ...]) -> dict[str, Account]:
    """Return both accounts with the drawn figures."""
    return {
        account_uuid: Account(account_uuid, *figures)
        for account_uuid, figures in zip((ALICE_UUID, BOB_UUID), quota_balance_price, strict=True)
    }


figures = st.tuples(quotas, balances, prices)
account_pairs = st.tuples(figures, figures).map(accounts_of)


@examples()
@given(bucket_lists, account_pairs)
def test_every_byte_is_either_included_or_rated(
    buckets: list[Bucket], accounts: dict[str, Account]
) -> None:
    """Each bucket has one charge, and its two parts are the bucket's bytes."""
    charges = rate(buckets, accounts).charges
    assert {charge.key: charge.included_bytes + charge.rated_bytes for charge in charges} == {
        bucket.key: bucket.total_bytes for bucket in buckets
    }
    assert len(charges) == len(buckets)


@examples()
@given(bucket_lists, account_pairs)
def test_a_balance_changes_by_the_sum_of_its_charges(
    buckets: list[Bucket], accounts: dict[str, Account]
) -> None:
    """To the ninth decimal, and from each charge to the next."""
    rating = rate(buckets, accounts)
    balance = {account_uuid: one.current_balance for account_uuid, one in accounts.items()}
    for charge in rating.charges:
        account_uuid = charge.key.account_uuid
        assert charge.balance_before == balance[account_uuid]
        assert Fraction(charge.balance_after) == Fraction(charge.balance_before) + Fraction(
            charge.amount_delta
        )
        balance[account_uuid] = charge.balance_after
    assert balance == {uuid: one.current_balance for uuid, one in rating.accounts.items()}


@examples()
@given(bucket_lists, account_pairs)
def test_a_quota_is_used_up_first_and_never_overdrawn(
    buckets: list[Bucket], accounts: dict[str, Account]
) -> None:
    """What is included is the lesser of quota and bytes, whatever the buckets are."""
    rating = rate(buckets, accounts)
    total, included = Counter[str](), Counter[str]()
    for bucket in buckets:
        total[bucket.key.account_uuid] += bucket.total_bytes
    for charge in rating.charges:
        assert charge.included_bytes >= 0
        assert charge.rated_bytes >= 0
        included[charge.key.account_uuid] += charge.included_bytes
    for account_uuid, before in accounts.items():
        quota = before.remaining_included_quota
        assert included[account_uuid] == min(max(quota, 0), total[account_uuid])
        left = rating.accounts[account_uuid].remaining_included_quota
        assert left == quota - included[account_uuid]
        assert left >= min(quota, 0)


@examples()
@given(bucket_lists, account_pairs, st.randoms(use_true_random=False))
def test_the_order_of_buckets_does_not_matter(
    buckets: list[Bucket], accounts: dict[str, Account], random: Random
) -> None:
    """Charges come in key order, whatever order the buckets came in."""
    shuffled = list(buckets)
    random.shuffle(shuffled)
    rating = rate(buckets, accounts)
    assert rate(shuffled, accounts) == rating
    assert [charge.key for charge in rating.charges] == sorted(bucket.key for bucket in buckets)


@examples()
@given(bucket_lists, account_pairs)
def test_an_amount_is_the_exact_product_rounded_once(
    buckets: list[Bucket], accounts: dict[str, Account]
) -> None:
    """Fractions, which never round, agree; an amount is never positive and has 9 decimals."""
    for charge in rate(buckets, accounts).charges:
        paid = accounts[charge.key.account_uuid].price
        assert (charge.price_per_byte, charge.multiplier) == (paid.per_byte, paid.multiplier)
        exact = charge.rated_bytes * Fraction(paid.per_byte) * Fraction(paid.multiplier)
        # Fractions round half to even as well.
        nanos = round(exact * NANOS_PER_UNIT)
        assert Fraction(charge.amount_delta) == Fraction(-nanos, NANOS_PER_UNIT)
        assert charge.amount_delta.as_tuple().exponent == -9
        assert charge.amount_delta.is_signed() == (nanos > 0)


@examples(400)
@given(st.integers(1 - 10**15, 10**15 - 1))
def test_balances_below_a_million_survive_a_double(nanos: int) -> None:
    """15 digits pass through the shared DOUBLE PRECISION column and back without a change."""
    balance = Decimal(nanos).scaleb(-9)
    assert balance_of(float(balance)) == balance


@examples()
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_balance_is_read_or_refused(value: float) -> None:
    """Every double below the largest balance is an amount within half a nano of it."""
    if abs(value) < 1e15:
        assert abs(Fraction(balance_of(value)) - Fraction(repr(value))) * 2 <= Fraction(1, 10**9)
    else:
        try:
            balance_of(value)
        except ValueError:
            return
        raise AssertionError(f"{value} was read")
