"""What a run says about itself: the result object of the command line contract, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from billing_cli.core.objects import attributes, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_DIFFERENCES_SHOWN = 1000
"""A result object lists no more differences than this; the counts are always whole."""

RunStatus = Literal["ok", "partial", "error", "busy"]
SourceStatus = Literal["ok", "partial", "error", "busy", "skipped"]


@dataclass(frozen=True, slots=True)
class SourceResult:
    """One source's part of a run.

    `unreachable` distinguishes an outage from a bad answer; `error_code` is that of the
    ExporterError. `waits_for_successor`: a counter decreased, and the node's next snapshot decides
    what that means. `charged_bytes` are included in quotas or rated, `amount` is what was charged
    for them.
    """

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
    corrections: int = 0
    successions: int = 0
    resolved_gaps: int = 0
    waits_for_successor: bool = False
    new_streams: int = 0
    charged_bytes: int = 0
    amount: Decimal = Decimal(0)
    notes: tuple[str, ...] = ()
    error: str | None = None
    error_code: str | None = None
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class MinuteDifference:
    """What a correction changes about one bucket: signed bytes, and the balance change."""

    source_id: str
    account_uuid: str
    line_code: str
    minute: datetime
    uplink_bytes: int
    downlink_bytes: int
    amount_delta: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a run, or a part of one, wrote.

    `charged_bytes` are the bytes beyond the included quota, `included_bytes` those within it;
    together they are the bytes of the written minutes. `amount` is what was charged, as a
    positive figure.
    """

    processed_samples: int = 0
    written_minutes: int = 0
    replayed_minutes: int = 0
    included_bytes: int = 0
    charged_bytes: int = 0
    amount: Decimal = Decimal(0)

    @property
    def counts(self) -> dict[str, Any]:
        """These figures alone, by name."""
        return {field.name: getattr(self, field.name) for field in fields(Counts)}

    def sums(self, other: Counts) -> dict[str, Any]:
        """Return the figures of both together, by name."""
        return {name: figure + getattr(other, name) for name, figure in self.counts.items()}


@dataclass(frozen=True, slots=True)
class RunResult(Counts):
    """One run of a job that writes.

    `currency` is the label of its amounts, if any. `notes` are about the run as a whole.
    `error_code` is one of EXIT_CODES; None stands for what the status says.
    """

    job: str
    run_id: str
    status: RunStatus
    started_at: datetime
    finished_at: datetime
    corrections: int = 0
    steps: int = 0
    dry_run: bool = False
    error: str | None = None
    error_code: str | None = None
    sources: tuple[SourceResult, ...] = field(default_factory=tuple)
    differences: tuple[MinuteDifference, ...] = ()
    notes: tuple[str, ...] = ()
    currency: str = ""

    @property
    def successions(self) -> int:
        """How many counters continue under other names, or after a restart that was none."""
        return sum(source.successions for source in self.sources)

    @property
    def details(self) -> Mapping[str, Any]:
        """What this job alone adds to the result object."""
        return {}


@dataclass(frozen=True, slots=True)
class AccountAmount:
    """How many ledger entries a job wrote for an account, and the money that they are about."""

    account_uuid: str
    corrections: int
    amount: Decimal


def result_object(result: RunResult) -> dict[str, Any]:
    """Return the result object of a job that writes; `amount` is a decimal string."""
    return {
        **attributes(
            result,
            """job run_id status started_at finished_at corrections successions steps dry_run
            notes""",
        ),
        **plain(result.counts),
        "currency": result.currency or None,
        "error": _error_object(result),
        "sources": [_source_object(source) for source in result.sources],
        "differences": plain(result.differences[:MAX_DIFFERENCES_SHOWN]),
        **result.details,
    }


def _source_object(source: SourceResult) -> dict[str, Any]:
    return attributes(
        source,
        """source_id status node_id env contract snapshots last_completed_until lag_seconds resets
        gaps rejected_samples unresolved_streams held_deltas corrections successions
        waits_for_successor new_streams charged_bytes amount resolved_gaps notes error
        error_code""",
    )


def _error_object(result: RunResult) -> dict[str, str] | None:
    if result.error is None:
        return None
    code = result.error_code or ("busy" if result.status == "busy" else "failed")
    return {"code": code, "message": " ".join(result.error.split())}
