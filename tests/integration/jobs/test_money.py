"""What is charged, worked out a second time from the truth, in fractions."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.peak import PeakHours
from billing_cli.core.prices import NOT_CONFIGURED, TOO_LARGE
from billing_cli.errors import ConfigurationError
from billing_cli.features.migrate.job import migrate
from billing_cli.simulator.accounts import save_profile
from billing_cli.simulator.books import Funds, read_funds
from billing_cli.simulator.oracle import Oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.world import World
    from tests.support.postgres import Databases

    Price = Callable[[str, datetime], Fraction]

SAVE_MULTIPLIERS = """
UPDATE public.account_billing_profiles
   SET region_multiplier = %s, line_multiplier = %s, peak_multiplier = %s, offpeak_multiplier = %s
"""

READ_ARREARS = """
SELECT current_balance < 0, arrears, throttle_state, suspend_state, arrears_since
  FROM public.account_quota_states
"""


def test_quota_is_used_up_first_and_the_rest_is_rated(world: World) -> None:
    """The minute in which it runs out is split to the byte."""
    world.quota = 30_000_001
    play(world)
    assert_charged(world, lambda _account, _minute: Fraction(world.price))
    split = world.rows(
        "SELECT account_uuid FROM billing.charges WHERE included_bytes > 0 AND rated_bytes > 0"
    )
    assert len(split) == len(world.fleet.users)
    (left,) = world.rows("SELECT DISTINCT remaining_included_quota FROM account_quota_states")
    assert left == (0,)


@pytest.mark.parametrize("price", ["0.000000001234567891", "0.0000000005", "12.5", "0"])
def test_amounts_are_rounded_once_half_to_even(world: World, price: str) -> None:
    """To nine places, whatever the price; the balances are the exact sums."""
    world.quota, world.price = 0, Decimal(price)
    world.balance = Decimal("10.000000001") if price != "12.5" else Decimal(0)
    rate = 1e5 if price != "12.5" else 10
    play(world, rate=rate)
    assert_charged(world, lambda _account, _minute: Fraction(price))


def test_a_profile_s_price_and_quota_come_before_the_configured_ones(world: World) -> None:
    """Per account, where they are positive; what is 0 there is not said."""
    world.quota = 1_000_000
    first, second, third = (user.uuid for user in world.add_users(3))
    save_profile(world.connection, first, price_per_byte=7e-9, included_quota_bytes=25_000_000)
    save_profile(world.connection, second, price_per_byte=0, included_quota_bytes=0)
    play(world)
    configured = Fraction(world.price)
    prices = {first: Fraction(7, 10**9), second: configured, third: configured}
    assert_charged(
        world,
        lambda account, _minute: prices[account],
        {first: 25_000_000},
    )


@pytest.mark.parametrize(
    ("multipliers", "factor"),
    [
        ((1.5, 2.25, 9, 9), Fraction(27, 8)),
        ((0, -1, 9, 9), 1),
        ((0.1, 0.7, 0, 0), Fraction(7, 100)),
    ],
)
def test_region_and_line_multiply_the_price(
    world: World, multipliers: tuple[float, ...], factor: Fraction
) -> None:
    """Each counts as 1 where it is not positive; peak factors need peak hours."""
    world.quota = 0
    for user in world.add_users(2):
        save_profile(world.connection, user.uuid)
    world.connection.execute(SAVE_MULTIPLIERS.encode(), multipliers)
    play(world)
    assert_charged(world, lambda _account, _minute: Fraction(world.price) * factor)


def test_peak_hours_multiply_by_the_minute(world: World) -> None:
    """From 12:03 up to, not including, 12:05 the peak factor counts; before and after the other."""
    world.quota = 0
    hours = PeakHours(((time(12, 3), time(12, 5)),), UTC)
    world.tariff = replace(world.tariff, peak_hours=hours)
    for user in world.add_users(2):
        save_profile(world.connection, user.uuid)
    world.connection.execute(SAVE_MULTIPLIERS.encode(), (1, 1, 3, 0.5))
    play(world)
    peak = [world.at(3), world.at(4)]

    def price(_account: str, minute: datetime) -> Fraction:
        return Fraction(world.price) * (3 if minute in peak else Fraction(1, 2))

    assert_charged(world, price)


def test_a_top_up_between_two_runs_is_kept(world: World) -> None:
    """Money and quota that come in from elsewhere stay in, to the last nano."""
    world.quota, world.balance = 10_000_000, Decimal("0.05")
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.flow_until(8)
    world.collect_every_minute(1, 4)
    world.connection.execute(
        "UPDATE public.account_quota_states SET current_balance = current_balance + 0.25, "
        "remaining_included_quota = remaining_included_quota + 1000"
    )
    world.top_ups = {user.uuid: Funds(Decimal("0.25"), 1000) for user in users}
    world.collect_every_minute(5, 9)
    world.assert_all_is_billed()


def test_arrears_follow_the_balance(world: World) -> None:
    """Throttled below 0, normal again after a top-up; suspension is not ours to touch."""
    world.quota, world.balance = 0, Decimal("0.02")
    play(world)
    assert states(world) == {(True, True, "throttled", "active")}
    world.connection.execute(
        "UPDATE public.account_quota_states SET current_balance = 100, suspend_state = 'suspended'"
    )
    world.flow_until(12)
    world.run_unchecked(world.at(14))
    assert states(world) == {(False, False, "normal", "suspended")}


def test_arrears_since_is_kept_right_where_it_exists(
    world: World, databases: Databases, database_url: str
) -> None:
    """Set when the balance falls below 0, kept while it stays there, cleared when it does not."""
    world.connection.execute(
        "ALTER TABLE public.account_quota_states ADD arrears_since timestamptz, "
        "ADD period_start timestamptz DEFAULT now()"
    )
    migrate(database_url, grant_to=databases.job_role)
    world.quota, world.balance = 0, 5 * world.price
    node = world.add_node("jp-1", world.add_users(1))
    seen = []
    for minute in range(1, 9):
        node.flow(node.streams[0], 1, 1)
        world.flow_until(minute, rate=0)
        world.run(world.at(minute + 2))
        seen += [(row[0], row[4]) for row in world.rows(READ_ARREARS)]
    since = seen[-1][1]
    assert since is not None
    assert seen == [*[(False, None)] * 2, *[(True, since)] * 5]

    world.connection.execute("UPDATE public.account_quota_states SET current_balance = 100")
    world.flow_until(12)
    world.run_unchecked(world.at(14))
    assert world.rows(READ_ARREARS)[0][4] is None


def test_an_account_that_money_cannot_be_computed_with_waits(world: World) -> None:
    """A balance that is no number stops nobody else, and is charged for all when it is mended."""
    first, _ = world.add_users(2)
    world.add_node("jp-1", world.fleet.users)
    world.flow_until(8)
    world.run(world.at(5))
    good = read_funds(world.connection)[first.uuid]
    world.connection.execute(
        "UPDATE public.account_quota_states SET current_balance = 'NaN' WHERE account_uuid = %s",
        (first.uuid,),
    )
    result = world.run_unchecked(world.at(6))
    assert f"account {first.uuid} can't be charged: a balance of nan" in result.sources[0].notes
    assert result.sources[0].unresolved_streams == 1
    assert result.status == "partial"
    world.connection.execute(
        "UPDATE public.account_quota_states SET current_balance = %s WHERE account_uuid = %s",
        (good.balance, first.uuid),
    )
    world.unknown_buckets = True
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_an_account_without_a_price_waits(world: World) -> None:
    """Its usage stays pending and is reported; the others are charged, and it is once it can be."""
    first, second = world.add_users(2)
    world.price, world.quota = Decimal(0), 0
    world.tariff = replace(world.tariff, free_packages=frozenset({"trial"}))
    save_profile(world.connection, first.uuid, price_per_byte=7e-9)
    world.allow_zero_price = False
    world.add_node("jp-1", world.fleet.users)
    world.flow_until(8)
    world.run_unchecked(world.at(4))
    result = world.run_unchecked(world.at(6))
    assert result.status == "partial"
    assert result.sources[0].notes == (
        f"account {second.uuid} can't be charged: {NOT_CONFIGURED.reason}",
    )
    assert read_funds(world.connection)[second.uuid] == Funds(world.balance, 0)
    assert read_funds(world.connection)[first.uuid].balance < world.balance
    save_profile(world.connection, second.uuid, price_per_byte=0)
    world.connection.execute(
        "UPDATE public.account_billing_profiles SET package_name = 'trial'"
        " WHERE base_price_per_byte = 0"
    )
    world.unknown_buckets = True
    world.run(world.at(10))
    world.assert_all_is_billed()
    assert read_funds(world.connection)[second.uuid] == Funds(world.balance, 0)


def test_an_account_with_an_absurd_price_waits(world: World) -> None:
    """A price and a multiplier, each a million, come to amounts that no column of money holds."""
    first, second = world.add_users(2)
    save_profile(world.connection, first.uuid, price_per_byte=1e6)
    world.connection.execute(SAVE_MULTIPLIERS, (1e6, 1, 1, 1))
    world.add_node("jp-1", world.fleet.users)
    world.quota = 0
    world.flow_until(8, rate=1e8)
    result = world.run_unchecked(world.at(6))
    assert result.status == "partial"
    assert result.sources[0].notes == (
        f"account {first.uuid} can't be charged: {TOO_LARGE.reason}",
    )
    assert read_funds(world.connection)[first.uuid] == Funds(world.balance, 0)
    assert read_funds(world.connection)[second.uuid].balance < world.balance
    save_profile(world.connection, first.uuid, price_per_byte=7e-9)
    world.connection.execute(SAVE_MULTIPLIERS, (1, 1, 1, 1))
    world.unknown_buckets = True
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_without_any_price_nothing_is_written(world: World) -> None:
    """Neither configured nor in a profile: the run says what to set, and leaves no trace."""
    (first,) = world.add_users(1)
    world.price, world.allow_zero_price = Decimal(0), False
    save_profile(world.connection, first.uuid, price_per_byte=0)
    world.add_node("jp-1", world.fleet.users)
    world.flow_until(8)
    for price in (0.0, math.nan, math.inf, -1.0):
        world.connection.execute(
            "UPDATE public.account_billing_profiles SET base_price_per_byte = %s", [price]
        )
        with pytest.raises(ConfigurationError, match=r"no account has a price: set PRICE_PER_BYTE"):
            world.run_unchecked(world.at(4))
    assert world.rows("SELECT 1 FROM billing.sources") == []


def play(world: World, rate: float = 1e5) -> None:
    """Bill eight minutes of the world's users on one node, in several runs."""
    if not world.fleet.users:
        world.add_users(2)
    world.add_node("jp-1", world.fleet.users)
    world.flow_until(8, rate=rate)
    world.collect_every_minute(1, 4)
    world.collect_every_minute(8, 9)
    world.assert_all_is_billed()


def assert_charged(world: World, price: Price, quotas: dict[str, int] | None = None) -> None:
    """Every account has what is left after paying for each of its minutes in turn."""
    quota = defaultdict(lambda: world.quota, quotas or {})
    nanos: defaultdict[str, int] = defaultdict(lambda: int(world.balance * 10**9))
    for bucket, moved in sorted(Oracle(world.fleet).bytes_by_bucket().items()):
        account, total = bucket.account_uuid, moved.uplink + moved.downlink
        included = min(quota[account], total)
        quota[account] -= included
        # Python rounds a fraction half to even.
        nanos[account] -= round((total - included) * price(account, bucket.bucket_start) * 10**9)
    expected = {
        account: Funds(Decimal(amount).scaleb(-9), quota[account])
        for account, amount in nanos.items()
    }
    assert read_funds(world.connection) == expected


def states(world: World) -> set[tuple[object, ...]]:
    """Return the different states that accounts are in."""
    return set(world.rows(READ_ARREARS.replace(", arrears_since", "")))
