"""How far `reconcile` has compared one source, and with what result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from billing_cli.core.times import MINUTE, format_rfc3339, minute_of
from billing_cli.exporter.api import ExporterError
from billing_cli.jobs.source_results import rejected_notes
from billing_cli.jobs.written import NOTES_SHOWN

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.config.source import Source
    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.core.result import SourceResult
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.api import Fetched
    from billing_cli.jobs.compare import Compared
    from billing_cli.jobs.differences import HistoryRange

# A record that bridges a long outage can be longer than a step; then a step may grow this far.
LARGEST_STEP_SAMPLES = 1_000_000


@dataclass(slots=True)
class ReconcileProgress:
    """How far a source has been compared: [at, end) is left.

    `rejected` are the first reasons why samples were rejected.
    """

    source: Source
    state: SourceState
    identity: NodeIdentity
    at: datetime
    end: datetime
    result: SourceResult
    factor: int = 1
    notes: dict[str, None] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Return whether nothing is left to be done."""
        return self.at >= self.end or self.result.status not in {"ok", "partial"}

    def finished(self) -> SourceResult:
        """Return the source's result, with its notes."""
        rejected = rejected_notes(self.rejected, self.result.rejected_samples)
        return replace(self.result, notes=(*self.notes, *rejected))

    def usable(
        self, answer: Fetched | ExporterError, share: int
    ) -> tuple[tuple[Snapshot, ...], datetime]:
        """Return the snapshots to compare with, and the end of the minutes that they cover.

        Where there are none, the source's result says why and the end is where it stands.
        """
        if isinstance(answer, ExporterError):
            self.fail(answer)
        elif answer.contract == "latest":
            self.notes["the exporter keeps no history (latest contract): nothing to compare"] = None
            self.at = self.end
        elif not answer.snapshots:
            reason = (
                f"the exporter holds no history between {format_rfc3339(self.at)} "
                f"and {format_rfc3339(self.end)}"
            )
            self.fail(ExporterError(reason))
        elif answer.identity != self.identity:
            stored = answer.identity.stored if answer.identity else ""
            reason = f"answers as node {stored!r}, but was {self.identity.stored!r} so far"
            self.fail(ExporterError(reason, code="wrong_identity"))
        else:
            last = answer.snapshots[-1].collected_at
            covered = self.end if answer.complete else minute_of(last) + MINUTE
            if covered <= self.at and share * self.factor < LARGEST_STEP_SAMPLES:
                self.factor *= 2
            elif covered <= self.at:
                minute = format_rfc3339(self.at)
                self.notes[f"the records of {minute} reach too far back to be compared"] = None
                self.at, self.factor = self.at + MINUTE, 1
                covered = self.at
            return answer.snapshots, covered
        return (), self.at

    def fail(self, error: ExporterError) -> None:
        """Set why the source was left out of the rest of the run."""
        self.result = replace(
            self.result,
            status="error",
            error=error.reason,
            error_code=error.code,
            unreachable=error.unreachable,
        )

    def note(self, history_range: HistoryRange, compared: Compared) -> None:
        """Add the result of a range, and continue after it."""
        result = self.result
        begins = history_range.snapshots[0].collected_at
        if minute_of(begins) > self.at and not result.snapshots:
            text = f"history begins at {format_rfc3339(begins)}: nothing before it was compared"
            self.notes[text] = None
        if compared.skipped:
            text = (
                "some records can't be compared: history ends them at other stamps, or shows what "
                "is not plausible"
            )
            self.notes[text] = None
        self.notes.update(dict.fromkeys(compared.problems))
        rejected = self._rejected(history_range)
        is_partial = rejected or compared.problems or result.status == "partial"
        self.result = replace(
            result,
            status="partial" if is_partial else "ok",
            rejected_samples=result.rejected_samples + rejected,
            snapshots=result.snapshots + len(history_range.snapshots),
            corrections=result.corrections + compared.corrections,
            resolved_gaps=result.resolved_gaps + compared.resolved_gaps,
        )
        self.at, self.factor = history_range.until, 1

    def _rejected(self, history_range: HistoryRange) -> int:
        """Return how many samples of the range's own minutes were rejected; keep the reasons.

        A range begins with snapshots before its first minute, which the range before it had.
        """
        reasons = [
            reason
            for snapshot in history_range.snapshots
            if history_range.at <= snapshot.collected_at < history_range.until
            for reason in snapshot.rejected
        ]
        self.rejected = [*self.rejected, *reasons][:NOTES_SHOWN]
        return len(reasons)
