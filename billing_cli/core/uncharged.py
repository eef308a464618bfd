"""Streams that are not charged and go on under other names: they stay what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.changes import by_account
from billing_cli.core.model import Succession, SuccessionSide
from billing_cli.core.succession import one_to_one

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from billing_cli.core.changes import Changes
    from billing_cli.core.model import Checkpoint, StreamName

UNCHARGED = {"duplicate", "ignored"}


def uncharged_successions(
    changes: Changes,
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
    at: datetime,
) -> list[Succession]:
    """Return how duplicate and ignored streams that are gone continue.

    All streams of their account that are gone, charged or not, are paired with all that are new,
    where they are as many. Under the same inbound tag, a stream stays what it was. Where only the
    sizes pair them, an operator decides: what it counts from then on is held as a duplicate.
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
        for name, former in one_to_one(gone[account], new.get(account, {})).items()
        if known[former].state in UNCHARGED and any(changes.gone[former])
    ]
