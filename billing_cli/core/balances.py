"""Explaining every change of an account's balance and quota between our own entries.

Each entry of ours found certain funds and left others. Where the next one finds something else,
another writer changed the row in between: a recorded top-up or adjustment, a renewed quota, a
change without any row, or a stale write that restored funds from before our latest charges.

Balances are compared as the doubles that were stored, with 9 decimal places. Quotas are in bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from decimal import Decimal, localcontext
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.funds import (
    LATEST,
    ROW_DELAY,
    Change,
    Circumstances,
    Explanation,
    Funds,
    Loss,
    OtherRow,
    OwnEntry,
    Unexplained,
)
from billing_cli.core.lives import given_back, is_former_row, of_present_life
from billing_cli.core.rating import EXACT, NANO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ZERO = Decimal(0)


def explain_changes(
    changes: Sequence[Change],
    circumstances: Circumstances,
    entries: Sequence[OwnEntry] = (),
) -> Explanation:
    """Explain an account's changes; `changes` and `entries` are in the order of their stamps.

    The first change is the one that shows how the account began. Without `entries` no loss is
    recognised. Entries are stamped under the lock of their account, but earlier versions stamped
    some in another order than they passed the funds on. So where something stays unexplained in the
    order of the stamps, and less does once funds that were left and found again elsewhere are set
    off, the changes that remain then are explained.
    Of an account that was created again, the changes since are explained.
    """
    with localcontext(EXACT):
        changes, circumstances = of_present_life(changes, circumstances, entries)
        in_order = _explain(_after_entries(changes), circumstances, entries)
        if not in_order.unexplained or changes[0].left is not None:
            return in_order
        begun, remaining = _set_off(changes)
        set_off = _explain(remaining, circumstances, entries)
    is_better = len(set_off.unexplained) < len(in_order.unexplained)
    if begun is not changes[0]:
        # Another beginning than the first entry found hides how much differs between them.
        is_better = not set_off.unexplained and not set_off.losses
        is_better &= len(set_off.unapplied) <= len(in_order.unapplied)
        is_better &= _are_joined(changes, remaining)
    return set_off if is_better else in_order


def explain_in_order(changes: Sequence[Change], circumstances: Circumstances) -> Explanation:
    """Explain an account's changes by rows and renewals alone, in the order of their stamps.

    What may be a loss, or is a matter of the order of the stamps, is unexplained.
    """
    with localcontext(EXACT):
        return _explain(_after_entries(changes), circumstances, ())


def is_loss_possible(explanation: Explanation, circumstances: Circumstances) -> bool:
    """Return whether an unexplained change may be a loss, so that entries are needed."""
    return any(
        change.balance != 0 or not _may_be_renewal(change.change, circumstances)
        for change in explanation.unexplained
    )


def stored(balance: Decimal) -> Decimal:
    """Return what the double that a balance is stored as stands for, with 9 decimal places."""
    return EXACT.quantize(Decimal(repr(float(balance))), NANO)


def _after_entries(changes: Sequence[Change]) -> list[Change]:
    return [change for change in changes if change.left is not None]


def _explain(
    changes: Sequence[Change], circumstances: Circumstances, entries: Sequence[OwnEntry]
) -> Explanation:
    waiting = list(circumstances.rows)
    places = {entry.entry_id: place for place, entry in enumerate(entries, start=1)}
    unexplained: list[Unexplained] = []
    losses: list[Loss] = []
    for change in changes:
        balance, quota = _difference(change)
        if not balance and not quota:
            continue
        is_renewal = quota != 0 and _is_renewal(change, circumstances)
        choices = _choices(waiting, change)
        exact = [rows for rows in choices if abs(balance - rows.amount) <= change.rounding]
        loss, rows = None, min(exact or choices, key=lambda rows: abs(balance - rows.amount))
        if not exact or (quota and not is_renewal):
            before = entries[: places.get(change.after_id or "", 0)]
            wanted = exact[:1] or choices
            found = _find_loss(change, before, wanted, circumstances)
            # A charge that came back without its quota explains less than a row that had both.
            if found is None or found[0].quota != quota:
                found = _find_former(change, before, wanted, circumstances, losses) or found
            loss, rows = found or (None, rows)
        del waiting[rows.start : rows.end]
        rest = ZERO if exact else balance - rows.amount
        if loss is not None:
            rest -= ZERO if exact else loss.amount
            losses.append(loss)
            quota -= loss.quota
        if quota:
            losses = [
                replace(candidate, is_last_quota=candidate is loss and loss.quota != 0)
                for candidate in losses
            ]
        if is_renewal:
            quota = 0
        if quota or rest:
            unexplained.append(Unexplained(change, rest, quota))
    unapplied = tuple(row for row in waiting if not row.is_doubtful)
    return Explanation(tuple(unexplained), tuple(losses), unapplied)


class _Rows(NamedTuple):
    """Rows that may explain a change together: a part of those that wait, and their sum."""

    start: int
    end: int
    amount: Decimal


def _find_loss(
    change: Change,
    before: Sequence[OwnEntry],
    choices: Iterable[_Rows],
    circumstances: Circumstances,
) -> tuple[Loss, _Rows] | None:
    """Return the latest entries that the change undid, as few as possible, and the rows with them.

    Entries of which the quota was restored as well come before those of which it was not.
    """
    balance, quota = _difference(change)
    wanted, rounding = [(rows, balance - rows.amount) for rows in choices], change.rounding
    of_balance: tuple[Loss, _Rows] | None = None
    total, included = ZERO, 0
    for count, entry in enumerate(reversed(before), start=1):
        if not entry.is_on_record or (change.left_at and entry.at < change.left_at - LATEST):
            break
        total -= entry.amount_delta
        included += entry.included_bytes
        is_quota_restored = quota == included or change.found.quota == entry.found.quota
        for rows, rest in wanted:
            is_former = balance != 0 and rows.start == rows.end
            is_former &= change.found.balance == entry.found.balance
            if not is_former and abs(total - rest) > rounding:
                continue
            charges = tuple(charge for lost in before[-count:] for charge in lost.charges)
            loss = Loss(change, charges, balance - rows.amount, quota)
            if is_quota_restored and (total or not _may_be_renewal(change, circumstances)):
                return loss, rows
            if total and of_balance is None:
                of_balance = replace(loss, quota=0), rows
    return of_balance


def _find_former(
    change: Change,
    before: Sequence[OwnEntry],
    choices: Iterable[_Rows],
    circumstances: Circumstances,
    losses: Sequence[Loss],
) -> tuple[Loss, _Rows] | None:
    """Return what a row that was read before the account was created again gave back, if any."""
    balance, quota = _difference(change)
    for rows in choices:
        if is_former_row(change, before, rows.amount):
            loss = given_back(change, before, losses, Funds(balance - rows.amount, quota))
            if loss and (loss.amount or not _may_be_renewal(change, circumstances)):
                return loss, rows
    return None


def _set_off(changes: Sequence[Change]) -> tuple[Change, list[Change]]:
    """Return what remains once funds that were left are paired with where they were found.

    What the next entry found as it was left is paired with itself, not with an equal one elsewhere.
    The first funds that no entry left are what the account began with: the change that found them
    is returned as well. The state as it is now is no beginning: its change remains.
    """
    changes = [change for change in changes if change.left != change.found]
    left = _after_entries(changes)
    founds: Counter[Funds | None] = Counter(change.found for change in changes)
    paired = founds & Counter(change.left for change in left)
    # Of equal funds that are found again, those that the account began with are paired last.
    latest = [*changes[1:], changes[0]]
    open_found = _without(latest, [change.found for change in latest], paired)
    begun = open_found.pop(-1 if open_found[-1] is changes[0] else 0)
    if begun.found_at is None:
        return begun, [begun]
    open_left = _without(left, [change.left for change in left], paired)
    return begun, [
        replace(before, found_at=after.found_at, found=after.found)
        for before, after in zip(open_left, open_found, strict=True)
    ]


def _are_joined(changes: Sequence[Change], remaining: Sequence[Change]) -> bool:
    """Return whether the entries between the changes are joined, by equal funds or what remains."""
    joined: defaultdict[Funds | None, list[Funds | None]] = defaultdict(list)
    for start, end in (
        *((before.found, after.left) for before, after in pairwise(changes)),
        *((change.left, change.found) for change in remaining),
    ):
        joined[start].append(end)
        joined[end].append(start)
    reached: set[Funds | None] = set()
    waiting = [next(iter(joined))]
    while waiting:
        funds = waiting.pop()
        if funds not in reached:
            reached.add(funds)
            waiting += joined[funds]
    return all(change.found in reached for change in changes)


def _without(
    changes: Sequence[Change], funds: Sequence[Funds | None], paired: Counter[Funds | None]
) -> list[Change]:
    waiting = Counter(paired)
    kept = []
    for change, value in zip(changes, funds, strict=True):
        if waiting[value] > 0:
            waiting[value] -= 1
        else:
            kept.append(change)
    return kept


def _difference(change: Change) -> Funds:
    left = change.left or change.found
    return Funds(change.found.balance - left.balance, change.found.quota - left.quota)


def _choices(waiting: Sequence[OtherRow], change: Change) -> list[_Rows]:
    """Return which rows may explain a change together: none, the first ones, the last ones, one.

    Rows and balances are written in separate statements, so that a row may be early or late.
    """
    limit = change.found_at and change.found_at + ROW_DELAY
    rows = [row for row in waiting if limit is None or row.created_at <= limit]
    sums = list(accumulate((row.amount for row in rows), initial=ZERO))
    count = len(rows)
    return [
        _Rows(0, 0, ZERO),
        *(_Rows(0, end, sums[end]) for end in range(1, count + 1)),
        *(_Rows(start, count, sums[count] - sums[start]) for start in range(1, count)),
        *(_Rows(place, place + 1, rows[place].amount) for place in range(1, count - 1)),
    ]


def _is_renewal(change: Change, circumstances: Circumstances) -> bool:
    """Return whether the quota was renewed between the entries around a change, or just before."""
    period_start, left_at = circumstances.period_start, change.quota_left_at
    if left_at is None:
        return False
    if any(
        left_at <= seen_at and (change.found_at is None or seen_at <= change.found_at)
        for seen_at in circumstances.renewals_seen
    ):
        return True
    if period_start is None:
        return False
    is_begun = change.found_at is None or period_start <= change.found_at + ROW_DELAY
    return is_begun and left_at <= period_start + ROW_DELAY


def _may_be_renewal(change: Change, circumstances: Circumstances) -> bool:
    """Return whether a quota that was restored may be a renewed one: the smaller charge counts."""
    start, left_at = circumstances.period_start, change.quota_left_at
    if start is not None and left_at is not None and start < left_at:
        return False
    return change.found.quota in circumstances.full_quotas
