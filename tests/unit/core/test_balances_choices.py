"""What explains a change of a balance where rows, lost charges and others' changes compete."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from billing_cli.core.balances import explain_changes, explain_in_order
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


def found(after_id: str, minute: int, left: str, balance: str, until: int | None) -> Change:
    """Return that 100 bytes and this balance were found in place of what an entry left."""
    return Change(
        *(after_id, at(minute), Funds(Decimal(left), 100)),
        *(None if until is None else at(until), Funds(Decimal(balance), 100)),
    )


@pytest.mark.parametrize("until", [pytest.param(None, id="now"), pytest.param(3, id="by a charge")])
@pytest.mark.parametrize("balance", ["1000000", "4.99"])
def test_a_change_after_entries_that_led_back_to_the_first_funds_is_one(
    balance: str, until: int | None
) -> None:
    """What was found then is not what the account began with."""
    entries = charges("1", "2", "-3")
    changed = found("charge-2", 2, "5", balance, until)
    for known in ([], entries):
        explanation = explain_changes([OPENING, changed], Circumstances(), known)
        assert [(one.change, one.balance) for one in explanation.unexplained] == [
            (changed, Decimal(balance) - 5)
        ]


def test_a_refund_that_led_back_to_the_first_funds_may_be_lost() -> None:
    """All that was charged was given back; a stale write took it again."""
    entries = charges("1", "2", "-3")
    explanation = explain(entries, change(entries, "2"))
    assert (lost(explanation), rests(explanation)) == ([(["charge-2"], "-3", 0)], [])


def test_a_charge_that_left_the_first_funds_may_be_lost() -> None:
    """The account used its top-up up."""
    first, second = charges("4", "6")
    second = replace(second, found=Funds(Decimal(11), 100))
    changes = [
        OPENING,
        found("charge-0", 0, "1", "11", 1),
        found("charge-1", 1, "5", "11", None),
    ]
    rows = Circumstances([OtherRow(at(0.5), Decimal(10))])
    assert rests(explain_in_order(changes, rows)) == [("6", 0)]
    explanation = explain_changes(changes, rows, [first, second])
    assert (lost(explanation), rests(explanation)) == ([(["charge-1"], "6", 0)], [])


SWAPPED_AND_GIVEN_BACK = [
    replace(OPENING, found=Funds(Decimal(4), 100)),
    found("b", 0, "2", "5", 1),
    found("a", 1, "4", "2", 2),
    found("c", 2, "5", "9", None),
]
"""Of 5 one charge took 1, another 2, stamped in the other order; both were given back."""


def test_the_last_change_stays_where_entries_in_another_order_led_back_to_the_first_funds() -> None:
    """Once a row explains it, all others are set off."""
    explanation = explain_changes(SWAPPED_AND_GIVEN_BACK, Circumstances())
    assert rests(explanation) == [("3", 0), ("-2", 0), ("4", 0)]
    paid = Circumstances([OtherRow(at(2.5), Decimal(4))])
    assert explain_changes(SWAPPED_AND_GIVEN_BACK, paid) == Explanation()


def test_another_beginning_is_not_taken_where_a_row_were_not_applied_then() -> None:
    """The row explains what was found in the place of the beginning."""
    changes = [
        OPENING,
        found("a", 0, "3", "10", 1),
        found("b", 1, "5", "3", None),
    ]
    assert explain_changes(changes, Circumstances()) == Explanation()
    paid = Circumstances([OtherRow(at(0.5), Decimal(7))])
    explanation = explain_changes(changes, paid)
    assert (rests(explanation), explanation.unapplied) == ([("-2", 0)], ())
    unpaid = Circumstances([OtherRow(at(0.5), Decimal(20))])
    assert explain_changes(changes, unpaid) == Explanation(unapplied=tuple(unpaid.rows))


def test_another_beginning_is_not_taken_where_a_charge_were_lost_then() -> None:
    """A top-up of 2 was applied to what had been read before a charge and its refund."""
    nano = Decimal("1e-9")
    entries = charges("1e-9", "5e-9", "-3e-9")
    entries[2] = replace(entries[2], found=Funds(5 - 3 * nano, 100))
    changes = [
        OPENING,
        found("charge-1", 1, "4.999999994", "4.999999997", 2),
        found("charge-2", 2, "5", "5.000000001", None),
    ]
    rows = Circumstances([OtherRow(at(1.5), 3 * nano), OtherRow(at(2.5), 2 * nano)])
    explanation = explain_changes(changes, rows, entries)
    assert (lost(explanation), rests(explanation)) == ([], [("1E-9", 0)])


def test_nothing_is_set_off_where_no_order_of_the_charges_leads_through_all_of_them() -> None:
    """The first ones led back to where they began; no other left or found these funds."""
    changes = [
        OPENING,
        found("a", 0, "5", "9", 1),
        found("b", 1, "8", "7", 2),
        found("c", 2, "7", "8", 3),
    ]
    assert rests(explain_changes(changes, Circumstances())) == [("4", 0), ("-1", 0), ("1", 0)]


def test_entries_that_are_joined_by_what_a_row_explains_are_in_another_order() -> None:
    """The one that was stamped first found what the other left: the account began with 9."""
    changes = [
        OPENING,
        found("b", 0, "3", "9", 1),
        found("a", 1, "5", "4", None),
    ]
    assert rests(explain_changes(changes, Circumstances())) == [("6", 0), ("-1", 0)]
    paid = Circumstances([OtherRow(at(0.5), Decimal(1))])
    assert explain_changes(changes, paid) == Explanation()


def test_nothing_is_set_off_where_it_is_not_known_what_the_account_began_with() -> None:
    """Its first row may hold funds that can't be computed with."""
    changes = [found("a", 0, "3", "4", 1), found("b", 1, "4", "3", None)]
    assert rests(explain_changes(changes, Circumstances())) == [("1", 0), ("-1", 0)]


def test_an_explanation_in_the_order_of_the_stamps_is_kept_where_none_explains_more() -> None:
    """A top-up by its row, and a later change back to what was there before it."""
    changes = [OPENING, found("a", 0, "3", "10", 1), found("b", 1, "9", "3", None)]
    paid = Circumstances([OtherRow(at(0.5), Decimal(7))])
    explanation = explain_changes(changes, paid)
    assert [one.change for one in explanation.unexplained] == changes[2:]


def test_funds_that_were_found_as_they_were_left_are_not_set_off_against_earlier_ones() -> None:
    """What remains came after the entry that left 4 first; two others were swapped."""
    changes = [
        OPENING,
        found("a", 0, "4", "9", 1),
        found("b", 1, "4", "4", 2),
        found("c", 2, "7", "8", 3),
        found("d", 3, "8", "7", None),
    ]
    (rest,) = explain_changes(changes, Circumstances()).unexplained
    assert (rest.change.after_id, rest.balance) == ("a", 5)


def test_entries_that_led_back_to_the_first_funds_in_another_order_have_lost_nothing() -> None:
    """What was found as it had been before a charge, and the last funds, are set off."""
    entries = charges("1", "2", "-3")
    changes = [
        OPENING,
        found("charge-1", 1, "2", "4", 2),
        found("charge-2", 2, "5", "2", 3),
        found("charge-3", 3, "4", "5", None),
    ]
    assert explain_changes(changes, Circumstances(), entries) == Explanation()
