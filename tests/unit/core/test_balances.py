"""Which changes of balances and quotas are explained, lost charges, or worth a notice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing_cli.core.balances import explain_changes, is_loss_possible, stored
from billing_cli.core.funds import (
    Change,
    Circumstances,
    Explanation,
    Funds,
    LostCharge,
    OtherRow,
    OwnEntry,
    Unexplained,
    repair_id_of,
)

START = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
OPENING = Change(None, None, None, START, Funds(Decimal(5), 100))
FULL_QUOTA = 100


def at(minutes: float) -> datetime:
    """Return a time so many minutes after the first charge."""
    return START + timedelta(minutes=minutes)


def charges(*amounts: str, included: int = 0, quota: int = FULL_QUOTA) -> list[OwnEntry]:
    """Return charges of so much each, one after the other, from a balance of 5."""
    entries = []
    balance = Decimal(5)
    for number, amount in enumerate(map(Decimal, amounts)):
        lost = LostCharge(f"charge-{number}", at(number), -amount, included)
        found = Funds(balance, quota - number * included)
        entries.append(OwnEntry(lost.ledger_id, at(number), found, -amount, included, (lost,)))
        balance -= amount
    return entries


def change(entries: list[OwnEntry], balance: str, quota: int | None = None) -> Change:
    """Return that the quota state has other funds than the last charge left."""
    last = entries[-1]
    left = Funds(last.found.balance + last.amount_delta, last.found.quota - last.included_bytes)
    found = Funds(Decimal(balance), left.quota if quota is None else quota)
    return Change(last.entry_id, at(len(entries) - 1), left, None, found)


def explain(
    entries: list[OwnEntry], changed: Change, *rows: tuple[float, str], **known: object
) -> Explanation:
    """Explain one change after the charges, with rows at (minute, amount)."""
    others = [OtherRow(at(minute), Decimal(amount)) for minute, amount in rows]
    circumstances = Circumstances(others, full_quotas=frozenset({FULL_QUOTA}), **known)  # type: ignore[arg-type]
    return explain_changes([OPENING, changed], circumstances, entries)


def lost(explanation: Explanation) -> list[tuple[list[str], str, int]]:
    """Return the ids of lost charges, and what the stale write added."""
    return [
        ([charge.ledger_id for charge in loss.charges], str(loss.amount), loss.quota)
        for loss in explanation.losses
    ]


def test_a_recorded_top_up_is_explained() -> None:
    """Nothing is left to be said."""
    entries = charges("1", "2")

    assert explain(entries, change(entries, "27"), (1.5, "25")) == Explanation()


@pytest.mark.parametrize("minute", [1, 1.01, 600])
def test_a_row_may_be_written_before_or_after_the_change(minute: float) -> None:
    """Balance and row are separate statements; the state as it is now has no end."""
    entries = charges("1", "2")

    assert explain(entries, change(entries, "27"), (minute, "25")) == Explanation()


def test_a_row_explains_a_change_that_was_found_ten_minutes_before_it_and_no_later() -> None:
    """A later row belongs to a later change."""
    entries = charges("1")
    left = Funds(Decimal(4), FULL_QUOTA)
    changed = Change("charge-0", at(0), left, at(5), Funds(Decimal(29), FULL_QUOTA))

    assert explain(entries, changed, (15, "25")) == Explanation()
    assert explain(entries, changed, (15.1, "25")).unexplained[0].balance == 25


def test_changes_and_rows_are_matched_cumulatively() -> None:
    """Two top-ups between two charges, the first row of which was never applied."""
    entries = charges("1", "2")
    explanation = explain(entries, change(entries, "47"), (0.5, "7"), (1.2, "25"), (1.3, "20"))

    assert (explanation.unexplained, explanation.losses) == ((), ())
    assert [row.amount for row in explanation.unapplied] == [7]


def test_a_change_without_a_row_is_unexplained() -> None:
    """By its amount; it is no loss where it is not what the latest charges were."""
    entries = charges("1", "2")
    explanation = explain(entries, change(entries, "14.5"))

    assert [(one.balance, one.quota) for one in explanation.unexplained] == [(Decimal("12.5"), 0)]
    assert explanation.losses == ()


@pytest.mark.parametrize(
    ("balance", "ids", "amount"),
    [
        ("2.5", ["charge-2"], "0.5"),
        ("4", ["charge-1", "charge-2"], "2.0"),
        ("5", ["charge-0", "charge-1", "charge-2"], "3.0"),
    ],
)
def test_a_balance_from_before_the_latest_charges_is_a_loss(
    balance: str, ids: list[str], amount: str
) -> None:
    """However many charges the stale write undid."""
    entries = charges("1", "1.5", "0.5")

    assert lost(explain(entries, change(entries, balance))) == [(ids, amount, 0)]


def test_a_stale_top_up_loses_charges_and_is_explained_by_its_row() -> None:
    """The service read the balance, we charged, it wrote what it had read plus the top-up."""
    entries = charges("1", "2")

    assert lost(explain(entries, change(entries, "29"), (0.9, "25"))) == [(["charge-1"], "2", 0)]


def test_a_loss_may_swallow_a_recorded_top_up() -> None:
    """The stale write is undone as a whole: the account gets its top-up back."""
    entries = [
        *charges("1"),
        OwnEntry(
            "charge-1",
            at(1),
            Funds(Decimal(29), FULL_QUOTA),
            Decimal(-2),
            0,
            (LostCharge("charge-1", at(1), Decimal(-2), 0),),
        ),
    ]
    topped_up = Change(
        "charge-0", at(0), Funds(Decimal(4), FULL_QUOTA), at(1), Funds(Decimal(29), FULL_QUOTA)
    )
    stale = Change("charge-1", at(1), Funds(Decimal(27), FULL_QUOTA), None, entries[0].found)
    rows = (OtherRow(at(0.5), Decimal(25)),)

    explanation = explain_changes([OPENING, topped_up, stale], Circumstances(rows), entries)

    assert lost(explanation) == [(["charge-0", "charge-1"], "-22", 0)]
    assert explanation.unexplained == ()


def test_a_quota_is_lost_with_the_charges_that_used_it() -> None:
    """What the row had before them is what is to be taken back."""
    entries = charges("1", "2", included=10)

    assert lost(explain(entries, change(entries, "4", quota=90))) == [(["charge-1"], "2", 10)]
    assert lost(explain(entries, change(entries, "4"))) == [(["charge-1"], "2", 0)]


def test_charges_that_only_used_the_quota_can_be_lost() -> None:
    """They cost nothing, and the balance tells nothing of them."""
    entries = charges("0", "0", included=10)

    assert lost(explain(entries, change(entries, "5", quota=90))) == [(["charge-1"], "0", 10)]


def test_a_full_quota_may_be_a_renewed_one() -> None:
    """Where it is not known that no period began, the account is believed."""
    entries = charges("0", "0", included=10)
    full = change(entries, "5", quota=FULL_QUOTA)

    assert lost(explain(entries, full)) == []
    assert explain(entries, full, period_start=at(2)) == Explanation()
    assert lost(explain(entries, full, period_start=at(-60))) == [
        (["charge-0", "charge-1"], "0", 20)
    ]


def test_a_renewal_is_explained_by_the_start_of_its_period() -> None:
    """Whatever the quota is set to."""
    entries = charges("1", included=10)

    assert explain(entries, change(entries, "4", quota=777), period_start=at(5)) == Explanation()
    (rest,) = explain(entries, change(entries, "4", quota=777)).unexplained
    assert (rest.balance, rest.quota) == (0, 687)


def test_a_quota_that_was_renewed_after_a_loss_is_not_corrected() -> None:
    """The restored bytes went with the period."""
    entries = charges("1", "1", included=10)
    stale = Change("charge-0", at(0), Funds(Decimal(4), 90), at(1), entries[0].found)
    entries[1] = OwnEntry("charge-1", at(1), entries[0].found, Decimal(-1), 10, entries[1].charges)
    renewed = Change("charge-1", at(1), Funds(Decimal(4), 90), None, Funds(Decimal(4), 500))

    explanation = explain_changes(
        [OPENING, stale, renewed], Circumstances(period_start=at(2)), entries
    )

    assert [loss.is_last_quota for loss in explanation.losses] == [False]


def test_an_account_that_was_created_again_has_lost_nothing() -> None:
    """It begins with the balance that the former one had before its charges."""
    entries = charges("1", "2")
    gone = [
        OwnEntry(
            entry.entry_id,
            entry.at,
            entry.found,
            entry.amount_delta,
            0,
            entry.charges,
            is_on_record=False,
        )
        for entry in entries
    ]

    assert lost(explain(gone, change(entries, "5"))) == []


def test_a_later_change_of_the_balance_alone_leaves_a_restored_quota_to_be_corrected() -> None:
    """It is still that of its period."""
    first, second = charges("1", "2", included=10)
    stale = Change("charge-0", at(0), Funds(Decimal(4), 90), at(1), first.found)
    second = replace(second, found=first.found)
    now = Change("charge-1", at(1), Funds(Decimal(3), 90), None, Funds(Decimal("3.5"), 90))

    explanation = explain_changes([OPENING, stale, now], Circumstances(), [first, second])

    assert [(loss.quota, loss.is_last_quota) for loss in explanation.losses] == [(10, True)]
    assert rests(explanation) == [("0.5", 0)]


def test_large_balances_are_compared_as_doubles() -> None:
    """Nine decimal places of them are more than a double has."""
    balance = Decimal("98765432.123456789")
    left = Funds(Decimal("98765431.12345679"), 0)
    entry = OwnEntry(
        "charge-0",
        at(0),
        Funds(Decimal("98765432.12345679"), 0),
        Decimal("-1.000000001"),
        0,
        (LostCharge("charge-0", at(0), Decimal("-1.000000001"), 0),),
    )
    stale = Change("charge-0", at(0), left, None, Funds(Decimal("98765432.12345679"), 0))

    assert float(balance) == float(entry.found.balance)
    assert len(explain_changes([OPENING, stale], Circumstances(), [entry]).losses) == 1


def test_a_row_explains_a_large_balance_to_the_last_place_of_a_double() -> None:
    """What rounding takes of its amount is no change of its own."""
    left, found = Funds(Decimal("98765432.12345679"), 0), Funds(Decimal("98765433.12345679"), 0)
    topped_up = Change("charge-0", at(0), left, None, found)
    known = Circumstances([OtherRow(at(1), Decimal("1.000000004"))])

    assert explain_changes([OPENING, topped_up], known) == Explanation()


@pytest.mark.parametrize(
    ("balance", "amount", "found", "is_explained"),
    [
        pytest.param("17592186044416", "1", "17592186044417.0078125", True, id="two last places"),
        pytest.param("17592186044416", "1", "17592186044417.01171875", False, id="three of them"),
        pytest.param(
            "83859026.76139256", "-81373191.513453848", "2485835.247938722", True, id="left"
        ),
    ],
)
def test_a_row_explains_what_doubles_of_the_balance_before_may_round_away(
    balance: str, amount: str, found: str, is_explained: bool
) -> None:
    """Both the balance and the sum are rounded, and a balance that was larger more than the sum."""
    left = Funds(Decimal(balance), 0)
    change = Change("charge-0", at(0), left, None, Funds(Decimal(found), 0))

    explanation = explain_changes(
        [OPENING, change], Circumstances([OtherRow(at(1), Decimal(amount))])
    )

    assert (explanation.unexplained == ()) == is_explained


def test_a_stale_write_of_a_large_balance_loses_a_charge_but_for_two_last_places() -> None:
    """A double of this size holds no smaller part of what a service may have added."""
    entry = OwnEntry(
        "charge-0",
        at(0),
        Funds(Decimal(17592186044417), 0),
        Decimal(-1),
        0,
        (LostCharge("charge-0", at(0), Decimal(-1), 0),),
    )
    found = Funds(Decimal("17592186044417.0078125"), 0)
    change = Change("charge-0", at(0), entry.left, None, found)

    assert len(explain_changes([OPENING, change], Circumstances(), [entry]).losses) == 1


def test_a_quota_that_comes_back_with_a_large_top_up_is_all_that_is_lost() -> None:
    """What rounding took of the amount is none of it."""
    (used,) = charges("0", included=10, quota=90)
    used = replace(used, found=Funds(Decimal("98765432.12345679"), 90))
    left, found = used.left, Funds(Decimal("98765433.12345679"), 90)
    explanation = explain([used], Change("charge-0", at(0), left, None, found), (1, "1.000000004"))

    assert (explanation.losses[0].quota, rests(explanation)) == (10, [])


def test_funds_that_are_found_elsewhere_are_set_off() -> None:
    """Two runs stamped their charges in another order than they passed the balance on."""
    first = Change(None, None, None, at(0), Funds(Decimal(4), 0))
    second = Change("b", at(0), Funds(Decimal(2), 0), at(1), Funds(Decimal(5), 0))
    now = Change("a", at(1), Funds(Decimal(4), 0), None, Funds(Decimal(2), 0))

    assert explain_changes([first, second, now], Circumstances()) == Explanation()


def test_funds_that_were_found_as_they_were_left_are_not_set_off_against_equal_ones() -> None:
    """A repair left what a charge had left: what came before it is not found after it again."""
    charged, stale, renewed = Funds(Decimal(4), 0), Funds(Decimal(5), 0), Funds(Decimal(4), 10)
    changes = [
        OPENING,
        Change("charge-0", at(0), charged, at(1), stale),
        Change("repair", at(1), charged, at(2), charged),
        Change("charge-1", at(2), charged, None, renewed),
    ]
    (entry,) = charges("1", quota=0)
    repair = OwnEntry("repair", at(1), stale, Decimal(-1), 0, entry.charges)
    explanation = explain_changes(changes, Circumstances(), [entry, repair])
    assert [loss.change.after_id for loss in explanation.losses] == ["charge-0"]


def test_a_renewal_counts_from_when_the_stored_quota_was_left() -> None:
    """Entries since used the quota of the former period, after the renewal was seen."""
    left, found = Funds(Decimal(3), 0), Funds(Decimal(3), FULL_QUOTA)
    late = Change("late", at(3), left, None, found, quota_known_at=at(1))
    entries = charges("1", "1", quota=0)
    for known in ({"renewals_seen": (at(2),)}, {"period_start": at(-8)}):
        assert explain(entries, late, **known) == Explanation()
        others = replace(late, quota_known_at=None)
        assert explain(entries, others, **known).unexplained


def test_a_row_that_was_read_more_than_a_day_ago_is_no_stale_one() -> None:
    """An operator may give back all that was ever paid: that is a notice."""
    entries = charges("1", "2", "3")
    entries[0] = replace(entries[0], at=at(-60 * 24))

    assert lost(explain(entries, change(entries, "5"))) == []
    assert lost(explain(entries, change(entries, "4"))) == [(["charge-1", "charge-2"], "5", 0)]


QUOTA_CHANGE = Change("charge-0", at(0), Funds(Decimal(5), 10), at(60), Funds(Decimal(5), 500))


@pytest.mark.parametrize(
    ("known", "is_renewed"),
    [
        pytest.param({}, False, id="nothing is known"),
        pytest.param({"period_start": at(30)}, True, id="a period began in between"),
        pytest.param({"period_start": at(-10)}, True, id="hardly before"),
        pytest.param({"period_start": at(-10.1)}, False, id="long before"),
        pytest.param({"period_start": at(70)}, True, id="hardly after"),
        pytest.param({"period_start": at(70.1)}, False, id="long after"),
        pytest.param({"renewals_seen": (at(0),)}, True, id="a renewal was seen at the first"),
        pytest.param({"renewals_seen": (at(60),)}, True, id="a renewal was seen at the second"),
        pytest.param({"renewals_seen": (at(-0.1), at(60.1))}, False, id="renewals elsewhere"),
        pytest.param({"renewals_seen": (at(-0.1), at(30))}, True, id="one of two renewals"),
    ],
)
def test_a_renewal_is_known_by_its_period_or_by_the_run_that_saw_it(
    known: dict[str, object], *, is_renewed: bool
) -> None:
    """Between the charges around the change, or ten minutes off."""
    explanation = explain_changes([OPENING, QUOTA_CHANGE], Circumstances(**known))  # type: ignore[arg-type]
    rests = [(one.balance, one.quota) for one in explanation.unexplained]
    assert rests == ([] if is_renewed else [(0, 490)])


def test_the_state_as_it_is_now_may_be_renewed_by_a_period_that_just_began() -> None:
    """And a renewal that was seen since the last charge is one of it."""
    now = replace(QUOTA_CHANGE, found_at=None)
    for known in ({"period_start": at(9_999)}, {"renewals_seen": (at(9_999),)}):
        assert explain_changes([OPENING, now], Circumstances(**known)) == Explanation()  # type: ignore[arg-type]


def test_a_row_that_may_come_later_is_not_missed() -> None:
    """Only one that must have been applied is said to be unapplied."""
    rows = (OtherRow(at(1), Decimal(25), is_doubtful=True), OtherRow(at(2), Decimal(7)))
    assert explain_changes([OPENING], Circumstances(rows)).unapplied == rows[1:]


@pytest.mark.parametrize(
    ("found", "known", "is_possible"),
    [
        pytest.param(Funds(Decimal(6), 10), {}, True, id="a balance"),
        pytest.param(Funds(Decimal(5), 500), {}, True, id="a quota that no period has"),
        pytest.param(
            Funds(Decimal(5), 500), {"full_quotas": frozenset({500})}, False, id="a full quota"
        ),
        pytest.param(
            Funds(Decimal(5), 500),
            {"full_quotas": frozenset({500}), "period_start": at(-60)},
            True,
            id="a full quota in the midst of a period",
        ),
        pytest.param(Funds(Decimal(6), 500), {"full_quotas": frozenset({500})}, True, id="both"),
    ],
)
def test_entries_are_read_where_a_change_may_be_a_loss(
    found: Funds, known: dict[str, object], *, is_possible: bool
) -> None:
    """A quota that is full again was renewed, unless its period began before."""
    circumstances = Circumstances(**known)  # type: ignore[arg-type]
    explanation = explain_changes([OPENING, replace(QUOTA_CHANGE, found=found)], circumstances)
    assert is_loss_possible(explanation, circumstances) == is_possible
    assert not is_loss_possible(Explanation(), circumstances)


def test_a_balance_is_what_its_double_stands_for() -> None:
    """With nine decimal places, also where a double has fewer."""
    assert str(stored(Decimal("0.1"))) == "0.100000000"
    assert str(stored(Decimal("98765432.123456789"))) == "98765432.123456790"


def rests(explanation: Explanation) -> list[tuple[str, int]]:
    """Return what is unexplained, by balance and quota."""
    return [(str(one.balance), one.quota) for one in explanation.unexplained]


def test_a_quota_that_changed_beside_a_loss_is_unexplained_as_far_as_it_was_not_lost() -> None:
    """What the stale write restored of it is part of the loss."""
    entries = charges("1", "2", included=10)
    restored = explain(entries, change(entries, "4", quota=90))
    assert (rests(restored), restored.losses[0].is_last_quota) == ([], True)
    other = explain(entries, change(entries, "4", quota=85))
    assert (lost(other), rests(other)) == ([(["charge-1"], "2", 0)], [("0", 5)])
    assert not other.losses[0].is_last_quota


@pytest.mark.parametrize(("quota", "restored"), [(100, 20), (500, 420)])
def test_a_quota_is_restored_by_what_was_used_or_to_what_was_found(
    quota: int, restored: int
) -> None:
    """An entry found another quota than ours left, as others had changed it meanwhile."""
    entries = charges("1", "2", included=10)
    entries[0] = replace(entries[0], found=Funds(Decimal(5), 500))
    explanation = explain(entries, change(entries, "5", quota=quota))
    assert lost(explanation) == [(["charge-0", "charge-1"], "3", restored)]
    assert rests(explanation) == []


@pytest.mark.parametrize(("minute", "ids"), [(2, ["charge-0", "charge-1", "charge-2"]), (1.9, [])])
def test_charges_of_a_whole_day_may_be_lost_at_once(minute: float, ids: list[str]) -> None:
    """And none that is older by a moment."""
    entries = charges("1", "2", "3")
    entries[0] = replace(entries[0], at=at(minute - 60 * 24))
    found = lost(explain(entries, change(entries, "5")))
    assert found == ([(ids, "6", 0)] if ids else [])


def test_each_change_is_explained_by_rows_of_its_own() -> None:
    """What the first one leaves of them waits for the next; a change of nothing takes none."""
    start = Funds(Decimal(4), 0)
    topped_up, again = Funds(Decimal(11), 0), Funds(Decimal(36), 0)
    changes = [
        OPENING,
        Change("charge-0", at(0), start, at(1), start),
        Change("charge-0", at(0), start, at(1), topped_up),
        Change("charge-1", at(1), topped_up, at(2), again),
    ]
    rows = (OtherRow(at(0.5), Decimal(7)), OtherRow(at(1.5), Decimal(25)))
    assert explain_changes(changes, Circumstances(rows)) == Explanation()


def test_rows_explain_as_much_of_a_change_as_they_can() -> None:
    """Those that come closest; the others were not applied."""
    entries = charges("1", "2")
    explanation = explain(entries, change(entries, "28.5"), (1.2, "7"), (1.3, "25"))
    assert rests(explanation) == [("1.5", 0)]
    assert [row.amount for row in explanation.unapplied] == [7]


@pytest.mark.parametrize("place", range(4))
def test_a_row_among_others_that_were_not_applied_explains_a_change(place: int) -> None:
    """Whichever it is."""
    entries = charges("1", "2")
    amounts = [700, 2_500, 90, 40]
    rows = [(1 + number / 10, str(amount)) for number, amount in enumerate(amounts)]
    explanation = explain(entries, change(entries, str(2 + amounts[place])), *rows)
    assert (rests(explanation), lost(explanation)) == ([], [])
    assert [row.amount for row in explanation.unapplied] == amounts[:place] + amounts[place + 1 :]


def test_a_period_that_began_with_the_last_charge_may_have_renewed_a_quota() -> None:
    """It did not where it began before: then the charge that used the quota was lost."""
    entries = charges("0", included=10)
    full = change(entries, "5", quota=FULL_QUOTA)
    restored = Circumstances(full_quotas=frozenset({FULL_QUOTA}), period_start=at(0))
    assert is_loss_possible(Explanation((Unexplained(full, Decimal(0), 10),)), restored) is False
    before = replace(restored, period_start=at(-0.1))
    assert is_loss_possible(Explanation((Unexplained(full, Decimal(0), 10),)), before) is True


def test_a_loss_is_of_charges_before_the_change() -> None:
    """Later ones, of the same amount, were booked on what the stale write left."""
    entries = charges("1", "1")
    entries[1] = replace(entries[1], found=Funds(Decimal(5), FULL_QUOTA))
    stale = Change(
        "charge-0", at(0), Funds(Decimal(4), FULL_QUOTA), at(1), Funds(Decimal(5), FULL_QUOTA)
    )
    assert lost(explain(entries, stale)) == [(["charge-0"], "1", 0)]


def test_a_change_after_an_entry_that_is_not_known_is_no_loss() -> None:
    """Its charges are not among those that were read."""
    entries = charges("1", "1")
    stale = Change("other", at(0), Funds(Decimal(4), 0), at(1), Funds(Decimal(5), 0))
    explanation = explain(entries, stale)
    assert (lost(explanation), rests(explanation)) == ([], [("1", 0)])


def test_what_remains_once_funds_are_set_off_tells_where_it_was_found() -> None:
    """Funds that were left twice and found once are set off once."""
    three, four, five, six = (Funds(Decimal(amount), 0) for amount in (3, 4, 5, 6))
    changes = [
        Change(None, None, None, at(0), Funds(Decimal(9), 0)),
        Change("a", at(0), four, at(1), six),
        Change("b", at(1), three, at(2), five),
        Change("c", at(2), five, at(3), four),
        Change("d", at(3), four, None, three),
    ]
    (rest,) = explain_changes(changes, Circumstances()).unexplained
    assert (rest.balance, rest.change.found_at, rest.change.found) == (2, at(1), six)
    assert (rest.change.after_id, rest.change.left) == ("d", four)


@pytest.mark.parametrize("quota", [9, 11])
def test_a_renewal_may_change_a_quota_by_a_byte(quota: int) -> None:
    """It is one all the same."""
    changed = replace(QUOTA_CHANGE, found=Funds(Decimal(5), quota))
    known = Circumstances(period_start=at(30))
    assert explain_changes([OPENING, changed], known) == Explanation()


def test_the_id_of_a_repair_never_changes() -> None:
    """It is on record."""
    account, entry = (f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2))
    assert repair_id_of(account, entry) == "410d85ed-f4b5-519b-ae9a-5fa2ab61e5e4"
