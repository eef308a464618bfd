"""The state of one source as a value: for `status` and for the metrics file."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

BUSY_FAILURE_SECONDS = 600.0
"""A source that is locked by another session for longer is a failure."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source as the database knows it.

    `gaps` counts those not resolved, by kind, and `uncertain_bytes` sums what they state as not
    charged. `held_deltas`, `unresolved_streams` count what waits for an operator or an account.
    `uncharged_accounts` are those whose usage waits although they exist.
    `most_account_streams` is the highest number of streams that one account has on the node.
    `successions` are those of the last 24 hours; what ends in `_total` is of all runs.
    `waits_for_successor`: a counter decreased, and the next snapshot decides what that means.
    `busy_seconds` is for how long runs find it locked by another session, `lock_holder` who that
    is now.
    """

    source_id: str
    enabled: bool = True
    node_id: str = ""
    env: str = ""
    contract: str = ""
    watermark: datetime | None = None
    lag_seconds: float | None = None
    last_attempted_at: datetime | None = None
    last_succeeded_at: datetime | None = None
    last_error: str = ""
    gaps: Mapping[str, int] = field(default_factory=dict)
    uncertain_bytes: Mapping[str, int] = field(default_factory=dict)
    held_deltas: int = 0
    held_bytes: int = 0
    unresolved_streams: int = 0
    uncharged_accounts: int = 0
    successions: int = 0
    succession_uncertain_bytes: int = 0
    waits_for_successor: bool = False
    charged_bytes_total: int = 0
    amount_total: Decimal = Decimal(0)
    new_streams_total: int = 0
    successions_total: int = 0
    most_account_streams: int = 0
    busy_seconds: float = 0.0
    lock_holder: str = ""
