"""`billing audit` and `billing repair balances` as processes: what they print, how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.neighbour import stale_write

if TYPE_CHECKING:
    from tests.integration.repair.conftest import Customer

WHY = ("--reason", "the read service wrote a stale row")


def test_a_lost_charge_ends_an_audit_with_3_until_it_is_repaired(customer: Customer) -> None:
    """The audit names the charge; the repair says what it changed; the next audit ends with 0."""
    billing = customer.story.billing
    with stale_write(customer.connection, customer.uuid):
        customer.use(1)

    found = billing("audit", "--json")
    dry = billing("repair", "balances", *WHY, "--dry-run")
    done = billing("repair", "balances", *WHY, "--account", customer.user.proxy_uuid, "--json")
    again = billing("repair", "balances", *WHY, "--json")

    assert found.exit_code == 3
    (violation,) = found.json["violations"]
    assert (violation["kind"], violation["account_uuid"]) == ("charge_lost", customer.uuid)
    assert violation["keys"]["bucket_start"] == "2026-04-08T12:01:00Z"
    assert violation["found"] == {"amount_delta": "-1.000000000"}
    assert dry.exit_code == 0
    assert "(dry run: nothing is stored) - 1 repair, balances reduced by 1.000" in dry.stdout
    assert done.exit_code == again.exit_code == 0
    assert (done.json["job"], done.json["status"], done.json["error"]) == (
        "repair-balances",
        "ok",
        None,
    )
    (repair,) = done.json["repairs"]
    assert repair["account_uuid"] == customer.uuid
    assert (repair["balance_before"], repair["balance_after"]) == ("5.000000000", "4.000000000")
    assert repair["charges"][0]["ledger_id"] == violation["keys"]["ledger_id"]
    assert (again.json["corrections"], again.json["repairs"]) == (0, [])
    assert billing("audit").exit_code == 0


def test_a_repair_needs_a_reason(customer: Customer) -> None:
    """Nobody would know later why a balance was changed."""
    assert customer.story.billing("repair", "balances").exit_code == 2
