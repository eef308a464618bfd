"""Accounts whose last charge or refund left exactly the balance that they began with."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.database.balances import read_changes_of
from billing_cli.features.reverse.job import Order, reverse
from tests.support.guards import without_guards
from tests.support.neighbour import add_row, add_to_balance, stale_write

if TYPE_CHECKING:
    from tests.integration.repair.conftest import Customer


def kinds(customer: Customer) -> dict[str, int]:
    """Return what an audit of all and one of the account find, which is the same."""
    everything = dict(customer.audit().counts)
    assert dict(customer.audit(account=customer.uuid).counts) == everything
    return everything


def give_back(customer: Customer) -> None:
    """Take back all that was charged."""
    story = customer.story
    reverse(story.context(), Order("jp-1", story.now - timedelta(hours=2), None, None, "outage"))
    assert customer.funds.balance == 5


@pytest.mark.parametrize("kilobytes", [0, 3])
def test_a_balance_that_is_set_after_everything_was_given_back_is_a_notice(
    customer: Customer, kilobytes: int
) -> None:
    """Also once charges went on from it."""
    customer.use(1)
    customer.use(2)
    give_back(customer)
    customer.connection.execute("UPDATE public.account_quota_states SET current_balance = 1000000")
    if kilobytes:
        customer.use(kilobytes)

    assert kinds(customer) == {"balance_outside": 1}
    (finding,) = customer.audit().findings
    assert finding.found["difference"] == 999_995


def test_a_refund_of_everything_that_a_stale_write_undid_is_repaired(customer: Customer) -> None:
    """The account gets it once."""
    customer.use(1)
    customer.use(2)
    with stale_write(customer.connection, customer.uuid):
        give_back(customer)

    assert kinds(customer) == {"charge_lost": 2}
    assert (customer.repair().amount, customer.funds.balance) == (-3, 5)
    assert kinds(customer) == {}
    assert customer.repair().corrections == 0


def test_a_lost_charge_that_had_left_what_the_account_began_with_is_repaired(
    customer: Customer,
) -> None:
    """It used its top-up up, and a stale write brought it back."""
    customer.use(4)
    add_row(customer.connection, customer.uuid, Decimal(10))
    add_to_balance(customer.connection, customer.uuid, Decimal(10))
    with stale_write(customer.connection, customer.uuid):
        customer.use(6)
        assert customer.funds.balance == 5

    assert kinds(customer) == {"charge_lost": 1}
    assert (customer.repair().amount, customer.funds.balance) == (6, 5)
    assert kinds(customer) == {}


def test_entries_of_one_step_follow_each_other_as_they_were_charged(customer: Customer) -> None:
    """Also those of one bucket, whatever their ids are: nothing was lost between them."""
    for _ in range(6):
        customer.use(1)
    give_back(customer)
    with without_guards(customer.connection):
        customer.connection.execute(ONE_BUCKET)

    assert read_changes_of(customer.connection, [customer.uuid], 0) == []


# As if all had been given back of one bucket, in which a key tells no order.
ONE_BUCKET = """
UPDATE billing.charges SET bucket_start = (SELECT min(bucket_start) FROM billing.charges)
 WHERE adjusts IS NOT NULL
"""
