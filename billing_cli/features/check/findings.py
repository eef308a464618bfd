"""What `check` finds: one statement after the other, good or bad, and what they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from billing_cli.core.objects import attributes, plain

if TYPE_CHECKING:
    from datetime import datetime

Area = Literal["configuration", "database", "source"]
State = Literal["ok", "warning", "failed"]
Outcome = Literal["ok", "attention", "configuration", "unreachable"]

DATABASE_CONNECTION = "connection"
STANDBY = "server"
DATABASE_RIGHTS = ("schema", "privileges", "server features")

CLOCK_WARNING_SECONDS = 5.0
CLOCK_FAILED_SECONDS = 300.0
"""Snapshots that lie further ahead than this are refused."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `text` is one line without secrets.

    `source_id` says which source a finding of the area `source` is about. `is_default`: a setting
    that is not set.
    """

    area: Area
    name: str
    state: State
    text: str
    source_id: str | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All findings, in the order in which they are to be read."""

    checked_at: datetime
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """What the failed findings amount to; the gravest reason for a run to fail counts."""
        return self._gravest()[0]

    @property
    def reason(self) -> str:
        """The text of the finding that decided the outcome; empty where nothing failed."""
        return self._gravest()[1]

    def _gravest(self) -> tuple[Outcome, str]:
        failed = [finding for finding in self.findings if finding.state == "failed"]
        database = [finding for finding in failed if finding.area == "database"]
        reasons: tuple[tuple[Outcome, list[Finding]], ...] = (
            ("configuration", [found for found in failed if found.area == "configuration"]),
            (
                "unreachable",
                [found for found in database if found.name in {DATABASE_CONNECTION, STANDBY}],
            ),
            ("configuration", [found for found in database if found.name in DATABASE_RIGHTS]),
            ("attention", failed),
        )
        return next(((outcome, found[0].text) for outcome, found in reasons if found), ("ok", ""))

    def count(self, state: State) -> int:
        """Return how many findings are in a state."""
        return sum(finding.state == state for finding in self.findings)


ERROR_CODES = {"configuration": "configuration", "unreachable": "database_unavailable"}


def check_object(report: CheckReport) -> dict[str, Any]:
    """Return the report as a JSON object; `error` is what a run would end with, or null."""
    outcome = report.outcome
    is_fatal = outcome in {"configuration", "unreachable"}
    return {
        "job": "check",
        "status": "error" if is_fatal else outcome,
        "checked_at": plain(report.checked_at),
        "error": {"code": ERROR_CODES[outcome], "message": report.reason} if is_fatal else None,
        "findings": [
            attributes(finding, "area source_id name state text") for finding in report.findings
        ],
    }


def clock_state(difference_seconds: float) -> State:
    """Return how bad it is that another clock differs from ours by so much."""
    distance = abs(difference_seconds)
    if distance > CLOCK_FAILED_SECONDS:
        return "failed"
    return "warning" if distance > CLOCK_WARNING_SECONDS else "ok"


def clock_text(difference_seconds: float, uncertainty_seconds: float = 0.0) -> str:
    """Return in words how another clock differs from ours; positive seconds are ahead."""
    if abs(difference_seconds) <= max(uncertainty_seconds, 0.05):
        return "no difference to this machine's clock"
    way = "ahead of" if difference_seconds > 0 else "behind"
    return f"{abs(difference_seconds):.1f} s {way} this machine's clock"
