"""Which accounts are suspended for arrears, and which are released."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime, timedelta
    from decimal import Decimal

ACTIVE = "active"
SUSPENDED = "suspended"

Step = Literal["suspend", "release", "close"]


@dataclass(frozen=True, slots=True)
class ArrearsState:
    """An account as read under its row lock.

    `arrears_since` is when its balance fell below zero, None where it is not. `is_suspended_by_us`
    means that a suspension of ours is open; `released_at` is when the last one ended.
    """

    account_uuid: str
    balance: Decimal
    suspend_state: str
    arrears_since: datetime | None
    is_suspended_by_us: bool = False
    released_at: datetime | None = None


def next_step(state: ArrearsState, now: datetime, after: timedelta) -> Step | None:
    """Return what is to be done about an account, None for nothing.

    An account is suspended once its balance has been below zero for `after`, and released, if it
    was us who suspended it, once its balance is 0 or more. Where another service released it
    before, our suspension is closed, and `after` counts again from then.
    """
    if state.is_suspended_by_us:
        if state.suspend_state != SUSPENDED:
            return "close"
        return "release" if state.balance >= 0 else None
    if state.suspend_state != ACTIVE or state.balance >= 0 or state.arrears_since is None:
        return None
    since = max(state.arrears_since, state.released_at or state.arrears_since)
    return "suspend" if now - since >= after else None
