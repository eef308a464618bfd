"""Streams that are not charged and go on under other names: they stay what they were."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from billing_cli.core.changes import by_account
from billing_cli.core.model import Succession, SuccessionSide
from billing_cli.core.succession import covers, minus, one_to_one, smaller, total_of

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
    """Return which stream of an account that is gone each new one continues.

    All of them are paired, charged or not, where they are as many. Else those of a tag that is
    there once on both sides are, and what is left and not charged by size.
    """
    pairs = one_to_one(gone, new)
    if pairs:
        return pairs
    pairs = _of_one_tag(gone, new)
    paired = set(pairs.values())
    ended = {name: totals for name, totals in gone.items() if name not in paired}
    begun = {name: totals for name, totals in new.items() if name not in pairs}
    return pairs | _by_size(ended, begun, known)


def _of_one_tag(
    gone: Mapping[StreamName, Totals], new: Mapping[StreamName, Totals]
) -> dict[StreamName, StreamName]:
    ended, begun = (Counter(name.inbound_tag for name in names) for names in (gone, new))
    formers = {name.inbound_tag: name for name in gone if ended[name.inbound_tag] == 1}
    return {
        name: formers[name.inbound_tag]
        for name, totals in new.items()
        if name.inbound_tag in formers
        and begun[name.inbound_tag] == 1
        and covers(totals, gone[formers[name.inbound_tag]])
    }


def _by_size(
    gone: Mapping[StreamName, Totals],
    new: Mapping[StreamName, Totals],
    known: Mapping[StreamName, Checkpoint],
) -> dict[StreamName, StreamName]:
    """Pair what is not charged, the largest first.

    Each goes on in the smallest stream that covers it and has not doubled since, if the other new
    ones cover what is charged.
    """
    charged = total_of(totals for name, totals in gone.items() if known[name].state == "active")
    uncharged = [name for name in gone if known[name].state in UNCHARGED]
    pairs: dict[StreamName, StreamName] = {}
    left = dict(new)
    for former in sorted(uncharged, key=lambda name: (-sum(gone[name]), name)):
        before = gone[former]
        doubled = total_of((before, before))
        others = minus(total_of(left.values()), charged)
        found = [
            name
            for name, totals in left.items()
            if covers(totals, before) and covers(smaller(doubled, others), totals)
        ]
        if found:
            name = min(found, key=lambda name: (sum(left[name]), name))
            pairs[name] = former
            del left[name]
    return pairs
