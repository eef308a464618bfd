from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.simulator import read_service
from billing_cli.simulator.accounts import save_funds, save_users
from billing_cli.simulator.books import Funds, read_funds
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import User

    Connection = psycopg.Connection[dict[str, Any]]

START = Fleet().start
READ_ENTRIES = "SELECT entry_type, amount_delta, balance_after FROM public.billing_ledger"
COUNT_UNLOCKED = """
SELECT count(*)
  FROM (SELECT 1 FROM public.account_quota_states FOR UPDATE SKIP LOCKED) AS unlocked
"""
READ_USERS = "SELECT uuid::text, proxy_uuid::text, active FROM public.users ORDER BY email"


@pytest.fixture
def users(connection: Connection) -> list[User]:
    """Return two accounts, each with 5.00 and a quota of 100 bytes."""
    fleet = Fleet()
    users = [fleet.add_user(), fleet.add_user()]
    save_users(connection, users)
    save_funds(connection, {user.uuid: Funds(Decimal(5), 100) for user in users})
    return users


def test_a_top_up_is_a_ledger_row_and_then_the_balance(
    connection: Connection, users: list[User]
) -> None:
    """Between its two statements the row is there and the balance is not."""
    account = users[0].uuid
    read_service.record_entry(connection, account, "topup", Decimal(3), START)
    assert entries(connection) == [("topup", 3.0, 8.0)]
    assert balance(connection, account) == Decimal(5)
    read_service.change_balance(connection, account, Decimal(3))
    assert balance(connection, account) == Decimal(8)
    read_service.top_up(connection, account, Decimal(-1), START)
    assert entries(connection)[1:] == [("topup", -1.0, 7.0)]
    assert balance(connection, account) == Decimal(7)


def test_a_stale_row_undoes_what_came_between(connection: Connection, users: list[User]) -> None:
    """A handler that writes back the whole row takes a charge back without a trace."""
    account = users[0].uuid
    stale = read_service.read_row(connection, account)
    read_service.change_balance(connection, account, Decimal(-2))
    stale.write_back(connection, remaining_included_quota=7)
    assert read_funds(connection)[account] == Funds(Decimal(5), 7)
    assert read_funds(connection)[users[1].uuid] == Funds(Decimal(5), 100)


def test_a_renewal_begins_a_period_with_its_quota(
    connection: Connection, users: list[User]
) -> None:
    """The quota and both ends of the period change in one statement."""
    account, end = users[0].uuid, START + timedelta(days=30)
    read_service.add_period_columns(connection)
    read_service.renew_quota(connection, account, 900, START, end)
    row = read_service.read_row(connection, account).values
    assert (row["remaining_included_quota"], row["period_start"], row["period_end"]) == (
        900,
        START,
        end,
    )


def test_an_account_is_deleted_with_its_rows_and_created_again(
    connection: Connection, users: list[User]
) -> None:
    """The uuid is the same, the quota state is gone."""
    read_service.delete_account(connection, users[0].uuid)
    assert list(read_funds(connection)) == [users[1].uuid]
    with pytest.raises(LookupError, match="no quota state"):
        read_service.read_row(connection, users[0].uuid)
    read_service.add_account(connection, users[0])
    assert [row[0] for row in known(connection)] == [user.uuid for user in users]


def test_a_proxy_uuid_moves_to_another_account(connection: Connection, users: list[User]) -> None:
    """The giver has a new one, and the taker's former one is remembered."""
    giver, taker = users
    moved, former, new = giver.proxy_uuid, taker.proxy_uuid, Fleet(seed=9).new_uuid()
    read_service.move_proxy(connection, giver, taker, new)
    assert [row[1] for row in known(connection)] == [new, moved]
    assert taker.former_proxy_uuids == [former]


def test_rows_may_be_spoiled_and_accounts_suspended(
    connection: Connection, users: list[User]
) -> None:
    """One account's row has no balance, the other one's is NaN; one of them is not let in."""
    read_service.set_column(connection, users[0].uuid, "current_balance", None)
    read_service.set_column(connection, users[1].uuid, "current_balance", float("nan"))
    assert read_service.read_row(connection, users[0].uuid).values["current_balance"] is None
    found = read_service.read_row(connection, users[1].uuid).values["current_balance"]
    assert found != found  # noqa: PLR0124 -- what NaN is known by
    read_service.set_active(connection, users[0].uuid, is_active=False)
    assert known(connection)[0][2] is False


def test_a_locked_row_stays_locked_until_the_transaction_ends(
    connection: Connection, users: list[User], database_url: str
) -> None:
    """Others find the row locked as long as the stuck session lives."""
    with psycopg.connect(database_url) as stuck:
        read_service.lock_row(stuck, users[0].uuid)
        assert connection.execute(COUNT_UNLOCKED).fetchone() == {"count": 1}
    assert connection.execute(COUNT_UNLOCKED).fetchone() == {"count": 2}


def balance(connection: Connection, account: str) -> Decimal:
    """Return an account's balance."""
    return read_funds(connection)[account].balance


def entries(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the ledger."""
    return [tuple(row.values()) for row in connection.execute(READ_ENTRIES)]


def known(connection: Connection) -> list[tuple[Any, ...]]:
    """Return uuid, proxy uuid and activity of the accounts, in the order of their names."""
    return [tuple(row.values()) for row in connection.execute(READ_USERS)]
