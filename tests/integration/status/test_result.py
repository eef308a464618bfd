"""When a source needs a look, and how that is told."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from billing_cli.core.source_status import SourceStatus
from billing_cli.features.status.findings import Finding, findings_of
from billing_cli.features.status.result import (
    DayTotals,
    RunEntry,
    StatusReport,
    status_object,
)
from tests.unit.core.stories import NOON

MAX_LAG_SECONDS = 300.0
TODAY = DayTotals(NOON.replace(hour=0), 1000, 24, Decimal("0.000000072"))
WELL = SourceStatus("jp-1", watermark=NOON, lag_seconds=45.0)
RUN = RunEntry("11111111-2222-3333-4444-555555555555", "collect", "ok", NOON, 0.25, 3, None)


def test_a_source_that_keeps_up_needs_no_look() -> None:
    """Late and reset gaps are history, and unresolved streams wait for their accounts."""
    busy = replace(WELL, gaps={"late": 2, "reset": 1}, unresolved_streams=4)
    assert found(WELL) == ()
    assert {finding.severity for finding in found(busy)} == {"note"}
    assert found(replace(WELL, lag_seconds=MAX_LAG_SECONDS)) == ()


def test_what_is_worth_knowing_is_a_note_with_what_to_do() -> None:
    """Successions, uncertain bytes and a source that waits need no attention by themselves."""
    source = replace(
        WELL,
        successions=2,
        succession_uncertain_bytes=5,
        gaps={"disorder": 1, "uncertain": 3},
        uncertain_bytes={"disorder": 7, "uncertain": 9},
        waits_for_successor=True,
    )
    notes = found(source)
    assert {note.severity for note in notes} == {"note"}
    successions, disorder, uncertain, waits = notes
    assert successions.text.startswith("2 successions in 24 h, 5 B uncertain: counters continue")
    assert disorder.text.startswith("1 disorder gap, 7 B uncertain: snapshots of another clock")
    assert uncertain.text.startswith("3 uncertain gaps, 9 B not charged")
    assert waits.text.startswith("waits for the node's next snapshot")
    assert found(replace(source, enabled=False)) == ()


@pytest.mark.parametrize(
    ("source", "severity", "reason", "command"),
    [
        (
            replace(WELL, last_error="connection refused"),
            "failed",
            "last attempt failed: connection refused",
            "billing check --source jp-1",
        ),
        (
            replace(WELL, watermark=None, lag_seconds=None),
            "warning",
            "nothing collected yet",
            "billing collect --source jp-1",
        ),
        (
            replace(WELL, lag_seconds=300.6),
            "warning",
            "5 min behind",
            "billing catch-up --source jp-1",
        ),
        (
            replace(WELL, gaps={"stalled": 1}),
            "warning",
            "the exporter answers, but has nothing new",
            "billing check --source jp-1",
        ),
        (
            replace(WELL, gaps={"history_lost": 1}),
            "failed",
            "history lost: charged with the next snapshot, unless counters restarted",
            "billing reconcile --source jp-1",
        ),
        (
            replace(WELL, held_deltas=1, held_bytes=77),
            "warning",
            "1 delta of 77 B held",
            "billing held list --source jp-1",
        ),
        (
            replace(WELL, uncharged_accounts=2),
            "warning",
            "2 accounts can't be charged: usage is pending",
            "billing collect --source jp-1",
        ),
    ],
)
def test_each_reason_has_a_severity_and_a_command(
    source: SourceStatus, severity: str, reason: str, command: str
) -> None:
    """One fact, one finding."""
    (finding,) = found(source)
    assert (finding.severity, finding.source_id, finding.text) == (severity, "jp-1", reason)
    assert f"`{command}" in finding.advice


def test_lost_history_that_never_returns_is_closed_by_hand() -> None:
    """No command does that; the advice leads to the paragraph with the statement."""
    (finding,) = found(replace(WELL, gaps={"history_lost": 1}))
    assert "docs/operations.md#billinghistorylost" in finding.advice
    runbook = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    paragraph = runbook.partition("### BillingHistoryLost\n")[2].partition("\n### ")[0]
    assert "UPDATE billing.gaps SET resolved_at" in paragraph


def test_findings_are_listed_the_gravest_first() -> None:
    """One reason does not hide another, and the report is as bad as its gravest finding."""
    source = replace(WELL, last_error="timed out", lag_seconds=900.0, held_deltas=1, successions=1)
    findings = findings_of((WELL, source), ("2026-05",), MAX_LAG_SECONDS)
    expected = ["failed", "warning", "warning", "warning", "note"]
    assert [finding.severity for finding in findings] == expected
    assert "billing migrate" in findings[1].advice
    report = StatusReport(NOON, (source,), (RUN,), TODAY, (), findings)
    assert (report.severity, report.needs_attention) == ("failed", True)
    told = status_object(report)
    assert (told["status"], told["severity"]) == ("attention", "failed")
    assert told["findings"][0].keys() == {"severity", "source_id", "text", "advice"}
    well = status_object(StatusReport(NOON, (WELL,), (), TODAY))
    assert (well["status"], well["severity"]) == ("ok", "ok")


def test_a_disabled_source_needs_no_look() -> None:
    """Nobody expects anything of it."""
    assert found(replace(WELL, enabled=False, lag_seconds=None, last_error="gone")) == ()


def found(source: SourceStatus) -> tuple[Finding, ...]:
    """Return the findings about one source."""
    return findings_of((source,), (), MAX_LAG_SECONDS)
