"""Streams that are not charged and go on under other names: they stay what they were."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from billing_cli.core.model import Succession, SuccessionSide
from billing_cli.core.succession import one_to_one

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

    All streams of their account that are gone, charged or not, are paired with all that are new.
    Where they do not pair one to one, nobody can tell which names go on uncharged.
    """
    gone: defaultdict[str, dict[StreamName, Totals]] = defaultdict(dict)
    new: defaultdict[str, dict[StreamName, Totals]] = defaultdict(dict)
    uncharged = {name for name in changes.gone if known[name].state in UNCHARGED}
    accounts = {account_of(name) for name in uncharged}
    for streams, by_account in ((changes.gone, gone), (changes.new, new)) if accounts else ():
        for name, totals in streams.items():
            if account_of(name) in accounts:
                by_account[account_of(name)][name] = totals
    return [
        Succession(
            kind="renamed",
            at=at,
            ended=(SuccessionSide(former, changes.gone[former]),),
            continued=(SuccessionSide(name, changes.gone[former]),),
            state=known[former].state,
        )
        for account in accounts
        for name, former in one_to_one(gone[account], new[account]).items()
        if former in uncharged and any(changes.gone[former])
    ]
