"""What accounts.svc.plus reads, after a day of traffic: its own queries give the truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.jobs.catch_up import catch_up
from billing_cli.simulator.accounts import save_funds, save_profile
from billing_cli.simulator.books import Books, Funds, money
from billing_cli.simulator.invariants import compare_with_oracle, violations
from billing_cli.simulator.oracle import Oracle
from tests.integration.jobs.world import FIRES_AT, serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from billing_cli.simulator.oracle import BucketName, Bytes
    from billing_cli.simulator.traffic import User
    from tests.integration.jobs.world import World
    from tests.support.postgres import Databases

DAY = 24 * 60
LIVE = 6
"""How many minutes at the end of the day are collected one by one."""

RATE = 20_000.0

READ_TOTALS = """
SELECT account_uuid::text, sum(total_bytes)::bigint, sum(uplink_bytes)::bigint,
       sum(downlink_bytes)::bigint, max(bucket_start)
  FROM public.traffic_minute_buckets GROUP BY account_uuid
"""
READ_BUCKETS = """
SELECT bucket_start, node_id, line_code, uplink_bytes, downlink_bytes, total_bytes
  FROM public.traffic_minute_buckets
 WHERE account_uuid = %s AND bucket_start >= %s AND bucket_start < %s
 ORDER BY bucket_start
"""
READ_NEWEST_ENTRIES = """
SELECT bucket_start, bucket_end, entry_type, rated_bytes, amount_delta, balance_after
  FROM public.billing_ledger WHERE account_uuid = %s
 ORDER BY created_at DESC LIMIT 20
"""
READ_QUOTA = """
SELECT remaining_included_quota, current_balance, arrears, throttle_state, suspend_state,
       last_rated_bucket_at
  FROM public.account_quota_states WHERE account_uuid = %s
"""
READ_PROFILE = """
SELECT package_name, included_quota_bytes, base_price_per_byte, line_multiplier
  FROM public.account_billing_profiles WHERE account_uuid = %s
"""
READ_SOURCES = """
SELECT source_id, last_completed_until, last_succeeded_at, last_error
  FROM public.billing_source_sync_state ORDER BY source_id
"""
READ_SYNC = """
SELECT (SELECT count(*) FROM public.traffic_stat_checkpoints),
       (SELECT count(*) FROM public.traffic_minute_buckets),
       (SELECT max(last_seen_at) FROM public.traffic_stat_checkpoints)
"""


@dataclass(frozen=True)
class Day:
    """A day that is over, what is stored of it, and what truly flowed."""

    world: World
    users: Sequence[User]
    funds: dict[str, Funds]
    prices: dict[str, Decimal]
    truth: dict[BucketName, Bytes]

    @property
    def until(self) -> datetime:
        """The end of the last minute that was closed at the last run, exclusive."""
        return self.world.at(DAY + 1)

    @property
    def end(self) -> datetime:
        """When the last run was."""
        return self.world.at(DAY + 1) + FIRES_AT

    def buckets_of(self, user: User) -> list[tuple[BucketName, Bytes]]:
        """Return what truly flowed for a user, in bucket order."""
        return sorted(
            (name, moved) for name, moved in self.truth.items() if name.account_uuid == user.uuid
        )

    def account_of(self, user: User) -> Account:
        """Return what a user's day must have come to."""
        balance, quota = self.funds[user.uuid]
        account = Account(quota, balance)
        for name, moved in self.buckets_of(user):
            account.pay(name, moved, self.prices[user.uuid])
        return account

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return what a query of accounts.svc.plus finds."""
        return self.world.rows(query, *parameters)


@dataclass
class Account:
    """What an account's day must have come to: the reader's view, computed from the truth alone."""

    quota: int
    balance: Decimal
    entries: list[tuple[Any, ...]] = field(default_factory=list)

    def pay(self, name: BucketName, moved: Bytes, price: Decimal) -> None:
        """Take the minute from the quota first, and charge the rest."""
        included = min(self.quota, sum(moved))
        rated = sum(moved) - included
        self.quota -= included
        amount = -(rated * price)
        self.balance += amount
        end = name.bucket_start + timedelta(minutes=1)
        self.entries.append((name.bucket_start, end, "traffic_charge", rated, amount, self.balance))


@pytest.fixture(scope="module")
def day(databases: Databases) -> Iterator[Day]:
    """Return a day that was caught up with in one go, and then collected minute by minute."""
    with (
        databases.database(migrated=True) as url,
        serving_world(url, databases.job_url(url)) as world,
    ):
        yield lived(world)


def lived(world: World) -> Day:
    """Let a day pass in which a counter restarts, an exporter is down and an account runs dry."""
    users = world.add_users(6)
    everywhere, by_proxy, profiled, poor, wealthy, idle = users
    jp = world.add_node("jp-1", [everywhere, profiled, poor, wealthy])
    us = world.add_node("us-1", [everywhere])
    jp.add_stream(everywhere.uuid, "grpc")
    jp.add_stream(idle.uuid, "xhttp", idle=True)
    us.add_stream(by_proxy.proxy_uuid)
    us.add_stream(profiled.uuid, "xhttp")
    funds = {
        profiled.uuid: Funds(world.balance, 300_000_000),
        poor.uuid: Funds(Decimal("0.1"), 0),
        wealthy.uuid: Funds(Decimal(100), 2**50),
    }
    save_funds(world.connection, funds)
    save_profile(
        world.connection,
        profiled.uuid,
        price_per_byte=5e-9,
        included_quota_bytes=300_000_000,
        line_multiplier=2.0,
    )
    jp.run(world.at(13 * 60) + timedelta(seconds=40), rate=RATE)
    jp.restart_xray(world.at(13 * 60) + timedelta(seconds=40))
    us.hide(world.at(9 * 60), world.at(9 * 60 + 20))
    for node in (jp, us):
        node.run(world.at(DAY + 1), rate=RATE)
    world.run_unchecked(world.at(DAY - LIVE) + FIRES_AT, catch_up)
    for minute in range(DAY - LIVE + 1, DAY + 2):
        world.run_unchecked(world.at(minute) + FIRES_AT)
    initial = Funds(world.balance, world.quota)
    return Day(
        world=world,
        users=users,
        funds={user.uuid: initial for user in users} | funds,
        prices={user.uuid: world.price for user in users} | {profiled.uuid: Decimal("1e-8")},
        truth=Oracle(world.fleet).bytes_by_bucket(world.at(DAY + 1)),
    )


def test_totals_are_what_flowed(day: Day) -> None:
    """Bytes by direction, and the last minute that has any, for each account with traffic."""
    expected = {}
    for user in day.users:
        buckets = day.buckets_of(user)
        if buckets:
            uplink = sum(moved.uplink for _, moved in buckets)
            downlink = sum(moved.downlink for _, moved in buckets)
            last = buckets[-1][0].bucket_start
            expected[user.uuid] = (uplink + downlink, uplink, downlink, last)
    assert {row[0]: row[1:] for row in day.rows(READ_TOTALS)} == expected
    assert len(expected) == len(day.users) - 1


def test_what_is_not_billed_is_known(day: Day) -> None:
    """Before the first snapshot, at the restart and after the last: each byte has its reason."""
    oracle = Oracle(day.world.fleet)
    unbilled = oracle.unbilled(day.until)
    assert {one.reason for one in unbilled} == {"reset", "unseen"}
    billed = sum(row[1] for row in day.rows(READ_TOTALS))
    assert billed + sum(sum(one.bytes) for one in unbilled) == sum(oracle.flowed())


@pytest.mark.parametrize(
    ("first_hour", "hours"), [(0, 24), (12, 3), (8, 2), (23.9, 0.1), (30, 1)], ids=str
)
def test_buckets_of_a_range_are_what_flowed_then(day: Day, first_hour: float, hours: float) -> None:
    """In the order of their minutes, also around the restart and the outage."""
    since = day.world.at(60 * first_hour)
    until = since + timedelta(hours=hours)
    for user in day.users:
        expected = [
            (name.bucket_start, name.stored_node_id, name.line_code, *moved, sum(moved))
            for name, moved in day.buckets_of(user)
            if since <= name.bucket_start < until
        ]
        found = day.rows(READ_BUCKETS, user.uuid, since, until)
        assert [row[0] for row in found] == [row[0] for row in expected]
        assert sorted(found) == expected


def test_the_newest_entries_are_the_last_minutes(day: Day) -> None:
    """The twenty newest by creation are the last twenty in bucket order, with their amounts."""
    for user in day.users:
        found = [
            (*row[:4], money(row[4]), money(row[5]))
            for row in day.rows(READ_NEWEST_ENTRIES, user.uuid)
        ]
        assert found == day.account_of(user).entries[:-21:-1]


def test_entries_are_in_order_over_the_whole_day(day: Day) -> None:
    """Not just the newest: the balance after each entry is that of the one before, and its own."""
    for user in day.users:
        found = [
            (*row[:4], money(row[4]), money(row[5]))
            for row in day.rows(READ_NEWEST_ENTRIES.replace("LIMIT 20", ""), user.uuid)
        ]
        assert found[::-1] == day.account_of(user).entries


def test_quota_and_balance_are_what_is_left(day: Day) -> None:
    """Quota is used first, arrears show, and nobody is suspended by us."""
    in_arrears = set()
    for user in day.users:
        account = day.account_of(user)
        rows = day.rows(READ_QUOTA, user.uuid)
        if not account.entries:
            assert rows == []
            continue
        ((quota, balance, arrears, throttle_state, suspend_state, last_rated),) = rows
        assert (quota, money(balance)) == (account.quota, account.balance)
        assert arrears == (account.balance < 0)
        assert throttle_state == ("throttled" if arrears else "normal")
        assert suspend_state == "active"
        assert last_rated == account.entries[-1][0]
        in_arrears |= {user.uuid} if arrears else set()
    assert day.users[3].uuid in in_arrears
    assert day.users[4].uuid not in in_arrears


def test_profiles_are_as_they_were(day: Day) -> None:
    """They are read and never written; accounts without one are given none."""
    profiles = {user.uuid: day.rows(READ_PROFILE, user.uuid) for user in day.users}
    assert profiles.pop(day.users[2].uuid) == [("simulated", 300_000_000, 5e-9, 2.0)]
    assert set(map(len, profiles.values())) == {0}


def test_sync_delay_is_the_age_of_the_last_snapshot_with_traffic(day: Day) -> None:
    """Checkpoints and buckets are as many as there are, and the newest is as new as can be."""
    accounts = {user.uuid: user.uuid for user in day.users}
    accounts |= {user.proxy_uuid: user.uuid for user in day.users}
    checkpoints = {
        (node.source_id, accounts[stream.name.sample_uuid])
        for node in day.world.fleet.nodes.values()
        for stream in node.streams
    }
    newest = max(
        later.collected_at
        for node in day.world.fleet.nodes.values()
        for earlier, later in pairwise(node.snapshots)
        if later.totals != earlier.totals and later.collected_at < day.until
    )
    assert day.rows(READ_SYNC) == [(len(checkpoints), len(day.truth), newest)]
    assert day.end - newest < timedelta(seconds=101)


def test_sources_are_in_step(day: Day) -> None:
    """Each one's progress is the stamp of its last snapshot of a closed minute."""
    expected = [
        (
            node.source_id,
            max(
                snapshot.collected_at
                for snapshot in node.snapshots
                if snapshot.collected_at < day.until
            ),
            day.end,
            "",
        )
        for node in sorted(day.world.fleet.nodes.values(), key=lambda one: one.source_id)
    ]
    assert day.rows(READ_SOURCES) == expected


def test_the_books_agree(day: Day) -> None:
    """All invariants hold over the whole day."""
    books = Books(day.funds, Funds(day.world.balance, day.world.quota))
    assert violations(day.world.connection, books) == []
    assert compare_with_oracle(day.world.connection, Oracle(day.world.fleet)) == []
