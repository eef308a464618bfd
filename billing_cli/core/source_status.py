"""The state of one source as a value: for `status` and for the metrics file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """One source as the database knows it.

    `gaps` counts those not resolved, by kind. `held_deltas`, `unresolved_streams` count what waits
    for an operator or an account. `attention` says in words why a person should look.
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
    held_deltas: int = 0
    unresolved_streams: int = 0
    attention: tuple[str, ...] = ()
