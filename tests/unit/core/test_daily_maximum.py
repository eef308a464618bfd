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


def bucket(tag: str, size_bytes: int, *, hours: int = 0, account: str = "a") -> Bucket:
    """Return a bucket of node n1."""
    key = BucketKey(NOON + timedelta(hours=hours), "n1", account, "", tag)
    return Bucket(key, size_bytes, 0)


def held(
    buckets: list[Bucket], maximum: str, charged: str = "0", quota: int = 0, kind: str = "account"
) -> list[str]:
    """Return the tags of what is held; the day had `charged` before."""
    payer = Payer(kind, {"account": "a", "node": "n1"}[kind])  # type: ignore[arg-type]
    accounts = {one: Account(one, quota, Decimal(0), PRICE) for one in ACCOUNTS}
    before = {(payer, NOON.date()): Decimal(charged)}
    above = above_maximum(buckets, accounts, before, {payer: Decimal(maximum)})
    return sorted(key.line_code for key in above)


def test_a_maximum_can_be_reached_and_not_exceeded() -> None:
    """By a cent; what is held makes no room, and what is smaller may still be charged."""
    for kind in ("account", "node"):
        assert held([bucket("x", 100)], "1", kind=kind) == []
        assert held([bucket("x", 101)], "1", kind=kind) == ["x"]
        assert held([bucket("x", 1)], "1", charged="1", kind=kind) == ["x"]
    assert held([bucket("x", 60), bucket("y", 50), bucket("z", 40)], "1") == ["y"]


def test_what_is_held_uses_no_quota() -> None:
    """The quota is there for what comes after it."""
    assert held([bucket("x", 500), bucket("y", 200)], "1", quota=100) == ["x"]
    assert held([bucket("x", 500), bucket("y", 201)], "1", quota=100) == ["x", "y"]


def test_what_costs_nothing_is_never_held() -> None:
    """Whatever the day had before."""
    assert held([bucket("x", 100)], "1", charged="5", quota=100) == []


def test_each_utc_day_and_payer_has_its_own_sum() -> None:
    """The next day begins with nothing; another account has no limit."""
    assert held([bucket("x", 100), bucket("y", 100, hours=12)], "1") == []
    assert held([bucket("x", 100), bucket("y", 999, account="b")], "1") == []
    assert held([bucket("x", 100), bucket("y", 1, account="b")], "1", kind="node") == ["y"]


def test_amounts_are_positive_and_of_payers_with_a_maximum() -> None:
    """Summed by day; what cost nothing is left out."""
    accounts = {one: Account(one, 0, Decimal(0), PRICE) for one in ACCOUNTS}
    buckets = [bucket("x", 100), bucket("y", 50), bucket("z", 7, account="b"), bucket("w", 0)]
    buckets.append(bucket("x", 0, hours=12))
    charges = rate([*buckets], accounts).charges
    day = NOON.date()
    account, node = Payer("account", "a"), Payer("node", "n1")
    assert amounts_of(charges, {account: Decimal(1)}) == {(account, day): Decimal("1.5")}
    assert amounts_of(charges, {node: Decimal(1)}) == {(node, day): Decimal("1.57")}
