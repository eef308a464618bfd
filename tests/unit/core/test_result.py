"""The result object that other programs read."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from billing_cli.core.result import MinuteDifference, RunResult, SourceResult, result_object
from tests.unit.core.stories import NOON

RUN = RunResult(
    job="collect",
    run_id="11111111-2222-3333-4444-555555555555",
    status="partial",
    started_at=NOON,
    finished_at=NOON + timedelta(milliseconds=250),
    processed_samples=7,
    written_minutes=3,
    charged_bytes=2**63 - 1,
    amount=Decimal("1E-9"),
    sources=(
        SourceResult(
            "jp-1",
            status="partial",
            node_id="jp-1.svc.plus",
            env="prod",
            last_completed_until=NOON,
            lag_seconds=31.5,
            notes=("uuid 'x' is no UUID",),
        ),
        SourceResult("us-1", status="error", error="connection refused", unreachable=True),
    ),
)

DIFFERENCE = MinuteDifference("jp-1", "alice", "xhttp", NOON, -1, 2, Decimal("-1E-9"))
DIFFERENCE_OBJECT = {
    "source_id": "jp-1",
    "account_uuid": "alice",
    "line_code": "xhttp",
    "minute": "2026-04-08T12:00:00Z",
    "uplink_bytes": -1,
    "downlink_bytes": 2,
    "amount_delta": "-0.000000001",
}


def test_the_result_object_has_every_key_of_the_contract() -> None:
    """Readers find what they were promised, also where there is nothing to tell."""
    told = result_object(RUN)
    assert told.keys() >= {
        "job", "run_id", "status", "started_at", "finished_at", "processed_samples",
        "written_minutes", "replayed_minutes", "charged_bytes", "amount", "corrections", "error",
        "sources",
    }  # fmt: skip
    for source in told["sources"]:
        assert source.keys() >= {
            "source_id", "status", "node_id", "env", "snapshots", "last_completed_until",
            "lag_seconds", "resets", "gaps", "rejected_samples", "unresolved_streams",
            "held_deltas", "error",
        }  # fmt: skip


def test_times_are_rfc_3339_and_missing_ones_null() -> None:
    """A source that never moved has no watermark and no lag."""
    told = result_object(RUN)
    assert told["started_at"] == "2026-04-08T12:00:00Z"
    assert told["finished_at"] == "2026-04-08T12:00:00.250000Z"
    first, second = told["sources"]
    assert (first["last_completed_until"], first["lag_seconds"]) == ("2026-04-08T12:00:00Z", 31.5)
    assert (second["last_completed_until"], second["lag_seconds"]) == (None, None)
    assert (first["error"], second["error"]) == (None, "connection refused")


def test_an_amount_is_a_plain_decimal_string() -> None:
    """No exponent and no binary rounding, however small or large it is."""
    for amount, shown in {
        "1E-9": "0.000000001",
        "0E-9": "0.000000000",
        "0": "0",
        "12345678901.5": "12345678901.5",
        "1E+3": "1000",
    }.items():
        assert result_object(replace(RUN, amount=Decimal(amount)))["amount"] == shown


def test_a_result_object_lists_a_thousand_differences_at_most() -> None:
    """A reconcile over a broken day must not print a million lines; the count stays whole."""
    many = replace(RUN, corrections=1_001, differences=(DIFFERENCE,) * 1_001)
    told = result_object(many)
    assert told["differences"] == [DIFFERENCE_OBJECT] * 1_000
    assert told["corrections"] == 1_001
