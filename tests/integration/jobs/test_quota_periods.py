"""Renewed quotas: minutes use the quota of their own period, whenever they are charged."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.migrate.job import migrate
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator import read_service
from billing_cli.simulator.books import Funds, read_funds
from billing_cli.simulator.oracle import Oracle

if TYPE_CHECKING:
    from datetime import datetime

    from tests.integration.jobs.world import Job, World
    from tests.support.postgres import Databases

MONTH = timedelta(days=30)

READ_INCLUDED = """
SELECT account_uuid::text, sum(included_bytes) FILTER (WHERE bucket_start < %s)::bigint,
       sum(included_bytes) FILTER (WHERE bucket_start >= %s)::bigint
  FROM billing.charges GROUP BY 1
"""


@pytest.fixture
def renewing(world: World, databases: Databases, database_url: str) -> World:
    """Return a world whose accounts service keeps quota periods."""
    read_service.add_period_columns(world.connection)
    migrate(database_url, grant_to=databases.job_role)
    return world


def test_a_backlog_across_a_renewal_uses_each_day_s_own_quota(renewing: World) -> None:
    """Two days are collected at once, a day after the renewal between them."""
    world, renewal = renewing, renewing.at(1440)
    world.add_node("jp-1", world.add_users(4))
    world.flow_until(5)
    world.collect_every_minute(2, 5)
    world.quota = 20_000_000
    world.flow_until(2880, poll_seconds=1800, rate=3e4)
    renew(world, renewal, 1_500_000_000)
    world.run(world.at(2882), catch_up)
    assert_exact(world, renewal, 20_000_000, 1_500_000_000)
    assert_audit_is_clean(world)


def test_a_renewal_that_becomes_visible_an_hour_late_is_exact(renewing: World) -> None:
    """Minutes since it began were charged to the old quota: some users are idle by now."""
    world, renewal = renewing, renewing.at(10)
    world.quota = 150_000_000
    node = world.add_node("jp-1", world.add_users(4))
    world.flow_until(70)
    for minute in range(3, 72, 5):
        world.run(world.at(minute))
    for stream in node.streams[:2]:
        stream.idle = True
    world.flow_until(74)
    renew(world, renewal, 200_000_000)
    world.run(world.at(76))
    assert_exact(world, renewal, 150_000_000, 200_000_000)
    before = world.tables("billing.charges", "public.billing_ledger", "billing.quota_periods")
    world.run(world.at(76))
    assert before == world.tables(*before)
    world.flow_until(90)
    world.run(world.at(92))
    assert_exact(world, renewal, 150_000_000, 200_000_000)
    assert_audit_is_clean(world)


def test_a_late_node_shares_the_former_quota_with_the_others(renewing: World) -> None:
    """A node out of reach across two renewals: each of its minutes finds the quota of its time."""
    world = renewing
    users = world.add_users(2)
    world.quota = 60_000_000
    world.add_node("jp-1", users)
    world.add_node("us-1", users, "tcp")
    world.flow_until(3)
    world.run(world.at(4))
    world.overrides["us-1"] = {"enabled": False}
    starts = [world.at(10), world.at(20)]
    for number, end in enumerate((12, 21, 30)):
        world.flow_until(end)
        if number:
            renew(world, starts[number - 1], 50_000_000)
        world.run(world.at(end + 1))
    del world.overrides["us-1"]
    world.run(world.at(34), catch_up)
    world.assert_all_is_billed()
    for start, quotas in ((starts[0], (60_000_000, None)), (starts[1], (None, 50_000_000))):
        for account, former, present in world.rows(READ_INCLUDED, start, start):
            used = bytes_by_period(world, start)[account]
            if quotas[0] is not None:
                assert former == min(quotas[0], used[0])
            if quotas[1] is not None:
                assert present == min(quotas[1], used[1])
    assert_audit_is_clean(world)


@pytest.mark.parametrize("job", [collect, reconcile], ids=lambda job: job.__name__)
def test_periods_that_were_there_before_change_nothing(renewing: World, job: Job) -> None:
    """After an update of the program in mid-period the stored quota is what our charges left."""
    world = renewing
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(8)
    world.run(world.at(6))
    world.connection.execute(
        "UPDATE public.account_quota_states SET period_start = %s", (world.at(2),)
    )
    funds = read_funds(world.connection)
    before = world.tables("billing.charges", "public.account_quota_states")
    world.run_unchecked(world.at(6), job)
    assert before == world.tables(*before)
    world.run_unchecked(world.at(10))
    changed = world.rows(
        "SELECT account_uuid::text, sum(amount_delta), -sum(included_bytes)::bigint"
        "  FROM billing.charges WHERE bucket_start >= %s GROUP BY 1",
        world.at(5),
    )
    assert read_funds(world.connection) == {
        account: Funds(funds[account].balance + amount, funds[account].quota + quota)
        for account, amount, quota in changed
    }
    assert_audit_is_clean(world)


def test_a_former_period_without_charges_has_its_whole_quota(renewing: World) -> None:
    """The first charges of accounts are those of a backlog across a renewal that is seen."""
    world, renewal = renewing, renewing.at(10)
    world.quota = 40_000_000
    world.add_node("jp-1", world.add_users(3))
    world.flow_until(1, rate=0)
    world.run(world.at(3))
    world.connection.execute(
        "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
        " current_balance, arrears, effective_at, updated_at)"
        " SELECT uuid, 0, %s, false, now(), now() FROM public.users",
        (world.balance,),
    )
    renew(world, renewal, 30_000_000)
    world.flow_until(20)
    world.run(world.at(22), catch_up)
    assert_exact(world, renewal, 40_000_000, 30_000_000)
    assert_audit_is_clean(world)


@pytest.mark.parametrize("start", [7, 8], ids=["within a period", "into the former period"])
def test_quota_that_a_correction_returns_covers_other_minutes_of_its_period(
    renewing: World, start: int
) -> None:
    """A late snapshot moves all that used a quota to minute 7, when that period is over."""
    world = renewing
    world.quota = 0
    node = world.add_node("jp-1", world.add_users(1))
    world.flow_until(6)
    world.run(world.at(6.7))
    renew(world, world.at(start), 1_000_000)
    world.flow_until(7)
    node.withhold(world.at(6.5), world.at(7.5), world.at(14))
    node.streams[0].idle = True
    world.flow_until(9)
    node.streams[0].idle = False
    world.flow_until(12)
    # The books are compared with the truth when the late snapshot is known.
    world.run_unchecked(world.at(12.7))
    renew(world, world.at(12), 2_000_000)
    world.flow_until(14)
    world.run_unchecked(world.at(14.7))
    assert world.run_unchecked(world.at(14.7), reconcile).corrections > 0
    ((included,),) = world.rows(
        "SELECT sum(included_bytes)::bigint FROM billing.charges"
        " WHERE bucket_start >= %s AND bucket_start < %s",
        world.at(start),
        world.at(12),
    )
    assert included == 1_000_000
    world.assert_all_is_billed()
    assert_audit_is_clean(world)


def test_a_renewal_leaves_minutes_of_earlier_periods_alone(renewing: World) -> None:
    """A minute two renewals back was charged since the last one began: its quota is used up."""
    world = renewing
    users = world.add_users(1)
    world.quota = 0
    near, late = world.add_node("jp-1", users), world.add_node("us-1", users, "tcp")
    world.flow_until(3)
    world.run(world.at(4))
    world.overrides["us-1"] = {"enabled": False}
    for end, quota in ((10, 10**12), (20, 5_000_000)):
        world.flow_until(end)
        world.run(world.at(end + 1))
        late.streams[0].idle = True
        renew(world, world.at(end), quota)
    world.flow_until(32)
    world.run(world.at(33))
    del world.overrides["us-1"]
    world.run(world.at(33), catch_up)
    before = world.rows(READ_INCLUDED, world.at(10), world.at(10))
    renew(world, world.at(30), 1_000_000)
    near.streams[0].idle = True
    world.flow_until(34)
    world.run(world.at(35))
    after = world.rows(READ_INCLUDED, world.at(10), world.at(10))
    assert [former for _, former, _ in after] == [former for _, former, _ in before]
    assert_audit_is_clean(world)


@pytest.mark.parametrize("left", [400_000_000, 50_000_000], ids=["more than used", "less"])
def test_a_period_that_begins_without_a_new_quota_takes_nothing_twice(
    renewing: World, left: int
) -> None:
    """A change of the plan keeps the quota: minutes before and after it share what is left."""
    world = renewing
    begin_first_period(world, left + 100_000_000)
    funds, charges = read_funds(world.connection), world.rows("SELECT * FROM billing.charges")
    move_period(world, world.at(10))
    world.run(world.at(20), collect)
    assert read_funds(world.connection) == funds
    assert world.rows("SELECT * FROM billing.charges") == charges
    world.flow_until(30)
    world.run(world.at(32))
    ((included,),) = world.rows("SELECT sum(included_bytes)::bigint FROM billing.charges")
    expected = sum(
        min(left + 100_000_000, before)
        for before, _ in bytes_by_period(world, world.at(100)).values()
    )
    assert included == expected
    renew(world, world.at(30), 200_000_000)
    world.flow_until(40)
    world.run(world.at(42))
    assert_exact(world, world.at(30), left + 100_000_000, 200_000_000)
    assert_audit_is_clean(world)


def begin_first_period(world: World, quota: int) -> None:
    """Let two users use the quota of a period that a run has seen, up to minute 14."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(2)
    world.run(world.at(3))
    renew(world, world.at(0), quota)
    world.run(world.at(3))
    world.flow_until(14)
    world.run(world.at(15.7))


def move_period(world: World, start: datetime) -> None:
    """Write the start of a period without a quota."""
    world.connection.execute(
        "UPDATE public.account_quota_states SET period_start = %s, period_end = %s",
        (start, start + MONTH),
    )


def renew(world: World, start: datetime, quota: int) -> None:
    """Renew the quotas of all accounts, as the read service does."""
    for user in world.fleet.users:
        read_service.renew_quota(world.connection, user.uuid, quota, start, start + MONTH)


def assert_exact(world: World, start: datetime, former_quota: int, quota: int) -> None:
    """Both periods used the smaller of quota and bytes; all else is paid, to the last nano."""
    world.assert_all_is_billed()
    included = {account: tuple(both) for account, *both in world.rows(READ_INCLUDED, start, start)}
    funds = read_funds(world.connection)
    for account, (before, since) in bytes_by_period(world, start).items():
        expected = min(former_quota, before), min(quota, since)
        assert included[account] == expected
        rated = before + since - sum(expected)
        balance = world.balance - rated * world.price
        assert funds[account] == Funds(balance, quota - expected[1])


def bytes_by_period(world: World, start: datetime) -> dict[str, tuple[int, int]]:
    """Return each account's bytes before a renewal, and those since."""
    used: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for bucket, moved in Oracle(world.fleet).bytes_by_bucket().items():
        before, since = used[bucket.account_uuid]
        total = moved.uplink + moved.downlink
        is_since = bucket.bucket_start >= start
        used[bucket.account_uuid] = (before + (not is_since) * total, since + is_since * total)
    return used


def assert_audit_is_clean(world: World) -> None:
    """Renewals and the charges of late minutes explain every change of a quota."""
    report = audit(world.context(world.at(10_000)))
    assert (report.violations, report.notices) == (0, 0), report.findings
