"""The daily maximum: what is charged of a day never exceeds it, and nothing below it is held."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.daily_maximum import Payer, above_maximum, amounts_of, payers
from billing_cli.core.model import Account, Bucket, BucketKey
from billing_cli.core.prices import Price
from billing_cli.core.rating import rate
from tests.unit.core.examples import examples

NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)
ACCOUNTS = ("a", "b")
PRICE = Price(Decimal("0.01"), Decimal(1), Decimal(1), Decimal(1))

BUCKETS = st.lists(
    st.builds(
        lambda hours, node, account, tag, size_bytes: Bucket(
            BucketKey(NOON + timedelta(hours=hours), node, account, "", tag), size_bytes, 0
        ),
        st.integers(0, 30),
        st.sampled_from(("n1", "n2")),
        st.sampled_from(ACCOUNTS),
        st.sampled_from(("x", "y")),
        st.integers(1, 10_000),
    ),
    unique_by=lambda bucket: bucket.key,
    max_size=30,
)
MAXIMUM = st.integers(1, 200).map(Decimal)


@examples()
@given(BUCKETS, MAXIMUM, MAXIMUM, st.integers(0, 20_000))
def test_what_is_charged_of_a_day_stays_within_every_maximum(
    buckets: list[Bucket], of_account: Decimal, of_node: Decimal, quota: int
) -> None:
    """Of the accounts and of the node that have one; taken over two runs as well as over one."""
    accounts = {one: Account(one, quota, Decimal(0), PRICE) for one in ACCOUNTS}
    maxima = {Payer("account", "a"): of_account, Payer("node", "n1"): of_node}
    charged: defaultdict[tuple[Payer, date], Decimal] = defaultdict(Decimal)
    for part in (buckets[::2], buckets[1::2]):
        above = above_maximum(part, accounts, charged, maxima)
        rating = rate([one for one in part if one.key not in above], accounts)
        accounts = dict(rating.accounts)
        for key, amount in amounts_of(rating.charges, maxima).items():
            charged[key] += amount
        for bucket in part:
            if bucket.key in above:
                assert any(one in maxima for one, _ in payers(bucket.key))
    assert all(amount <= maxima[payer] for (payer, _), amount in charged.items())


@examples()
@given(BUCKETS)
def test_nothing_is_held_that_stays_below(buckets: list[Bucket]) -> None:
    """All of it together costs less than each maximum."""
    accounts = {one: Account(one, 0, Decimal(0), PRICE) for one in ACCOUNTS}
    most = Decimal(sum(bucket.total_bytes for bucket in buckets) + 1)
    maxima = {Payer("account", one): most for one in ACCOUNTS}
    assert above_maximum(buckets, accounts, {}, maxima) == set()
