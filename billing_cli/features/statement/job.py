"""`statement`: reads one state of the database, and changes nothing.

Charges are of the day on which they were booked, as the leaves of sealed days are.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.funds import ROW_DELAY
from billing_cli.core.seals import AccountDay, money_text
from billing_cli.core.statement_shape import FORMAT
from billing_cli.core.statements import content_sha256, is_proven, nodes_of, proof_object, totals_of
from billing_cli.core.times import format_rfc3339
from billing_cli.database.connection import Session
from billing_cli.database.lookup import find_account
from billing_cli.database.partitions import read_evidence_since
from billing_cli.database.schema import require_head
from billing_cli.database.seals import read_head
from billing_cli.errors import UsageError
from billing_cli.features.statement import queries as store
from billing_cli.features.statement.queries import OtherEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import Connection

    from billing_cli.core.statement_shape import Object
    from billing_cli.core.statements import DayProof
    from billing_cli.features.statement.queries import BookedCharge
    from billing_cli.jobs.context import JobContext

ZERO = Decimal(0)

# What is booked without a leaf comes after what has one, in the order of writing.
NO_LEAF = 1 << 50


class Booking(NamedTuple):
    """A charge in the order of booking: the balance and the quota around it."""

    at: datetime
    balance_before: Decimal
    amount: Decimal
    quota_before: int
    quota_after: int


def statement(context: JobContext, account: str, month: date) -> Object:
    """Return an account's statement of a month, which begins at `month`, as a JSON object.

    `account` is its uuid, a proxy uuid or its e-mail address. Raises UsageError for an
    unknown account or a month that has not begun, BillingError where the database can't be read.
    """
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    end = datetime(month.year + month.month // 12, month.month % 12 + 1, 1, tzinfo=UTC)
    if start > context.clock():
        raise UsageError(f"the month {month:%Y-%m} has not begun yet")

    def work(connection: Connection) -> Object:
        require_head(connection)
        account_uuid = find_account(connection, account).account_uuid
        kept_since = read_evidence_since(connection)
        if kept_since is not None and start < kept_since:
            raise UsageError(f"the facts of {start:%Y-%m} were pruned: see their archive")
        return _statement(connection, context, account_uuid, (start, end), kept_since)

    with Session(context.database) as session:
        return session.read_one_state(work)


def _statement(
    connection: Connection,
    context: JobContext,
    account: str,
    month: tuple[datetime, datetime],
    kept_since: datetime | None,
) -> Object:
    start, end = month
    head = read_head(connection)
    proofs = store.read_day_proofs(connection, account, start, end, head.tree_size)
    days, bookings = _days(account, store.read_charges(connection, account, start, end), proofs)
    _require_kept(days, proofs, kept_since)
    is_over = end <= context.clock()
    opening, closing, others = _balances(connection, account, month, bookings, is_over)
    totals = totals_of(days)
    made: Object = {
        "format": FORMAT,
        "account_uuid": account,
        "month": f"{start:%Y-%m}",
        "currency": context.currency,
        "opening_balance": money_text(opening),
        "closing_balance": money_text(closing),
        **totals,
        "quota": {
            "remaining_before": bookings[0].quota_before if bookings else None,
            "remaining_after": bookings[-1].quota_after if bookings else None,
        },
        "other_entries": [
            {
                "at": format_rfc3339(other.at),
                "kind": other.kind,
                "amount": money_text(other.amount),
                "reason": other.reason,
            }
            for other in others
        ],
        "days": days,
        "nodes": nodes_of(days),
        "proof": proof_object(head.note if proofs else None, proofs),
    }
    made["proof"]["sha256"] = content_sha256(made)
    return made


def _require_kept(
    days: Iterable[Object], proofs: Iterable[DayProof], kept_since: datetime | None
) -> None:
    """Raise UsageError where charges of earlier minutes, booked on these days, were pruned."""
    if kept_since is None:
        return
    sealed = {day["day"]: day for day in days if day["sealed"]}
    for proof in proofs:
        if not is_proven(sealed.get(proof.day.day.isoformat()), proof):
            raise UsageError(
                f"charges that were booked on {proof.day.day} are not there: minutes before "
                f"{format_rfc3339(kept_since)} were pruned: see their archive"
            )


def _days(
    account: str, charges: Iterable[BookedCharge], proofs: Sequence[DayProof]
) -> tuple[list[Object], list[Booking]]:
    """Return the days in their order, and the charges in the order of booking."""
    proven = {proof.day.day.isoformat() for proof in proofs}
    days: dict[tuple[str, bool], AccountDay] = {}
    booked: list[tuple[int, int, int, BookedCharge]] = []
    for number, charge in enumerate(charges):
        key = charge.day, charge.leaf_number is not None and charge.day in proven
        if key not in days:
            days[key] = AccountDay(account, date.fromisoformat(charge.day))
        leaf = charge.leaf_number
        place = NO_LEAF + charge.written_at if leaf is None else leaf
        days[key].add(charge.line, (place, charge.ordinal))
        booked.append((charge.written_at, charge.ordinal, number, charge))
    objects: list[Object] = [
        {**day.content(), "sealed": is_sealed} for (_, is_sealed), day in sorted(days.items())
    ]
    return objects, [_booking(charge) for *_, charge in sorted(booked, key=lambda row: row[:3])]


def _booking(charge: BookedCharge) -> Booking:
    fields = charge.line.split(b"\t")
    quota = int(fields[13])
    return Booking(
        datetime.fromtimestamp(charge.written_at / 1_000_000, UTC),
        Decimal(fields[14].decode()),
        Decimal(fields[12].decode()),
        quota,
        quota - int(fields[8]),
    )


def _balances(
    connection: Connection,
    account: str,
    month: tuple[datetime, datetime],
    bookings: Sequence[Booking],
    is_over: bool,
) -> tuple[Decimal, Decimal, list[OtherEntry]]:
    """Return opening and closing balance, and everything but charges that lies between them."""
    start, end = month
    first_at = bookings[0].at if bookings else end
    left = store.read_left_before(connection, account, min(first_at, end), end)
    others = store.read_others(connection, account, left[0] if left else "-infinity", end)
    replay = _Replay(left[1] if left else ZERO, start, is_new=left is None)
    waiting = deque(others)
    for booking in bookings:
        while waiting and waiting[0].at <= booking.at:
            replay.add(waiting.popleft())
        replay.compare(booking.balance_before, booking.at)
        replay.balance += booking.amount
    for other in waiting:
        replay.add(other)
    now = None if is_over else store.read_balance(connection, account)
    if now is not None:
        replay.compare(now, connection_now(connection))
    return replay.opening, replay.balance, replay.entries()


class _Replay:
    """A balance as it went, from what our newest entry before the first booking left.

    Charges that were written before `start` may be booked after it, where they were sealed late. So
    entries of others before `start` are applied in their place, but listed in another statement:
    here they are part of the `opening` balance.
    """

    def __init__(self, balance: Decimal, start: datetime, *, is_new: bool) -> None:
        self.balance = self.opening = balance
        self._start = start
        self._is_new = is_new
        self._shown: list[OtherEntry] = []
        self._rounding = ZERO
        self._rounded_at = start

    def add(self, other: OtherEntry) -> None:
        """Apply an entry that is no charge of ours: what a repair found comes before it."""
        if other.balance_before is not None:
            self.compare(other.balance_before, other.at, is_charge=False)
        self.balance += other.amount
        self._show(other)

    def compare(self, balance: Decimal, at: datetime, *, is_charge: bool = True) -> None:
        """Go on with the balance that was found there, by a charge of the statement or otherwise.

        What entries don't explain is an entry of its own, in the place where it was found. So is
        the balance that the account began with.
        """
        difference = balance - self.balance
        if float(balance) == float(self.balance):
            # The same double, of which the shared table keeps 15 digits.
            self._rounding += difference
            self._rounded_at = at if difference else self._rounded_at
        else:
            kind = "initial_balance" if self._is_new else "unexplained_change"
            self._show(OtherEntry(at, kind, difference, ""), is_charge=is_charge)
        self.balance = balance
        self._is_new = False

    def _show(self, entry: OtherEntry, *, is_charge: bool = False) -> None:
        if is_charge or entry.at >= self._start:
            self._shown.append(entry)
        else:
            self.opening += entry.amount

    def entries(self) -> list[OtherEntry]:
        """Return what is listed, with the sum of what was rounded."""
        rounding = OtherEntry(self._rounded_at, "rounding", self._rounding, "")
        return _without_pairs([*self._shown, *([rounding] if self._rounding else [])])


def connection_now(connection: Connection) -> datetime:
    """Return when the transaction began, by the clock of the server."""
    row = connection.execute("SELECT now()").fetchone()
    if row is None:
        raise AssertionError("a SELECT without FROM has a row")
    at: datetime = row[0]
    return at


def _without_pairs(entries: Sequence[OtherEntry]) -> list[OtherEntry]:
    """Leave out unexplained changes that add up to zero within minutes.

    A row came a little late, or runs that waited for each other were stamped in another order.
    """
    dropped: set[int] = set()
    group: list[int] = []
    for number, entry in enumerate(entries):
        if entry.kind != "unexplained_change":
            continue
        if group and entry.at - entries[group[0]].at > ROW_DELAY:
            group = []
        group.append(number)
        if not sum((entries[place].amount for place in group), ZERO):
            dropped.update(group)
            group = []
    return [entry for number, entry in enumerate(entries) if number not in dropped]
