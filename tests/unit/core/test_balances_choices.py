"""What explains a change of a balance where rows, lost charges and others' changes compete."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from billing_cli.core.balances import explain_changes
from billing_cli.core.funds import (
    Change,
    Circumstances,
    Explanation,
    Funds,
    LostCharge,
    OtherRow,
    OwnEntry,
)
from tests.unit.core.test_balances import OPENING, at, change, charges, explain, lost, rests


def test_a_top_up_after_a_refund_that_undid_a_charge_is_all_there_is() -> None:
    """Charges that add up to nothing are not lost with a change that its row explains."""
    entries = charges("1", "-1", quota=50)
    assert explain(entries, change(entries, "30"), (1.5, "25")) == Explanation()


def test_a_quota_that_is_renewed_to_what_a_charge_found_before_is_no_loss() -> None:
    """The period is known to have begun: nothing is taken back."""
    entries = charges("0", "0", included=10)
    renewed = change(entries, "5", quota=90)
    assert explain(entries, renewed, period_start=at(2)) == Explanation()


def test_a_recorded_top_up_of_what_was_charged_last_is_no_loss_where_the_quota_changed() -> None:
    """Its row explains the balance, though it is the one from before the charge again."""
    entries = charges("25", included=10, quota=50)
    explanation = explain(entries, change(entries, "5", quota=43), (0.5, "25"))
    assert (lost(explanation), rests(explanation)) == ([], [("0", 3)])
    assert explanation.unapplied == ()


def test_a_quota_that_changed_alone_is_no_loss_where_an_earlier_balance_was_the_same() -> None:
    """A top-up had made up for the charge in between: no money is missing."""
    entries = charges("1", "0", included=10)
    entries[1] = replace(entries[1], found=Funds(Decimal(5), 90))
    explanation = explain(entries, change(entries, "5", quota=83))
    assert (lost(explanation), rests(explanation)) == ([], [("0", 3)])


def test_a_charge_that_cost_nothing_is_not_lost_with_the_balance_of_the_next() -> None:
    """As few charges as possible are; the quota was changed by others."""
    entries = charges("0", "2", included=10)
    explanation = explain(entries, change(entries, "5", quota=83))
    assert (lost(explanation), rests(explanation)) == ([(["charge-1"], "2", 0)], [("0", 3)])


def test_a_change_that_is_a_nano_off_what_was_charged_is_no_loss() -> None:
    """A stale write restores a balance exactly."""
    entries = charges("1", "2")
    explanation = explain(entries, change(entries, "4.000000001"))
    assert (lost(explanation), rests(explanation)) == ([], [("2.000000001", 0)])


def test_a_stale_top_up_of_a_large_balance_may_be_rounded_in_the_last_place() -> None:
    """Doubles of such a size are fifteen nanos apart, and the service wrote a neighbour."""
    amount = Decimal("-0.58926818")
    charge = LostCharge("charge-0", at(0), amount, 0)
    before = Funds(Decimal("98765428.34"), 0)
    entry = OwnEntry("charge-0", at(0), before, amount, 0, (charge,))
    stale = Change(
        *("charge-0", at(0), Funds(Decimal("98765427.75073183"), 0)),
        *(None, Funds(Decimal("98765453.33999999"), 0)),
    )
    rows = (OtherRow(at(0.5), Decimal(25)),)
    explanation = explain_changes([OPENING, stale], Circumstances(rows), [entry])
    assert [loss.charges for loss in explanation.losses] == [(charge,)]
    assert (rests(explanation), explanation.unapplied) == ([], ())


def test_funds_that_were_left_and_found_twice_are_set_off_twice() -> None:
    """What is left to be said is one change, from what nobody found to what nobody left."""
    changes = [
        Change(None, None, None, at(0), Funds(Decimal(9), 0)),
        Change("a", at(0), Funds(Decimal(10), 0), at(1), Funds(Decimal(4), 0)),
        Change("b", at(1), Funds(Decimal(4), 0), at(2), Funds(Decimal(3), 0)),
        Change("c", at(2), Funds(Decimal(3), 0), at(3), Funds(Decimal(4), 0)),
        Change("d", at(3), Funds(Decimal(4), 0), None, Funds(Decimal(6), 0)),
    ]
    assert rests(explain_changes(changes, Circumstances())) == [("-4", 0)]
