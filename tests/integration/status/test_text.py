"""The state of everything as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import click

from billing_cli.cli.text import run_text
from billing_cli.core.result import RunResult, SourceResult
from billing_cli.core.source_status import SourceStatus
from billing_cli.features.status.result import DayTotals, JournalEntry, StatusReport
from billing_cli.features.status.text import status_text

NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)
TODAY = DayTotals(NOON.replace(hour=0), 2**30, 2**29, Decimal("1.250000000"))


def test_everything_has_its_column() -> None:
    """One line a source; times ago are rounded to what a person reads."""
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
        unresolved_streams=4,
        attention=("last attempt failed: timed out",),
    )
    run = JournalEntry("id", "collect", "error", NOON, 0.25, 0, "database: gone")
    off = SourceStatus("us-1", enabled=False)
    lines = status_text(StatusReport(NOON, (source, off), (run,), TODAY)).splitlines()
    header = "SOURCE STATE NODE CONTRACT WATERMARK LAG SUCCESS ATTEMPT GAPS HELD UNRESOLVED"
    assert " ".join(lines[0].split()) == header
    assert lines[1:] == [
        (
            "jp-1    failed    prod:jp-1.example  window    2026-04-08T11:58:54Z  65 s  5 min ago  "
            "5 s ago  2 late, 1 reset  3     4"
        ),
        (
            "us-1    disabled  -                  -         -                     -     -          "
            "-        -                0     0"
        ),
        "jp-1: last attempt failed: timed out",
        "",
        "today (2026-04-08 UTC): 1.5 GiB billed (1.0 GiB included), amount 1.250000000",
        "",
        "RUN                   JOB      STATUS  TOOK   MINUTES  ERROR",
        "2026-04-08T12:00:00Z  collect  error   0.2 s  0        database: gone",
    ]


def test_colours_change_no_word_and_no_column() -> None:
    """What a terminal shows is what a pipe gets, coloured."""
    source = SourceStatus("jp-1", last_error="x", attention=("last attempt failed: x",))
    report = StatusReport(NOON, (source, SourceStatus("us-1")), (), TODAY)
    coloured = status_text(report, click.style)
    assert click.style("failed", fg="red") in coloured
    assert [line.rstrip() for line in click.unstyle(coloured).splitlines()] == (
        status_text(report).splitlines()
    )


def test_without_sources_that_is_said() -> None:
    """An empty table would leave it open."""
    assert status_text(StatusReport(NOON, (), (), TODAY)).startswith("no source is configured\n")


def test_what_an_exporter_says_does_not_reach_the_terminal_as_it_is() -> None:
    """Neither codes that move the cursor, nor lines of its own."""
    hostile = "\x1b[2J\nus-1  ok"
    source = SourceStatus("jp-1", node_id=hostile, attention=(hostile,))
    text = status_text(StatusReport(NOON, (source,), (), TODAY))
    assert "\x1b" not in text
    assert text.count("\\x1b[2J\\nus-1  ok") == 2


def test_a_run_is_told_without_touching_the_terminal() -> None:
    """Neither by names nor by reasons, which hold what exporters and servers said."""
    hostile = "\x1b[2J\u202e"
    source = SourceResult("jp-1", "error", node_id=hostile, error=hostile, notes=(hostile,))
    result = RunResult("collect", "", "error", NOON, NOON, error=hostile, sources=(source,))
    text = run_text(result)
    assert text.count("\\x1b[2J\\u202e") == 4
    assert all(line.isprintable() for line in text.splitlines())
