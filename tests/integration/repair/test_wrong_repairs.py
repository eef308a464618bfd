"""Rows of `billing.repairs` that no repair has written: an audit names them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.support.guards import without_guards
from tests.support.neighbour import add_row, add_to_balance, stale_write

if TYPE_CHECKING:
    from tests.integration.repair.conftest import Customer


def kinds(customer: Customer) -> dict[str, int]:
    """Return what an audit finds."""
    return dict(customer.audit().counts)


@pytest.fixture
def repaired(customer: Customer) -> Customer:
    """Return an account of which a charge of 2 was lost and repaired, and charged 1 since."""
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(2)
    customer.repair()
    customer.use(1)
    assert kinds(customer) == {}
    return customer


@pytest.mark.parametrize(
    ("changed", "columns"),
    [
        ("repair_id = gen_random_uuid()", {"repair_id"}),
        ("balance_after = balance_after + 1", {"balance_after"}),
        ("balance_before = balance_before + 1", {"balance_after"}),
        ("ledger_ids = '{}'", {"charges"}),
        ("ledger_ids = ledger_ids || gen_random_uuid()", {"charges"}),
        (
            "amount_delta = amount_delta - 0.01, balance_after = balance_after - 0.01",
            {"amount_delta"},
        ),
        (
            "amount_delta = amount_delta + 100, balance_after = balance_after + 100",
            {"amount_delta"},
        ),
        ("quota_after = quota_after + 1", {"remaining_included_quota"}),
    ],
)
def test_a_repair_that_was_changed_is_found(
    repaired: Customer, changed: str, columns: set[str]
) -> None:
    """By what contradicts its charges, whatever the balance is set to."""
    with without_guards(repaired.connection):
        repaired.connection.execute(b"UPDATE billing.repairs SET " + changed.encode())

    found = [one for one in repaired.audit().findings if one.kind == "repair_differs"]

    assert [(one.account_uuid, one.expected.keys(), one.found.keys()) for one in found] == [
        (repaired.uuid, columns, columns)
    ]
    only = repaired.audit(account=repaired.uuid).counts
    assert only["repair_differs"] == 1


def test_a_repair_that_gives_a_refund_again_is_found(customer: Customer) -> None:
    """Nothing was lost after it, though its name and its charge are right."""
    customer.use(1)
    customer.connection.execute(FORGED_REFUND)
    add_to_balance(customer.connection, customer.uuid, Decimal(2))

    (finding,) = customer.audit().findings

    assert (finding.kind, finding.expected) == (
        "repair_differs",
        {"repair_id": finding.expected["repair_id"], "amount_delta": -1},
    )


FORGED_REFUND = """
INSERT INTO billing.repairs (account_uuid, after_id, repair_id, ledger_ids, amount_delta,
       balance_before, balance_after, quota_before, quota_after, reason, run_id, at)
SELECT account_uuid, ledger_id, gen_random_uuid(), ARRAY[ledger_id], 2, 4, 6,
       remaining_included_quota, remaining_included_quota, '', gen_random_uuid(), clock_timestamp()
  FROM billing.charges JOIN public.account_quota_states USING (account_uuid)
"""


def test_a_repair_that_gives_a_swallowed_top_up_back_is_right(customer: Customer) -> None:
    """It gives more than it takes."""
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)
        add_row(customer.connection, customer.uuid, Decimal(20))
        add_to_balance(customer.connection, customer.uuid, Decimal(20))
        customer.use(2)

    result = customer.repair()

    assert (result.amount, customer.funds.balance) == (-17, 22)
    assert kinds(customer) == {}
    customer.use(1)
    assert kinds(customer) == {}


def test_a_repair_of_an_account_that_was_deleted_is_no_violation(repaired: Customer) -> None:
    """Its ledger rows are gone."""
    repaired.connection.execute("DELETE FROM public.users WHERE uuid = %s", (repaired.uuid,))

    assert kinds(repaired) == {"account_deleted": 1}


def test_a_repair_of_an_account_that_was_created_again_is_no_violation(
    repaired: Customer,
) -> None:
    """Its first charge comes right after; that is of its new life."""
    named = {"uuid": repaired.uuid}
    execute = repaired.connection.execute
    execute("CREATE TEMPORARY TABLE kept AS SELECT * FROM users WHERE uuid = %(uuid)s", named)
    execute("DELETE FROM users WHERE uuid = %(uuid)s", named)
    execute("INSERT INTO users SELECT * FROM kept")
    repaired.use(1)

    assert "repair_differs" not in kinds(repaired)


@pytest.mark.parametrize("balance_after", [1, "NaN", "Infinity"])
def test_a_repair_of_a_loss_that_a_legacy_writer_charged_after_is_no_violation(
    customer: Customer, balance_after: object
) -> None:
    """Only entries of ours say what followed the loss, whatever the legacy writer wrote."""
    customer.use(1)
    with stale_write(customer.connection, customer.uuid):
        customer.use(2)
        customer.connection.execute(LEGACY_CHARGE, {"balance_after": balance_after})
        add_to_balance(customer.connection, customer.uuid, Decimal(-1))
    assert kinds(customer)["charge_lost"] > 0

    customer.repair()

    assert "repair_differs" not in kinds(customer)
    customer.use(1)
    assert "repair_differs" not in kinds(customer)


LEGACY_CHARGE = """
INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
       rated_bytes, amount_delta, balance_after)
SELECT gen_random_uuid(), account_uuid, now(), now(), 'traffic_charge', 1, -1,
       %(balance_after)s::float8
  FROM public.account_quota_states
"""
