"""Flags of arrears: ours come and go with the balance, those of other services stay."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

READ_FLAGS = """
SELECT arrears, throttle_state, arrears_since IS NOT NULL FROM account_quota_states
 WHERE account_uuid = %s
"""
READ_RECORD = "SELECT since > '2025-01-01Z', cleared_at FROM billing.arrears"
TOP_UP = "UPDATE account_quota_states SET current_balance = %s WHERE account_uuid = %s"


@pytest.fixture(autouse=True)
def newer_deployment(world: World) -> None:
    """Let quota states keep the start of arrears; every byte has to be paid."""
    world.connection.execute("ALTER TABLE account_quota_states ADD arrears_since timestamptz")
    grant = "GRANT UPDATE (arrears_since) ON account_quota_states TO {}"
    role = str(conninfo_to_dict(world.database_url)["user"])
    world.connection.execute(grant.format(role).encode())
    world.quota, world.balance, world.price = 0, Decimal(1), Decimal(1)


def test_a_balance_below_zero_sets_the_flag_and_a_top_up_clears_it_without_traffic(
    world: World,
) -> None:
    """The next run sees that the balance is 0 again, whether or not the account moved."""
    (user,) = world.add_users(1)
    node = world.add_node("jp-1", [user])
    world.flow_until(4)
    world.run_unchecked(world.at(6))
    assert world.rows(READ_FLAGS, user.uuid) == [(True, "throttled", True)]

    node.streams[0].idle = True
    world.connection.execute(TOP_UP, (0, user.uuid))
    world.flow_until(8)
    world.run_unchecked(world.at(10))

    assert world.rows(READ_FLAGS, user.uuid) == [(False, "normal", False)]


def test_a_run_with_nothing_new_clears_our_flag(world: World) -> None:
    """Also where no source has a snapshot."""
    (user,) = world.add_users(1)
    world.add_node("jp-1", [user])
    world.flow_until(4)
    world.run_unchecked(world.at(5))
    world.connection.execute(TOP_UP, (3, user.uuid))
    world.run_unchecked(world.at(5))
    assert world.rows(READ_FLAGS, user.uuid) == [(False, "normal", False)]


def test_a_flag_of_another_service_stays(world: World) -> None:
    """A payment failed while the balance was positive: nothing that we charged caused that."""
    world.balance = Decimal(10**12)
    (user,) = world.add_users(1)
    world.add_node("jp-1", [user])
    world.flow_until(8)
    world.run_unchecked(world.at(4))
    world.connection.execute(
        "UPDATE account_quota_states SET arrears = true, throttle_state = 'throttled',"
        " arrears_since = now() WHERE account_uuid = %s",
        (user.uuid,),
    )
    for minute in (6, 9):
        world.run_unchecked(world.at(minute))
        assert world.rows(READ_FLAGS, user.uuid) == [(True, "throttled", True)]


@pytest.mark.parametrize("column", ["arrears_since", "no column"])
def test_a_flag_of_another_service_stays_though_a_charge_used_up_the_balance(
    world: World, column: str
) -> None:
    """It was there before the charge; a top-up does not pay what it was raised for."""
    if column == "no column":
        world.connection.execute("ALTER TABLE account_quota_states DROP arrears_since")
    read = READ_FLAGS.replace("arrears_since IS NOT NULL", "true")
    (user,) = world.add_users(1)
    node = world.add_node("jp-1", [user])
    world.connection.execute(
        "INSERT INTO account_quota_states (account_uuid, remaining_included_quota,"
        " current_balance, arrears, throttle_state, suspend_state, effective_at)"
        " VALUES (%s, 0, 1, true, 'throttled', 'active', now())",
        (user.uuid,),
    )
    if column == "arrears_since":
        world.connection.execute("UPDATE account_quota_states SET arrears_since = '2020-01-01Z'")
    world.flow_until(8)
    for minute in (4, 6):
        world.run_unchecked(world.at(minute))
        assert world.rows(read, user.uuid) == [(True, "throttled", True)]
    node.streams[0].idle = True
    world.connection.execute(TOP_UP, (5, user.uuid))
    world.run_unchecked(world.at(7))
    world.run_unchecked(world.at(7))
    assert world.rows(read, user.uuid) == [(True, "throttled", True)]
    if column == "arrears_since":
        since = world.rows("SELECT arrears_since < '2025-01-01Z' FROM account_quota_states")
        assert since == [(True,)]


def test_a_flag_that_another_service_took_back_is_ours_when_it_is_set_again(world: World) -> None:
    """The balance was below 0 all the while."""
    (user,) = world.add_users(1)
    node = world.add_node("jp-1", [user])
    world.flow_until(10)
    world.run_unchecked(world.at(4))
    world.connection.execute("UPDATE billing.arrears SET is_flag_ours = false")
    world.connection.execute(
        "UPDATE account_quota_states SET arrears = false, throttle_state = 'normal'"
    )
    world.run_unchecked(world.at(6))
    assert world.rows(READ_FLAGS, user.uuid) == [(True, "throttled", True)]
    node.streams[0].idle = True
    world.connection.execute(TOP_UP, (5, user.uuid))
    world.run_unchecked(world.at(6))
    assert world.rows(READ_FLAGS, user.uuid) == [(False, "normal", False)]


def test_arrears_begin_anew_after_a_top_up(world: World) -> None:
    """The time in which the balance was positive does not count."""
    (user,) = world.add_users(1)
    world.add_node("jp-1", [user])
    world.flow_until(8)
    world.run_unchecked(world.at(4))
    world.connection.execute(
        "UPDATE account_quota_states SET arrears_since = '2020-01-01Z', current_balance = 1"
    )
    world.run_unchecked(world.at(9))
    assert world.rows(READ_FLAGS, user.uuid) == [(True, "throttled", True)]
    assert world.rows("SELECT arrears_since > '2025-01-01Z' FROM account_quota_states") == [(True,)]


def test_arrears_begin_anew_after_a_top_up_without_that_column(world: World) -> None:
    """Our own record begins anew, also where the next run uses up the top-up."""
    world.connection.execute("ALTER TABLE account_quota_states DROP arrears_since")
    (user,) = world.add_users(1)
    world.add_node("jp-1", [user])
    world.flow_until(12)
    world.run_unchecked(world.at(4))
    world.connection.execute("UPDATE billing.arrears SET since = '2020-01-01Z'")
    world.run_unchecked(world.at(6))
    assert world.rows(READ_RECORD) == [(False, None)]
    world.connection.execute("UPDATE account_quota_states SET current_balance = 1")
    world.run_unchecked(world.at(9))
    assert world.rows(READ_RECORD) == [(True, None)]


def test_a_column_that_came_after_the_grants_is_left_alone(world: World) -> None:
    """The role of the jobs may not change it until `migrate --grant-to` is run again."""
    world.connection.execute("ALTER TABLE account_quota_states DROP arrears_since")
    world.connection.execute("ALTER TABLE account_quota_states ADD arrears_since timestamptz")
    (user,) = world.add_users(1)
    world.add_node("jp-1", [user])
    world.flow_until(4)
    world.run_unchecked(world.at(6))
    assert world.rows(READ_FLAGS, user.uuid) == [(True, "throttled", False)]
