"""Whatever a read service does between charges, explanations and repairs add up to the truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.balances import explain_changes, stored
from billing_cli.core.funds import (
    Change,
    Circumstances,
    Funds,
    LostCharge,
    OtherRow,
    OwnEntry,
)
from tests.unit.core.examples import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
NANO = Decimal("1e-9")

# The kinds of what happens, one a minute. A top-up writes its row before or after the balance; a
# stale write is read at one of the last charges. A refund gives back all that was charged, or lets
# the account have exactly what it began with.
Event = tuple[str, int, int]


def events_of(*kinds: str) -> st.SearchStrategy[list[Event]]:
    """Return what may happen to an account, by these kinds."""
    return st.lists(
        st.tuples(st.sampled_from(kinds), st.integers(1, 10**12), st.integers(0, 3)),
        min_size=2,
        max_size=25,
        unique_by=lambda event: event[1],
    )


EVENTS = events_of("charge", "charge", "charge", "top_up", "late_row", "stale", "stale_top_up")
RETURNS = events_of("charge", "charge", "top_up", "stale", "refund", "return")


class Account:
    """An account, what others do to its row, and what it should have."""

    def __init__(self) -> None:
        self.funds = Funds(Decimal(1000), 10**6)
        self.right = self.funds.balance
        self.now = START
        self.entries: list[OwnEntry] = []
        self.changes: list[Change] = []
        self.rows: list[OtherRow] = []
        self.states = [self.funds]

    def play(self, events: Sequence[Event]) -> None:
        """Let everything happen, and look at the row afterwards."""
        self.charge(1, 0)
        for kind, number, back in events:
            self.now += timedelta(minutes=1)
            amount = Decimal(number) * NANO
            former = self.states[-1 - min(back, len(self.states) - 1)]
            if kind == "charge":
                self.charge(number, back)
            elif kind == "refund":
                self.book(-sum((entry.amount_delta for entry in self.entries), Decimal(0)), 0)
            elif kind == "return":
                self.book(1000 - self.funds.balance, self.funds.quota - 10**6)
            elif kind in {"top_up", "late_row"}:
                late = timedelta(minutes=9 if kind == "late_row" else 0)
                self.rows.append(OtherRow(self.now + late, amount))
                self.funds = self.funds._replace(balance=self.funds.balance + amount)
                self.right += amount
            elif kind == "stale":
                self.funds = former
            else:
                self.rows.append(OtherRow(self.now, amount))
                self.funds = Funds(former.balance + amount, former.quota)
                self.right += amount
        self.look(None)

    def charge(self, nanos: int, included: int) -> None:
        """Charge so much, and so many bytes of the quota."""
        self.book(-Decimal(nanos) * NANO, included)

    def book(self, amount: Decimal, included: int) -> None:
        """Write an entry of so much."""
        self.look(self.now)
        name = f"charge-{len(self.entries)}"
        lost = LostCharge(name, self.now, amount, included)
        self.entries.append(OwnEntry(name, self.now, self.funds, amount, included, (lost,)))
        self.states.append(self.funds)
        self.funds = Funds(self.funds.balance + amount, self.funds.quota - included)
        self.right += amount

    def look(self, at: datetime | None) -> None:
        """Note where the row does not have what the last charge left."""
        if not self.entries:
            self.changes.append(Change(None, None, None, at, self.funds))
            return
        last = self.entries[-1]
        left = Funds(last.found.balance + last.amount_delta, last.found.quota - last.included_bytes)
        if left != self.funds:
            left_at = last.charges[0].bucket_start
            self.changes.append(Change(last.entry_id, left_at, left, at, self.funds))


@examples()
@given(EVENTS | RETURNS)
def test_repaired_balances_are_right(events: list[Event]) -> None:
    """What is left of a change, a loss or a row is exactly what the balance is wrong by."""
    account = Account()
    account.play(events)
    rows = sorted(account.rows)

    explanation = explain_changes(account.changes, Circumstances(rows), account.entries)

    repaired = account.funds.balance - sum(loss.amount for loss in explanation.losses)
    outside = sum((rest.balance for rest in explanation.unexplained), Decimal(0))
    unapplied = sum((row.amount for row in explanation.unapplied), Decimal(0))
    assert repaired - outside + unapplied == account.right


@examples()
@given(events_of("charge", "charge", "refund", "return"), st.integers(1, 10**15), st.booleans())
def test_a_change_that_no_row_explains_is_seen(
    events: list[Event], nanos: int, is_found_by_charge: bool
) -> None:
    """Whatever the charges and refunds before it led to."""
    account = Account()
    account.play(events)
    account.funds = Funds(account.funds.balance + nanos * NANO, account.funds.quota)
    if is_found_by_charge:
        account.now += timedelta(minutes=1)
        account.charge(1, 0)
    account.look(None)

    explanation = explain_changes(account.changes, Circumstances(), account.entries)

    assert explanation.unexplained or explanation.losses


@examples()
@given(events_of("charge", "top_up"))
def test_recorded_top_ups_leave_nothing_to_say(events: list[Event]) -> None:
    """However many there are between two charges."""
    account = Account()
    account.play(events)

    explanation = explain_changes(account.changes, Circumstances(account.rows), account.entries)

    assert (explanation.unexplained, explanation.losses, explanation.unapplied) == ((), (), ())


@examples()
@given(st.integers(-(10**18), 10**18), st.integers(-(10**18), 10**18).filter(bool))
def test_a_recorded_amount_explains_what_a_service_stores_as_the_sum_of_two_doubles(
    nanos: int, amount_nanos: int
) -> None:
    """Up to balances of a billion, of which a nano is less than the last place.

    What is lost in the last places of such a balance may as well not have been applied.
    """
    before, amount = stored(nanos * NANO), amount_nanos * NANO
    found = stored(Decimal(float(before) + float(amount)))
    change = Change("charge-0", START, Funds(before, 0), START, Funds(found, 0))

    explanation = explain_changes([change], Circumstances([OtherRow(START, amount)]), [])

    assert (explanation.unexplained, explanation.losses) == ((), ())
    assert explanation.unapplied == () or abs(amount) <= 2 * change.rounding


@examples()
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=20, unique=True), st.data())
def test_a_stale_write_loses_exactly_the_charges_after_its_read(
    amounts: list[int], data: st.DataObject
) -> None:
    """Whichever of the states before it was read."""
    account = Account()
    for amount in amounts:
        account.charge(amount, 7)
    back = data.draw(st.integers(1, len(amounts)))
    account.funds = account.states[-back]
    account.look(None)

    (loss,) = explain_changes(account.changes, Circumstances(), account.entries).losses

    assert loss.charges == tuple(entry.charges[0] for entry in account.entries[-back:])
    assert loss.quota == 7 * back
    assert account.funds.balance - loss.amount == account.right
