"""The state of everything as text."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from billing_cli.cli.tables import text_of
from billing_cli.cli.text import run_parts
from billing_cli.core.result import RunResult, SourceResult
from billing_cli.core.source_status import SourceStatus
from billing_cli.features.status.findings import findings_of
from billing_cli.features.status.result import DayTotals, JournalEntry, StatusReport
from billing_cli.features.status.text import status_parts

NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)
TODAY = DayTotals(NOON.replace(hour=0), 2**30, 2**29, Decimal("1.250000000"))


def report_of(*sources: SourceStatus, runs: tuple[JournalEntry, ...] = ()) -> StatusReport:
    """Return a report with the findings of its sources."""
    return StatusReport(
        NOON, sources, runs, TODAY, findings=findings_of(sources, (), 300.0), currency="EUR"
    )


def test_without_sources_that_is_said() -> None:
    """With what to do about it."""
    assert "\nno source is configured: add [[sources]]" in text_of(status_parts(report_of()))


def test_what_an_exporter_says_does_not_reach_the_terminal_as_it_is() -> None:
    """Neither codes that move the cursor, nor lines of its own."""
    hostile = "\x1b[2J\nus-1  ok"
    source = SourceStatus("jp-1", lag_seconds=1.0, node_id=hostile, last_error=hostile)
    text = text_of(status_parts(report_of(source)))
    assert "\x1b" not in text
    assert text.count("\\x1b[2J\\nus-1  ok") == 2


def test_a_run_is_told_without_touching_the_terminal() -> None:
    """Neither by names nor by reasons, which hold what exporters and servers said."""
    hostile = "\x1b[2J\u202e"
    source = SourceResult("jp-1", "error", node_id=hostile, error=hostile, notes=(hostile,))
    result = RunResult("collect", "", "error", NOON, NOON, error=hostile, sources=(source,))
    text = text_of(run_parts(result))
    assert text.count("\\x1b[2J\\u202e") == 4
    assert all(line.isprintable() for line in text.splitlines())
