"""Streams that are not charged and go on under other names: they stay what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.changes import by_account
from billing_cli.core.model import Succession, SuccessionSide
from billing_cli.core.succession import covers, minus, one_to_one, total_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from billing_cli.core.changes import Changes
    from billing_cli.core.model import Checkpoint, StreamName, Totals

UNCHARGED = {"duplicate", "ignored"}


def uncharged_successions(
    changes: Changes,
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
    at: datetime,
) -> list[Succession]:
    """Return how duplicate and ignored streams that are gone continue.

    Under the same inbound tag, a stream stays what it was. Where only the sizes pair them, an
    operator decides: what it counts from then on is held as a duplicate.
    """
    accounts = dict.fromkeys(
        account_of(name) for name in changes.gone if known[name].state in UNCHARGED
    )
    gone = by_account(changes.gone.items(), account_of)
    new = by_account(changes.new.items(), account_of)
    return [
        Succession(
            kind="renamed",
            at=at,
            ended=(SuccessionSide(former, changes.gone[former]),),
            continued=(SuccessionSide(name, changes.gone[former]),),
            state=known[former].state if name.inbound_tag == former.inbound_tag else "duplicate",
        )
        for account in accounts
        for name, former in _pairs(gone[account], new.get(account, {}), known).items()
        if known[former].state in UNCHARGED and any(changes.gone[former])
    ]


def _pairs(
    gone: Mapping[StreamName, Totals],
    new: Mapping[StreamName, Totals],
    known: Mapping[StreamName, Checkpoint],
) -> dict[StreamName, StreamName]:
    """Return which new stream of an account continues which one that is gone.

    All of them are paired, charged or not, where they are as many. Else those that are not charged
    are, the largest first: each with the smallest stream that covers it, if the other new ones
    cover what is charged. A stream of the same inbound tag comes first.
    """
    pairs = one_to_one(gone, new)
    if pairs:
        return pairs
    charged = total_of(totals for name, totals in gone.items() if known[name].state == "active")
    uncharged = [name for name in gone if known[name].state in UNCHARGED]
    left = dict(new)
    for former in sorted(uncharged, key=lambda name: (-sum(gone[name]), name)):
        others = minus(total_of(left.values()), charged)
        found = [
            name
            for name, totals in left.items()
            if covers(totals, gone[former]) and covers(others, totals)
        ]
        if found:
            tag = former.inbound_tag
            name = min(found, key=lambda name: (name.inbound_tag != tag, sum(left[name]), name))
            pairs[name] = former
            del left[name]
    return pairs
