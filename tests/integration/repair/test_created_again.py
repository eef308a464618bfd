"""Stale writes on an account that was deleted and created again with the same uuid.

What its deletion cascaded to is missed nowhere. What was charged since, and a write without a
ledger row gave back, is lost.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator import read_service
from billing_cli.simulator.accounts import save_users
from tests.support.neighbour import add_row, add_to_balance, stale_write

if TYPE_CHECKING:
    from tests.integration.repair.conftest import Customer


def create_again(customer: Customer, balance: int = 5) -> None:
    """Delete the account, and create it with this balance."""
    read_service.delete_account(customer.connection, customer.uuid)
    save_users(customer.connection, [customer.user])
    customer.connection.execute(
        "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
        " current_balance, arrears, effective_at) VALUES (%s, %s, %s, false, now())",
        (customer.uuid, customer.story.quota, balance),
    )


def kinds(customer: Customer) -> dict[str, int]:
    """Return what an audit finds beside that the account was created again."""
    counts = dict(customer.audit().counts)
    assert counts.pop("account_recreated") == 1
    return counts


def require_repaired(customer: Customer, amount: int) -> None:
    """Require that one repair takes so much, and that a second one finds nothing to do."""
    result = customer.repair()
    assert (result.corrections, result.amount) == (1, amount)
    assert customer.repair().corrections == 0


@pytest.mark.parametrize("before", [1, 2, 4])
def test_a_charge_that_is_lost_after_it_is_repaired_once(customer: Customer, before: int) -> None:
    """Whatever the former account had left: also the same as the stale row."""
    customer.use(before)
    create_again(customer)
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(2)

    assert kinds(customer) == {"charge_lost": 1}
    require_repaired(customer, 2)

    assert customer.funds.balance == 2
    assert kinds(customer) == {}


def test_a_top_up_with_it_does_not_hide_a_lost_charge(customer: Customer) -> None:
    """Its row explains the balance of the present account only."""
    customer.use(4)
    create_again(customer)
    customer.use(1)
    top_up = Decimal(3)
    with stale_write(customer.connection, customer.uuid, top_up):
        add_row(customer.connection, customer.uuid, top_up)
        customer.use(2)

    assert kinds(customer) == {"charge_lost": 1}
    require_repaired(customer, 2)

    assert customer.funds.balance == 5
    assert kinds(customer) == {}


@pytest.mark.parametrize(
    ("former", "amount"),
    [
        pytest.param(5, 2, id="as the new one begins"),
        pytest.param(4, 1, id="less: only a part of the charge came back"),
    ],
)
def test_a_row_of_before_it_gives_back_what_was_charged_since(
    customer: Customer, former: int, amount: int
) -> None:
    """Repair takes what the stale write gave back, and no more."""
    if former == 4:
        customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        if former == 5:
            customer.use(1)
        create_again(customer)
        customer.use(2)
    assert customer.funds.balance == former

    assert kinds(customer) == {"charge_lost": 1}
    require_repaired(customer, amount)

    assert customer.funds.balance == 3
    assert kinds(customer) == {}


def test_what_a_row_of_before_it_adds_beyond_the_charges_is_a_notice(customer: Customer) -> None:
    """It is not ours to take."""
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        create_again(customer, balance=1)
        customer.use(2)
    assert kinds(customer) == {"charge_lost": 1, "balance_outside": 1}

    require_repaired(customer, 2)

    assert customer.funds.balance == 2
    assert kinds(customer) == {"balance_outside": 1}


def test_a_row_of_before_it_that_takes_money_is_a_notice(customer: Customer) -> None:
    """No charge came back by it."""
    customer.use(3)
    with stale_write(customer.connection, customer.uuid):
        create_again(customer)
        customer.use(1)

    assert kinds(customer) == {"balance_outside": 1}
    assert customer.repair().corrections == 0


def test_a_stale_write_before_the_first_charge_cannot_be_told(customer: Customer) -> None:
    """It may be the balance that the account was created with."""
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        create_again(customer)
    assert kinds(customer) == {}

    customer.use(2)

    assert customer.funds.balance == 2
    assert kinds(customer) == {}
    assert customer.repair().corrections == 0


def test_a_change_to_a_balance_that_it_never_had_is_a_notice(customer: Customer) -> None:
    """Neither the former account nor the present one had it."""
    customer.use(1)
    create_again(customer)
    customer.use(2)
    add_to_balance(customer.connection, customer.uuid, Decimal("0.5"))

    assert kinds(customer) == {"balance_outside": 1}
    assert customer.repair().corrections == 0


def test_a_repair_of_before_it_is_not_lost(customer: Customer) -> None:
    """The new account has the balance from before the repair, as every new one has."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
    customer.repair()
    create_again(customer)

    assert kinds(customer) == {}
    assert customer.repair().corrections == 0


def test_an_included_quota_of_before_it_is_taken_back_as_well(customer: Customer) -> None:
    """As far as charges took it since."""
    customer.story.quota = 5_000
    create_again(customer)
    customer.use(2)
    with stale_write(customer.connection, customer.uuid):
        create_again(customer)
        customer.use(4)
    assert (customer.funds.balance, customer.funds.quota) == (5, 3_000)
    assert kinds(customer) == {"charge_lost": 1}

    assert customer.repair().corrections == 1

    assert customer.funds.quota == 1_000
    assert kinds(customer) == {}
