"""Which minutes use quota that corrections return or a renewal brings, and which do not."""

from __future__ import annotations

import pytest

from billing_cli.core.adjustments import RETURNED_REASON
from billing_cli.core.rating import adjustment_id
from tests.unit.core import tariffs
from tests.unit.core.test_quota_periods import PERIOD_MINUTES, PRICE, Ledger, play


def included(ledger: Ledger) -> list[int]:
    """Return the included bytes of each entry, as they were written."""
    return [entry.included_bytes for entry in ledger.entries]


@pytest.mark.parametrize(("added", "returned"), [(20, 30), (1, 1)])
def test_bytes_that_are_added_use_what_a_later_minute_returns(added: int, returned: int) -> None:
    """In one run; they are charged first, and the entry that gives the price back says why."""
    later = tariffs.bucket(50, minute=2)
    ledger = play([50, 100, 0], [(0, [later]), (1, [])])
    ledger.correct(tariffs.bucket(added, minute=1), later._replace(uplink_bytes=-returned))
    assert [
        (entry.included_bytes, entry.rated_bytes, entry.amount_delta, entry.reason)
        for entry in ledger.entries[1:]
    ] == [
        (0, added, -added * PRICE, "because"),
        (added, -added, added * PRICE, RETURNED_REASON),
        (-returned, 0, 0, "because"),
    ]
    assert ledger.account.renewals[0].former_quota == returned - added
    assert ledger.account.current_balance == 0


def test_before_the_first_renewal_added_bytes_use_what_a_later_minute_returns() -> None:
    """As they do in a period whose beginning is known."""
    later = tariffs.bucket(50, minute=2)
    ledger = play([50, 100, 0], [(0, [later])])
    ledger.correct(tariffs.bucket(20, minute=1), later._replace(uplink_bytes=-30))
    assert included(ledger) == [50, 0, 20, -30]
    assert ledger.account.remaining_included_quota == 10
    assert ledger.account.current_balance == 0


@pytest.mark.parametrize("in_order", [True, False])
def test_before_the_first_renewal_the_first_of_several_corrected_minutes_counts(
    in_order: bool,
) -> None:
    """In whatever order they are given."""
    first, second, third = (tariffs.bucket(40, minute=minute) for minute in (1, 2, 3))
    ledger = play([50, 100, 0], [(0, [first]), (0, [third]), (0, [second])])
    given = first._replace(uplink_bytes=-10), third._replace(uplink_bytes=-35)
    ledger.correct(*(given if in_order else reversed(given)))
    used = [entry.included_bytes for entry in ledger.entries if entry.key == second.key]
    assert sum(used) == 15
    assert ledger.account.remaining_included_quota == 0


def test_all_that_is_returned_is_used_where_corrected_minutes_lose_rated_bytes_too() -> None:
    """Minutes after them use what these do not need any more, down to the last byte."""
    sizes = {1: 40, 2: 50, 3: 10, 4: 40}
    first, covered, *others = (tariffs.bucket(size, minute=at) for at, size in sizes.items())
    ledger = play([50, 100, 0], [(0, [covered]), (0, [first, *others]), (1, [])])
    ledger.correct(first._replace(uplink_bytes=-40), covered._replace(uplink_bytes=-50))
    used = {bucket.key: 0 for bucket in (first, covered, *others)}
    for entry in ledger.entries:
        used[entry.key] += entry.included_bytes
    assert list(used.values()) == [0, 0, 10, 40]
    assert ledger.account.renewals[0].former_quota == 0
    assert ledger.account.current_balance == 0


@pytest.mark.parametrize(
    ("changed_by", "corrected", "entries"),
    [
        pytest.param(100, (0, -10), [0], id="more, and rated bytes go back"),
        pytest.param(-100, (5, -40), [0, -10], id="less, and included bytes go back later"),
    ],
)
def test_corrected_minutes_use_no_quota_that_others_have_changed(
    changed_by: int, corrected: tuple[int, int], entries: list[int]
) -> None:
    """What they were charged as included or rated stays so, whatever quota is there now."""
    minutes = tariffs.bucket(50, minute=1), tariffs.bucket(50, minute=2)
    ledger = play([70, 100, 0], [(0, minutes), (1, [])])
    (renewal,) = ledger.account.renewals
    changed = renewal._replace(former_quota=renewal.former_quota + changed_by)
    ledger.account = ledger.account._replace(renewals=(changed,))
    changes = zip(minutes, corrected, strict=True)
    ledger.correct(*(one._replace(uplink_bytes=size) for one, size in changes if size))
    assert included(ledger) == [50, 20, *entries]


def test_a_renewal_to_a_smaller_quota_makes_the_first_minutes_pay() -> None:
    """No minute has fewer included bytes than none."""
    early = [
        tariffs.bucket(30, minute=PERIOD_MINUTES),
        tariffs.bucket(40, minute=PERIOD_MINUTES + 1),
    ]
    ledger = play([100, 20, 0], [(0, early), (1, [])])
    assert included(ledger) == [30, 40, -30, -20]
    assert ledger.account.remaining_included_quota == 0
    assert ledger.account.current_balance == -50 * PRICE


def test_a_minute_that_the_new_quota_covers_as_the_former_did_gets_no_entry() -> None:
    """Its charge is right; one that is not gets the only entry."""
    right, early = tariffs.bucket(80, minute=PERIOD_MINUTES), PERIOD_MINUTES + 1
    ledger = play([100, 100, 0], [(0, [right, tariffs.bucket(25, minute=early)]), (1, [])])
    charged, paid, *more = ledger.entries
    assert (charged.included_bytes, paid.included_bytes, paid.rated_bytes) == (80, 20, 5)
    assert more == []


def test_each_charge_of_a_minute_that_a_renewal_covers_has_an_entry_of_its_own() -> None:
    """Their ids count on from what the minute has."""
    early = tariffs.bucket(30, minute=PERIOD_MINUTES)
    ledger = play([0, 100, 0], [(0, [early])])
    ledger.correct(early._replace(uplink_bytes=20))
    charged, added = ledger.entries
    ledger.renew(1, 100, [])
    assert [
        (entry.ledger_id, entry.adjusts, entry.included_bytes) for entry in ledger.entries[2:]
    ] == [
        (adjustment_id(early.key, 2), charged.ledger_id, 30),
        (adjustment_id(early.key, 3), added.ledger_id, 20),
    ]
