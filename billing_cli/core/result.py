"""What a run says about itself: the result object of the command line contract, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datetime import datetime

RunStatus = Literal["ok", "partial", "error", "busy"]
SourceStatus = Literal["ok", "partial", "error", "busy", "skipped"]


@dataclass(frozen=True, slots=True)
class SourceResult:
    """One source's part of a run. `unreachable` tells an outage from a bad answer."""

    source_id: str
    status: SourceStatus = "ok"
    node_id: str = ""
    env: str = ""
    contract: str = ""
    snapshots: int = 0
    samples: int = 0
    last_completed_until: datetime | None = None
    lag_seconds: float | None = None
    resets: int = 0
    gaps: int = 0
    rejected_samples: int = 0
    unresolved_streams: int = 0
    held_deltas: int = 0
    notes: tuple[str, ...] = ()
    error: str | None = None
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of collect, catch-up or reconcile.

    `charged_bytes` are the bytes beyond the included quota, `included_bytes` those within it;
    together they are the bytes of the written minutes. `amount` is what was charged, as a
    positive figure.
    """

    job: str
    run_id: str
    status: RunStatus
    started_at: datetime
    finished_at: datetime
    processed_samples: int = 0
    written_minutes: int = 0
    replayed_minutes: int = 0
    included_bytes: int = 0
    charged_bytes: int = 0
    amount: Decimal = Decimal(0)
    corrections: int = 0
    steps: int = 0
    dry_run: bool = False
    error: str | None = None
    sources: tuple[SourceResult, ...] = field(default_factory=tuple)
