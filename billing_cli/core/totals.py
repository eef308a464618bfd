"""What all runs of a job did together, and how the last one ended, as values."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.result import RunStatus
    from billing_cli.core.source_status import SourceStatus


@dataclass(frozen=True, slots=True)
class JobTotals:
    """One job's totals since the first run, over all hosts. Figures only ever grow.

    What a run gave back (`returned_…`) is counted in addition to what it took, both as positive
    figures: their difference is what the ledger holds. `violations` and `notices` are those of the
    last audit, None for other jobs.
    """

    job: str
    last_status: RunStatus
    last_started_at: datetime
    last_finished_at: datetime
    last_success_at: datetime | None = None
    runs: int = 0
    failed_runs: int = 0
    samples: int = 0
    written_minutes: int = 0
    replayed_minutes: int = 0
    included_bytes: int = 0
    returned_included_bytes: int = 0
    charged_bytes: int = 0
    returned_charged_bytes: int = 0
    charged_amount: Decimal = Decimal(0)
    returned_amount: Decimal = Decimal(0)
    corrections: int = 0
    resets: int = 0
    gaps: int = 0
    rejected_samples: int = 0
    held_deltas: int = 0
    violations: int | None = None
    notices: int | None = None


@dataclass(frozen=True, slots=True)
class StoredMetrics:
    """What the database holds for metrics: the totals of each job, the state of each source.

    `clean_audits` are when the last clean audit began, by what it proved: `new` and `full`.
    """

    totals: tuple[JobTotals, ...]
    sources: tuple[SourceStatus, ...]
    clean_audits: tuple[tuple[str, datetime], ...] = ()
