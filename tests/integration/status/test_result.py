"""When a source needs a look, and how that is told."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from billing_cli.core.source_status import SourceStatus
from billing_cli.features.status.result import (
    DayTotals,
    JournalEntry,
    StatusReport,
    advice_of,
    attention_of,
    status_object,
)
from tests.unit.core.stories import NOON

MAX_LAG_SECONDS = 300.0
TODAY = DayTotals(NOON.replace(hour=0), 1000, 24, Decimal("0.000000072"))
WELL = SourceStatus("jp-1", watermark=NOON, lag_seconds=45.0)
RUN = JournalEntry("11111111-2222-3333-4444-555555555555", "collect", "ok", NOON, 0.25, 3, None)


def test_a_source_that_keeps_up_needs_no_look() -> None:
    """Late and reset gaps are history, and unresolved streams wait for their accounts."""
    busy = replace(WELL, gaps={"late": 2, "reset": 1}, unresolved_streams=4)
    assert attention_of(WELL, MAX_LAG_SECONDS) == ()
    assert attention_of(busy, MAX_LAG_SECONDS) == ()
    assert attention_of(replace(WELL, lag_seconds=MAX_LAG_SECONDS), MAX_LAG_SECONDS) == ()


def test_what_is_worth_knowing_is_told_with_what_to_do() -> None:
    """Successions, uncertain bytes and a source that waits need no look by themselves."""
    source = replace(
        WELL,
        successions=2,
        succession_uncertain_bytes=5,
        gaps={"disorder": 1, "uncertain": 3},
        uncertain_bytes={"disorder": 7, "uncertain": 9},
        waits_for_successor=True,
    )
    successions, disorder, uncertain, waits = advice_of(source)
    assert successions.startswith("2 successions in 24 h, 5 bytes uncertain: counters continue")
    assert disorder.endswith(
        "7 bytes uncertain: snapshots of another clock were ignored; check the node's clock"
    )
    assert uncertain.startswith("3 uncertain gaps, 9 bytes not charged")
    assert waits.startswith("waits for the node's next snapshot")
    assert attention_of(source, MAX_LAG_SECONDS) == ()
    assert advice_of(replace(source, enabled=False)) == ()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (replace(WELL, last_error="connection refused"), "last attempt failed: connection refused"),
        (replace(WELL, watermark=None, lag_seconds=None), "nothing collected yet"),
        (replace(WELL, lag_seconds=300.6), "301 s behind"),
        (replace(WELL, gaps={"stalled": 1}), "the exporter answers, but has nothing new"),
        (replace(WELL, gaps={"history_lost": 1}), "history lost"),
        (
            replace(WELL, held_deltas=2, held_bytes=77),
            "2 deltas of 77 bytes are held: see `billing held list`",
        ),
    ],
)
def test_each_reason_to_look_is_told_in_words(source: SourceStatus, reason: str) -> None:
    """One fact, one reason."""
    assert attention_of(source, MAX_LAG_SECONDS) == (reason,)


def test_all_reasons_are_told_together() -> None:
    """One reason does not hide another."""
    source = replace(WELL, last_error="timed out", lag_seconds=900.0, held_deltas=1)
    assert len(attention_of(source, MAX_LAG_SECONDS)) == 3


def test_a_disabled_source_needs_no_look() -> None:
    """Nobody expects anything of it."""
    source = replace(WELL, enabled=False, lag_seconds=None, last_error="gone")
    assert attention_of(source, MAX_LAG_SECONDS) == ()


def test_one_source_that_needs_a_look_is_enough() -> None:
    """The report's word is the exit code's."""
    needy = replace(WELL, source_id="us-1", attention=("history lost",))
    assert not StatusReport(NOON, (WELL,), (RUN,), TODAY).needs_attention
    report = StatusReport(NOON, (WELL, needy), (RUN,), TODAY)
    assert report.needs_attention
    assert status_object(report)["status"] == "attention"
    assert status_object(StatusReport(NOON, (WELL,), (), TODAY))["status"] == "ok"


def test_the_report_survives_json() -> None:
    """Plain values only; what is missing is null."""
    report = StatusReport(NOON, (WELL, SourceStatus("us-1", gaps={"late": 1})), (RUN,), TODAY)
    told = status_object(report)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    first, second = told["sources"]
    assert first["last_completed_until"] == "2026-04-08T12:00:00Z"
    assert (second["last_completed_until"], second["last_error"]) == (None, None)
    assert second["gaps"] == {"late": 1}
    assert told["runs"][0]["started_at"] == "2026-04-08T12:00:00Z"
    assert told["today"] == {
        "since": "2026-04-08T00:00:00Z",
        "billed_bytes": 1024,
        "included_bytes": 1000,
        "charged_bytes": 24,
        "amount": "0.000000072",
    }
