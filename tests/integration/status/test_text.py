"""The state of everything as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing_cli.cli.tables import Terminal, text_of
from billing_cli.cli.text import run_parts
from billing_cli.core.result import RunResult, SourceResult
from billing_cli.core.source_status import SourceStatus
from billing_cli.features.status.findings import findings_of
from billing_cli.features.status.result import DayTotals, JournalEntry, LastHour, StatusReport
from billing_cli.features.status.text import status_parts

NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)
TODAY = DayTotals(NOON.replace(hour=0), 2**30, 2**29, Decimal("1.250000000"))


def report_of(*sources: SourceStatus, runs: tuple[JournalEntry, ...] = ()) -> StatusReport:
    """Return a report with the findings of its sources."""
    return StatusReport(
        NOON, sources, runs, TODAY, findings=findings_of(sources, (), 300.0), currency="EUR"
    )


def test_what_is_serious_comes_first_with_the_command_that_deals_with_it() -> None:
    """Then one line a source, numbers to the right; ages are rounded to what a person reads."""
    source = SourceStatus(
        "jp-1",
        node_id="jp-1.example",
        env="prod",
        contract="window",
        watermark=NOON - timedelta(seconds=65, microseconds=5),
        lag_seconds=65.0,
        last_attempted_at=NOON - timedelta(seconds=5),
        last_succeeded_at=NOON - timedelta(minutes=5),
        last_error="timed out",
        gaps={"reset": 1, "late": 2},
        held_deltas=3,
        held_bytes=2**30,
    )
    run = JournalEntry("id", "collect", "error", NOON, 0.25, 0, "database: gone")
    off = SourceStatus("us-1", enabled=False)
    lines = text_of(status_parts(report_of(source, off, runs=(run,)))).splitlines()
    assert lines == [
        "status: failed: 1 failed, 1 warning",
        "failed: jp-1: last attempt failed: timed out",
        "  -> `billing check --source jp-1` asks the exporter and says what is wrong",
        "warning: jp-1: 3 deltas of 1.0 GiB held",
        (
            "  -> `billing held list --source jp-1` shows why; then `billing held release` or "
            "`billing held reject`"
        ),
        "",
        (
            "SOURCE  STATE     NODE               CONTRACT  WATERMARK              LAG  SUCCESS    "
            "ATTEMPT  GAPS             HELD  UNRESOLVED"
        ),
        (
            "jp-1    failed    prod:jp-1.example  window    2026-04-08T11:58:54Z  65 s  5 min ago  "
            "5 s ago  2 late, 1 reset     3           0"
        ),
        (
            "us-1    disabled  -                  -         -                        -  -          "
            "-        -                   0           0"
        ),
        "",
        "today (2026-04-08 UTC): 1.5 GiB billed (1.0 GiB included), amount 1.250000000 EUR",
        "",
        "RUN                   JOB      STATUS  TOOK   MINUTES  ERROR",
        "2026-04-08T12:00:00Z  collect  error   0.2 s        0  database: gone",
    ]


def test_a_terminal_gets_colours_and_the_last_hour() -> None:
    """One bar for each five minutes; a part without a run is blank."""
    source = SourceStatus("jp-1", lag_seconds=1.0, last_error="x")
    report = report_of(source)
    hour = LastHour((*([0] * 10), 7, 14), (*([None] * 10), 5.0, 5.0))
    report = StatusReport(NOON, (source,), (), TODAY, (), report.findings, {"jp-1": hour})
    parts = status_parts(report, has_sparklines=True)
    shown = text_of(parts, Terminal(200, has_colors=True))
    assert "\x1b[31mfailed" in shown
    words = re.sub(r"\x1b\[[\d;]+m", "", shown)
    assert "\u2581" * 10 + "\u2585\u2588" in words
    assert "\x1b" not in text_of(parts, Terminal(200, has_colors=False))


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
