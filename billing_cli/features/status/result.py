"""What `status` reports: the state of each source, the day so far and the last runs, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.objects import attributes, plain
from billing_cli.features.status.findings import worst_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.core.source_status import SourceStatus
    from billing_cli.features.status.findings import Finding


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A run as the run history has it."""

    run_id: str
    job: str
    status: str
    started_at: datetime
    duration_seconds: float
    written_minutes: int
    error: str | None


@dataclass(frozen=True, slots=True)
class DayTotals:
    """What is billed for the minutes of a UTC day so far, corrections included.

    `included_bytes` were paid from quotas, `charged_bytes` are beyond them, `amount` is what those
    cost, as a positive figure.
    """

    since: datetime
    included_bytes: int = 0
    charged_bytes: int = 0
    amount: Decimal = Decimal(0)

    @property
    def billed_bytes(self) -> int:
        """All bytes, whoever paid for them."""
        return self.included_bytes + self.charged_bytes


class LastHour(NamedTuple):
    """A source's last hour in PARTS equal parts, oldest first.

    `charged_bytes` were charged by the runs of a part, `lag_seconds` is the largest lag that one of
    them left; None where no run ended in that part.
    """

    charged_bytes: tuple[int, ...]
    lag_seconds: tuple[float | None, ...]


PARTS = 12


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Everything that `status` shows; `needs_attention` decides the exit code.

    `last_hour` has the runs of the last hour by source, where there were any.
    """

    checked_at: datetime
    sources: tuple[SourceStatus, ...]
    runs: tuple[RunEntry, ...]
    today: DayTotals
    missing_partitions: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    last_hour: Mapping[str, LastHour] = field(default_factory=dict)
    currency: str = ""

    @property
    def needs_attention(self) -> bool:
        """Return whether any finding is more than a note."""
        return self.severity != "ok"

    @property
    def severity(self) -> str:
        """Return ok, warning or failed: that of the gravest finding."""
        return worst_of(self.findings)

    def severity_of(self, source: SourceStatus) -> str:
        """Return ok, warning, failed or disabled."""
        if not source.enabled:
            return "disabled"
        return worst_of(
            finding for finding in self.findings if finding.source_id == source.source_id
        )


def status_object(report: StatusReport) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {
        "job": "status",
        "status": "attention" if report.needs_attention else "ok",
        "error": None,
        "currency": report.currency or None,
        "today": {**plain(report.today), "billed_bytes": report.today.billed_bytes},
        "sources": [_source_object(report, source) for source in report.sources],
        **attributes(report, "severity checked_at findings missing_partitions runs"),
    }


def _source_object(report: StatusReport, source: SourceStatus) -> dict[str, Any]:
    own = [finding for finding in report.findings if finding.source_id == source.source_id]
    return {
        **attributes(
            source,
            """source_id enabled node_id env contract lag_seconds last_attempted_at
            last_succeeded_at gaps uncertain_bytes held_deltas held_bytes unresolved_streams
            uncharged_accounts successions succession_uncertain_bytes waits_for_successor
            busy_seconds""",
        ),
        "severity": report.severity_of(source),
        "last_completed_until": plain(source.watermark),
        "last_error": source.last_error or None,
        "lock_holder": source.lock_holder or None,
        "attention": [finding.text for finding in own if finding.severity != "note"],
        "advice": [f"{note.text}: {note.advice}" for note in own if note.severity == "note"],
        "last_hour": plain(report.last_hour.get(source.source_id)),
    }
