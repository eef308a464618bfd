"""Accounts that were deleted and created again: which changes and charges are those of the new one.

An hour after the last charge of the former account, which had 5 and left 4, it is there again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

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

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
FULL_QUOTA = 100


def at(minutes: float) -> datetime:
    """Return a time so many minutes after the re-creation."""
    return START + timedelta(minutes=minutes)


def funds(balance: str, quota: int = 0) -> Funds:
    """Return funds."""
    return Funds(Decimal(balance), quota)


def entry(name: str, minute: float, found: Funds, amount: str, included: int = 0) -> OwnEntry:
    """Return a charge of so much; those from before minute 0 are of the former account."""
    lost = LostCharge(name, at(minute), -Decimal(amount), included)
    return OwnEntry(
        name, at(minute), found, lost.amount_delta, included, (lost,), is_on_record=minute >= 0
    )


FORMER = entry("former", -60, funds("5"), "1")
BEGUN = Change(None, None, None, at(-60), FORMER.found)


def explain(
    present: Sequence[OwnEntry],
    now: Funds,
    rows: Sequence[OtherRow] = (),
    former: OwnEntry = FORMER,
    changes: Sequence[Change] = (),
) -> Explanation:
    """Explain that the state is `now` after the present account's charges and `changes`."""
    last = present[-1]
    created = Change(former.entry_id, former.at, former.left, present[0].at, present[0].found)
    stale = Change(last.entry_id, last.at, last.left, None, now)
    known = Circumstances(rows, full_quotas=frozenset({FULL_QUOTA}))
    begun = replace(BEGUN, found=former.found)
    return explain_changes([begun, created, *changes, stale], known, [former, *present])


def lost(explanation: Explanation) -> list[tuple[list[str], str, int]]:
    """Return each loss: its charges, the amount and the quota."""
    return [
        ([charge.ledger_id for charge in loss.charges], f"{loss.amount:f}", loss.quota)
        for loss in explanation.losses
    ]


def rests(explanation: Explanation) -> list[tuple[Decimal, int]]:
    """Return what is unexplained."""
    return [(rest.balance, rest.quota) for rest in explanation.unexplained]


def test_the_funds_that_it_is_created_with_are_no_change() -> None:
    """Whatever they are, and whatever was left before."""
    explanation = explain([entry("first", 0, funds("9"), "2")], funds("7"))
    assert explanation == Explanation()


def test_what_was_charged_since_is_lost_by_itself() -> None:
    """Not with what was left before, though the stale row has the same funds."""
    present = [entry("first", 0, funds("5"), "1"), entry("second", 1, funds("4"), "2")]
    explanation = explain(present, funds("4"))
    assert (lost(explanation), rests(explanation)) == ([(["second"], "2", 0)], [])


@pytest.mark.parametrize(
    ("minute", "unapplied"),
    [(-1, 0), (0, 0), (10, 0), (10.1, 1)],
    ids=["before", "with the first charge", "hardly after", "after"],
)
def test_a_row_around_its_begin_may_have_been_in_the_balance(minute: float, unapplied: int) -> None:
    """Only a later one must change it."""
    rows = [OtherRow(at(minute), Decimal(3))]
    explanation = explain([entry("first", 0, funds("9"), "2")], funds("7"), rows)
    assert len(explanation.unapplied) == unapplied


def test_a_row_that_may_still_be_applied_stays_one() -> None:
    """It was written a moment ago."""
    rows = [OtherRow(at(60), Decimal(3), is_doubtful=True)]
    assert explain([entry("first", 0, funds("9"), "2")], funds("7"), rows) == Explanation()


def test_a_row_from_before_the_first_charge_explains_nothing_later() -> None:
    """It was in the balance that the first charge found."""
    first = entry("first", 0, funds("9"), "2")
    assert rests(explain([first], funds("10"), [OtherRow(at(-1), Decimal(3))])) == [(3, 0)]
    for minute in (0, 1):
        assert rests(explain([first], funds("10"), [OtherRow(at(minute), Decimal(3))])) == []


def test_an_account_without_a_charge_since_is_left_alone() -> None:
    """Its funds and rows may be all those of its creation."""
    now = Change("former", FORMER.at, FORMER.left, None, funds("5"))
    known = Circumstances([OtherRow(at(5), Decimal(3))])
    assert explain_changes([BEGUN, now], known, [FORMER]) == Explanation()


@pytest.mark.parametrize(
    ("opening", "now", "loss", "rest"),
    [
        pytest.param("9", "5", [], [("-2", 0)], id="less than there is"),
        pytest.param("5", "5", [(["first"], "2", 0)], [], id="what was charged"),
        pytest.param("6", "5", [(["first"], "1", 0)], [], id="a part of it"),
        pytest.param("3", "5", [(["first"], "2", 0)], [("2", 0)], id="more, as it was found"),
        pytest.param("3", "4", [(["first"], "2", 0)], [("1", 0)], id="more, as it was left"),
        pytest.param("3", "4.5", [], [("3.5", 0)], id="what it never had"),
    ],
)
def test_a_former_row_gives_back_at_most_what_was_charged_since(
    opening: str, now: str, loss: list[object], rest: list[tuple[str, int]]
) -> None:
    """What it adds beyond that, or takes, is unexplained."""
    explanation = explain([entry("first", 0, funds(opening), "2")], funds(now))
    assert lost(explanation) == loss
    assert rests(explanation) == [(Decimal(amount), quota) for amount, quota in rest]


def test_a_former_row_with_a_top_up_is_told_by_its_row() -> None:
    """The row explains its own part."""
    first = entry("first", 0, funds("6"), "2")
    explanation = explain([first], funds("15"), [OtherRow(at(1), Decimal(10))])
    assert (lost(explanation), rests(explanation)) == ([(["first"], "1", 0)], [])


def test_a_former_row_is_told_as_the_double_that_it_was_stored_as() -> None:
    """Nine decimal places of a large balance are more than a double has."""
    former = entry("former", -60, funds("98765432.123456789"), "1")
    first = entry("first", 0, funds("98765432"), "2")
    explanation = explain([first], funds("98765432.12345679"), former=former)
    assert lost(explanation) == [(["first"], "2", 0)]


def test_the_latest_charges_are_named_that_took_so_much() -> None:
    """No more of them than it takes, refunds between them included."""
    present = [
        entry("first", 0, funds("5.5"), "1"),
        entry("second", 1, funds("4.5"), "1"),
        entry("third", 2, funds("3.5"), "0.25"),
    ]
    assert lost(explain(present, funds("4"))) == [(["second", "third"], "0.75", 0)]
    assert lost(explain(present, funds("5"))) == [(["first", "second", "third"], "1.75", 0)]
    present[1:] = [entry("refund", 1, funds("4.5"), "-1"), entry("third", 2, funds("5.5"), "2")]
    assert lost(explain(present, funds("4"))) == [(["third"], "0.5", 0)]


def test_what_was_given_back_before_is_not_given_back_twice() -> None:
    """Of two former rows, the second one can only undo what was charged since the first one."""
    first, second = entry("first", 0, funds("3"), "2"), entry("second", 5, funds("4"), "0.5")
    written = Change("first", at(0), first.left, at(5), second.found)
    explanation = explain([first, second], funds("5"), changes=[written])
    assert lost(explanation) == [(["first"], "2", 0), (["second"], "0.5", 0)]
    assert rests(explanation) == [(1, 0), (1, 0)]


def test_what_an_earlier_stale_write_took_does_not_count_as_charged() -> None:
    """It swallowed a top-up and quota that nobody had recorded."""
    former = entry("former", -60, funds("20", 99), "1")
    first = entry("first", 0, funds("6", 50), "2", included=10)
    second = entry("second", 1, funds("14", 80), "1", included=5)
    third = entry("third", 2, funds("6", 50), "0.25", included=1)
    topped_up = Change("first", at(0), first.left, at(1), second.found)
    swallowed = Change("second", at(1), second.left, at(2), third.found)
    present, changes = [first, second, third], [topped_up, swallowed]
    explanation = explain(present, funds("20", 99), former=former, changes=changes)
    assert lost(explanation) == [
        (["first", "second"], "-7", -25),
        (["first", "second", "third"], "3.25", 16),
    ]


def test_the_quota_of_a_former_row_is_lost_as_far_as_it_was_used_since() -> None:
    """More of it is unexplained, and another quota than it had says that it is no such row."""
    former = entry("former", -60, funds("5", 90), "0", included=10)
    first = entry("first", 0, funds("5", 70), "0", included=20)
    explanation = explain([first], funds("5", 80), former=former)
    assert (lost(explanation), rests(explanation)) == ([(["first"], "0", 20)], [(0, 10)])
    assert explanation.losses[0].is_last_quota
    assert rests(explain([first], funds("5", 81), former=former)) == [(0, 31)]


def test_a_former_row_with_the_balance_of_the_new_account_gives_its_quota_back_too() -> None:
    """The charge found this balance, but not this quota: only the former account had both."""
    former = entry("former", -60, funds("5", 90), "0", 10)
    present = [entry("first", 0, funds("5", FULL_QUOTA), "2", FULL_QUOTA)]
    explanation = explain(present, funds("5", 80), former=former)
    assert (lost(explanation), rests(explanation)) == ([(["first"], "2", 80)], [])


def test_a_full_quota_may_be_a_renewed_one() -> None:
    """Unless a balance came back with it."""
    former = entry("former", -60, funds("5", FULL_QUOTA), "1", included=10)
    first = entry("first", 0, funds("5", 30), "0", included=20)
    renewed = explain([first], funds("5", FULL_QUOTA), former=former)
    assert (lost(renewed), rests(renewed)) == ([], [(0, 90)])
    paid = entry("first", 0, funds("4.5", 30), "1", included=20)
    explanation = explain([paid], funds("5", FULL_QUOTA), former=former)
    assert (lost(explanation), rests(explanation)) == (
        [(["first"], "1", 20)],
        [(Decimal("0.5"), 70)],
    )


def test_a_former_row_of_more_than_a_day_ago_is_none() -> None:
    """Nobody holds a row that long."""
    first = entry("first", 0, funds("6"), "2")
    for minute, loss in ((-60 * 24, [(["first"], "1", 0)]), (-60 * 24 - 1, [])):
        former = entry("former", minute, funds("5"), "1")
        assert lost(explain([first], funds("5"), former=former)) == loss


def test_the_quota_comes_back_of_as_many_charges_as_took_it() -> None:
    """And not a second time where an earlier row gave it back."""
    former = entry("former", -60, funds("5", 90), "0", included=10)
    first = entry("first", 0, funds("5", 60), "0", included=20)
    second = entry("second", 1, funds("5", 40), "0", included=6)
    third = entry("third", 2, funds("5", 34), "0", included=5)
    present = [first, second, third]
    explanation = explain(present, funds("5", 80), former=former)
    names = ["first", "second", "third"]
    assert (lost(explanation), rests(explanation)) == ([(names, "0", 31)], [(0, 20)])
    less = replace(former, found=funds("5", 35))
    assert lost(explain(present, funds("5", 35), former=less)) == [(names[1:], "0", 6)]

    fourth = entry("fourth", 5, funds("5", 80), "0", included=7)
    written = Change("third", at(2), third.left, at(5), fourth.found)
    present.append(fourth)
    explanation = explain(present, funds("5", 90), former=former, changes=[written])
    assert lost(explanation) == [(names, "0", 31), (["fourth"], "0", 7)]
    assert rests(explanation) == [(0, 20), (0, 10)]


def test_a_former_row_with_less_quota_gives_back_the_charge_alone() -> None:
    """The quota that went with it is unexplained, and so is a top-up that it swallowed."""
    former = entry("former", -60, funds("5", 30), "0", included=10)
    first = entry("first", 0, funds("6", 90), "2", included=10)
    explanation = explain([first], funds("5", 20), former=former)
    assert (lost(explanation), rests(explanation)) == ([(["first"], "1", 0)], [(0, -60)])


def test_an_account_that_is_the_one_of_its_first_charge_has_no_former_row() -> None:
    """What it had before somebody changed it is a balance like any other."""
    first, second = entry("first", 0, funds("5"), "1"), entry("second", 1, funds("1"), "0.5")
    begun = Change(None, None, None, at(0), first.found)
    taken = Change("first", at(0), first.left, at(1), second.found)
    now = Change("second", at(1), second.left, None, funds("14"))
    known = Circumstances([OtherRow(at(20), Decimal(10))])
    explanation = explain_changes([begun, taken, now], known, [first, second])
    assert (lost(explanation), rests(explanation)) == ([], [(-3, 0), (Decimal("3.5"), 0)])


def test_the_account_is_the_one_that_was_created_last() -> None:
    """However often it was created before."""
    earlier = entry("earlier", -90, funds("8"), "1")
    begun = Change(None, None, None, at(-90), earlier.found)
    created = [
        Change(earlier.entry_id, earlier.at, earlier.left, FORMER.at, FORMER.found),
        Change(FORMER.entry_id, FORMER.at, FORMER.left, at(0), funds("6")),
    ]
    first = entry("first", 0, funds("6"), "2")
    for balance, loss, rest in (("8", "2", "2"), ("7", "2", "1"), ("5", "1", None)):
        now = Change("first", at(0), first.left, None, funds(balance))
        known = Circumstances([OtherRow(at(-30), Decimal(3))])
        explanation = explain_changes([begun, *created, now], known, [earlier, FORMER, first])
        assert explanation.unapplied == ()
        assert lost(explanation) == [(["first"], loss, 0)]
        assert rests(explanation) == ([(Decimal(rest), 0)] if rest else [])
