"""The result object that other programs read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from billing_cli.core.result import MinuteDifference, RunResult, SourceResult, result_object
from billing_cli.features.rerate.result import AccountDifference, RerateResult
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

FULL_SOURCE = SourceResult(
    "jp-1",
    status="partial",
    node_id="jp-1.svc.plus",
    env="prod",
    contract="window",
    snapshots=11,
    samples=12,
    last_completed_until=NOON,
    lag_seconds=13.5,
    resets=14,
    gaps=15,
    rejected_samples=16,
    unresolved_streams=17,
    held_deltas=18,
    corrections=19,
    successions=23,
    waits_for_successor=True,
    new_streams=24,
    charged_bytes=25,
    amount=Decimal("0.26"),
    resolved_gaps=20,
    notes=("c",),
    error="refused",
    error_code="credentials",
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


def test_the_result_object_survives_json() -> None:
    """Plain values only, and big integers whole."""
    told = result_object(RUN)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["charged_bytes"] == 2**63 - 1


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


def test_the_result_object_tells_each_figure_under_its_own_name() -> None:
    """No two figures are alike here, so none can stand in for another."""
    run = RunResult(
        job="reconcile",
        run_id="r",
        status="partial",
        started_at=NOON,
        finished_at=NOON + timedelta(seconds=1),
        processed_samples=1,
        written_minutes=2,
        replayed_minutes=3,
        included_bytes=4,
        charged_bytes=5,
        amount=Decimal("6.000000001"),
        corrections=7,
        steps=8,
        dry_run=True,
        error="late",
        sources=(FULL_SOURCE,),
        differences=(DIFFERENCE,),
        notes=("a", "b"),
    )
    assert result_object(run) == {
        "job": "reconcile",
        "run_id": "r",
        "status": "partial",
        "started_at": "2026-04-08T12:00:00Z",
        "finished_at": "2026-04-08T12:00:01Z",
        "processed_samples": 1,
        "written_minutes": 2,
        "replayed_minutes": 3,
        "included_bytes": 4,
        "charged_bytes": 5,
        "amount": "6.000000001",
        "currency": None,
        "corrections": 7,
        "successions": 23,
        "steps": 8,
        "dry_run": True,
        "error": {"code": "failed", "message": "late"},
        "notes": ["a", "b"],
        "sources": [
            {
                "source_id": "jp-1",
                "status": "partial",
                "node_id": "jp-1.svc.plus",
                "env": "prod",
                "contract": "window",
                "snapshots": 11,
                "last_completed_until": "2026-04-08T12:00:00Z",
                "lag_seconds": 13.5,
                "resets": 14,
                "gaps": 15,
                "rejected_samples": 16,
                "unresolved_streams": 17,
                "held_deltas": 18,
                "corrections": 19,
                "successions": 23,
                "waits_for_successor": True,
                "new_streams": 24,
                "charged_bytes": 25,
                "amount": "0.26",
                "resolved_gaps": 20,
                "notes": ["c"],
                "error": "refused",
                "error_code": "credentials",
            }
        ],
        "differences": [DIFFERENCE_OBJECT],
    }


def test_a_run_that_did_nothing_tells_zeros() -> None:
    """What a job does not set has not happened: no byte, no money, no step, no source."""
    told = result_object(RunResult("collect", "r", "ok", NOON, NOON, sources=(SourceResult("s"),)))
    (source,) = told.pop("sources")
    head = {"job", "run_id", "status", "started_at", "finished_at"}
    assert {key: value for key, value in told.items() if key not in head} == {
        **dict.fromkeys(("processed_samples", "written_minutes", "replayed_minutes"), 0),
        **dict.fromkeys(
            ("included_bytes", "charged_bytes", "corrections", "successions", "steps"), 0
        ),
        "amount": "0",
        "currency": None,
        "dry_run": False,
        "error": None,
        "notes": [],
        "differences": [],
    }
    assert source == {
        "source_id": "s",
        "status": "ok",
        "node_id": "",
        "env": "",
        "contract": "",
        **dict.fromkeys(("snapshots", "resets", "gaps", "rejected_samples"), 0),
        **dict.fromkeys(
            ("unresolved_streams", "held_deltas", "corrections", "successions", "resolved_gaps"), 0
        ),
        "waits_for_successor": False,
        "new_streams": 0,
        "charged_bytes": 0,
        "amount": "0",
        "last_completed_until": None,
        "lag_seconds": None,
        "notes": [],
        "error": None,
        "error_code": None,
    }
    assert RunResult("collect", "r", "ok", NOON, NOON).sources == ()
    assert (SourceResult("s").samples, SourceResult("s").unreachable) == (0, False)


def test_a_result_object_lists_a_thousand_differences_at_most() -> None:
    """A reconcile over a broken day must not print a million lines; the count stays whole."""
    many = replace(RUN, corrections=1_001, differences=(DIFFERENCE,) * 1_001)
    told = result_object(many)
    assert told["differences"] == [DIFFERENCE_OBJECT] * 1_000
    assert told["corrections"] == 1_001


def test_a_rerate_tells_its_version_and_each_accounts_difference() -> None:
    """Money back is negative, and amounts are plain decimals here as well."""
    empty = RerateResult("rerate", "r", "ok", NOON, NOON)
    assert result_object(empty)["pricing_rule_version"] == ""
    assert result_object(empty)["accounts"] == []
    told = result_object(
        replace(
            empty,
            pricing_rule_version="v2",
            accounts=(AccountDifference("a", 3, Decimal("-1E-9")),),
        )
    )
    assert told["pricing_rule_version"] == "v2"
    assert told["accounts"] == [{"account_uuid": "a", "corrections": 3, "amount": "-0.000000001"}]
