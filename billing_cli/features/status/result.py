"""What `status` tells: the state of each source, the day so far and the last runs, as values."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.core.source_status import BUSY_FAILURE_SECONDS
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.source_status import SourceStatus


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A run as the journal has it."""

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


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Everything that `status` shows; `needs_attention` decides the exit code."""

    checked_at: datetime
    sources: tuple[SourceStatus, ...]
    runs: tuple[JournalEntry, ...]
    today: DayTotals
    missing_partitions: tuple[str, ...] = ()

    @property
    def needs_attention(self) -> bool:
        """Tell whether any source needs a look, or a month has no partition for its evidence."""
        return bool(self.missing_partitions) or any(source.attention for source in self.sources)


def attention_of(source: SourceStatus, max_lag_seconds: float) -> tuple[str, ...]:
    """Return in words why a person should look at an enabled source; empty where all is well."""
    if not source.enabled:
        return ()
    reasons = []
    if source.last_error:
        reasons.append(f"last attempt failed: {source.last_error}")
    if source.busy_seconds > BUSY_FAILURE_SECONDS:
        holder = source.lock_holder or "nobody any more: the next run goes on"
        reasons.append(f"locked for {source.busy_seconds / 60:.0f} minutes, by {holder}")
    if source.lag_seconds is None:
        reasons.append("nothing collected yet")
    elif source.lag_seconds > max_lag_seconds:
        reasons.append(f"{source.lag_seconds:.0f} s behind")
    if source.gaps.get("stalled"):
        reasons.append("the exporter answers, but has nothing new")
    if source.gaps.get("history_lost"):
        reasons.append("history lost")
    if source.held_deltas:
        reasons.append(
            f"{source.held_deltas} deltas of {source.held_bytes} bytes are held: see "
            "`billing held list`"
        )
    return tuple(reasons)


def advice_of(source: SourceStatus) -> tuple[str, ...]:
    """Return in words what is worth knowing of an enabled source, and what to do about it."""
    if not source.enabled:
        return ()
    advice = []
    if source.successions:
        advice.append(
            f"{source.successions} successions in 24 h, {source.succession_uncertain_bytes} bytes "
            "uncertain: counters continue under other names, as after an exporter upgrade"
        )
    if source.gaps.get("disorder"):
        advice.append(
            f"{source.gaps['disorder']} disorder gaps, {source.uncertain_bytes['disorder']} bytes "
            "uncertain: snapshots of another clock were ignored; check the node's clock"
        )
    if source.gaps.get("uncertain"):
        advice.append(
            f"{source.gaps['uncertain']} uncertain gaps, {source.uncertain_bytes['uncertain']} "
            "bytes not charged: counters may have continued or started again; see "
            "`billing held list`"
        )
    if source.waits_for_successor:
        advice.append(
            "waits for the node's next snapshot: a counter decreased, and that one decides why"
        )
    return tuple(advice)


def status_object(report: StatusReport) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {
        "job": "status",
        "status": "attention" if report.needs_attention else "ok",
        "checked_at": format_rfc3339(report.checked_at),
        "error": None,
        "missing_partitions": list(report.missing_partitions),
        "today": {
            "since": format_rfc3339(report.today.since),
            "billed_bytes": report.today.billed_bytes,
            "included_bytes": report.today.included_bytes,
            "charged_bytes": report.today.charged_bytes,
            "amount": f"{report.today.amount:f}",
        },
        "sources": [
            {
                "source_id": one.source_id,
                "enabled": one.enabled,
                "node_id": one.node_id,
                "env": one.env,
                "contract": one.contract,
                "last_completed_until": _moment(one.watermark),
                "lag_seconds": one.lag_seconds,
                "last_attempted_at": _moment(one.last_attempted_at),
                "last_succeeded_at": _moment(one.last_succeeded_at),
                "last_error": one.last_error or None,
                "gaps": dict(one.gaps),
                "uncertain_bytes": dict(one.uncertain_bytes),
                "held_deltas": one.held_deltas,
                "held_bytes": one.held_bytes,
                "unresolved_streams": one.unresolved_streams,
                "successions": one.successions,
                "succession_uncertain_bytes": one.succession_uncertain_bytes,
                "waits_for_successor": one.waits_for_successor,
                "busy_seconds": one.busy_seconds,
                "lock_holder": one.lock_holder or None,
                "attention": list(one.attention),
                "advice": list(one.advice),
            }
            for one in report.sources
        ],
        "runs": [
            {
                "run_id": one.run_id,
                "job": one.job,
                "status": one.status,
                "started_at": format_rfc3339(one.started_at),
                "duration_seconds": one.duration_seconds,
                "written_minutes": one.written_minutes,
                "error": one.error,
            }
            for one in report.runs
        ],
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else format_rfc3339(moment)
