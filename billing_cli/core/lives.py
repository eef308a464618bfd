"""Accounts that were deleted and created again with the same uuid: where the present one begins.

Of the former account our entries are left, without their ledger rows. The funds of the present one
do not follow from them, and ledger rows that are there explain nothing of before. But a service
that read the former row may write it back: then funds of the former account are found again.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.core.funds import LATEST, ROW_DELAY, Change, Circumstances, Funds, Loss, rounding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.core.funds import OwnEntry

ZERO = Decimal(0)


def of_present_life(
    changes: Sequence[Change], circumstances: Circumstances, entries: Sequence[OwnEntry]
) -> tuple[Sequence[Change], Circumstances]:
    """Return the changes and rows of the account as it was created last.

    The change between its last entry of before and its first one since only shows with which funds
    it began: a stale write in the same place can't be distinguished from that. Rows around it may
    have changed the balance before the first entry, or later.
    """
    former = {entry.entry_id for entry in entries if not entry.is_on_record}
    places = [place for place, change in enumerate(changes) if change.after_id in former]
    if not places:
        return changes, circumstances
    begun = changes[places[-1]]
    begun_at = begun.found_at
    rows = [
        row._replace(is_doubtful=row.is_doubtful or row.created_at <= begun_at + ROW_DELAY)
        for row in circumstances.rows
        if begun_at is not None and row.created_at >= begun_at
    ]
    opening = Change(None, None, None, begun_at, begun.found)
    return [opening, *changes[places[-1] + 1 :]], replace(circumstances, rows=rows)


def is_former_row(change: Change, before: Sequence[OwnEntry], amount: Decimal) -> bool:
    """Return whether what was found is a row of the former account, with `amount` on top.

    An entry of the last day found or left these funds, to a place in which doubles are rounded.
    """
    found = change.found
    return any(
        held.quota == found.quota
        and abs(held.balance + amount - found.balance) <= rounding(held, found)
        for entry in before[: _begin(before)]
        if change.left_at is not None and entry.at >= change.left_at - LATEST
        for held in (entry.found, entry.left)
    )


def given_back(
    change: Change, before: Sequence[OwnEntry], losses: Sequence[Loss], given: Funds
) -> Loss | None:
    """Return what a row of the former account gave back of what our entries took since.

    `given` is what it added in all: more than our entries took, without what earlier `losses` gave
    back already, is no loss. The charges are the latest ones that took so much.
    """
    present = before[_begin(before) :]
    taken = Funds(
        -sum((entry.amount_delta for entry in present), ZERO)
        - sum((max(ZERO, earlier.amount) for earlier in losses), ZERO),
        sum(entry.included_bytes for entry in present)
        - sum(max(0, earlier.quota) for earlier in losses),
    )
    amount = max(ZERO, min(given.balance, taken.balance))
    quota = max(0, min(given.quota, taken.quota))
    if not amount and not quota:
        return None
    total, included, count = ZERO, 0, 0
    while total < amount or included < quota:
        count += 1
        total -= present[-count].amount_delta
        included += present[-count].included_bytes
    charges = tuple(charge for entry in present[-count:] for charge in entry.charges)
    return Loss(change, charges, amount, quota)


def _begin(entries: Sequence[OwnEntry]) -> int:
    """Return the place of the first entry of the present account."""
    return max(
        (place for place, entry in enumerate(entries, start=1) if not entry.is_on_record), default=0
    )
