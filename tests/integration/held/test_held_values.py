"""Held deltas as values: their figures, and how other programs read them."""

from __future__ import annotations

from dataclasses import replace

from billing_cli.core.result import result_object
from billing_cli.features.held.result import (
    HeldDelta,
    HeldList,
    HeldResult,
    UncertainGap,
    held_list_object,
    held_object,
)
from tests.unit.core.stories import ALICE, after_noon, record

HELD = HeldDelta(
    held_id=3,
    stream_id=17,
    source_id="jp-1",
    stored_node_id="prod:jp-1.svc.plus",
    account_uuid=None,
    record=record(ALICE, ("01:00", "01:30"), (100, 1_000), (400, 1_601), epoch=2),
    found_at=after_noon("05:00"),
)

HELD_OBJECT = {
    "held_id": 3,
    "state": "held",
    "held_reason": "account_rate",
    "source_id": "jp-1",
    "node_id": "prod:jp-1.svc.plus",
    "line_code": "xhttp",
    "sample_uuid": ALICE.sample_uuid,
    "account_uuid": None,
    "from_at": "2026-04-08T12:01:00Z",
    "to_at": "2026-04-08T12:01:30Z",
    "reset_epoch": 2,
    "uplink_start": 100,
    "uplink_end": 400,
    "downlink_start": 1_000,
    "downlink_end": 1_601,
    "uplink_bytes": 300,
    "downlink_bytes": 601,
    "total_bytes": 901,
    "bits_per_second": 240,
    "found_at": "2026-04-08T12:05:00Z",
    "decided_at": None,
    "reason": "",
}


def test_a_held_delta_is_told_with_all_its_figures() -> None:
    """Whoever decides it needs both ends of the counters, the time between, and the rate."""
    assert held_object(HELD) == HELD_OBJECT


def test_a_decided_delta_says_when_and_why() -> None:
    """The decision is told beside the figures that it was made of."""
    decided = replace(
        HELD,
        state="released",
        account_uuid=ALICE.sample_uuid,
        decided_at=after_noon("06:00"),
        reason="a backup",
    )
    assert held_object(decided) == {
        **HELD_OBJECT,
        "state": "released",
        "account_uuid": ALICE.sample_uuid,
        "decided_at": "2026-04-08T12:06:00Z",
        "reason": "a backup",
    }


def test_the_rate_of_a_delta_whose_stamps_meet_is_that_of_a_second() -> None:
    """A rate needs some time, and counters have no finer one."""
    met = replace(HELD, record=HELD.record._replace(from_at=HELD.record.to_at))
    assert met.bits_per_second == 901 * 8


def test_a_rate_is_rounded_to_the_bit() -> None:
    """Half a bit is of no interest to anybody."""
    longer = replace(HELD, record=HELD.record._replace(to_at=after_noon("01:07")))
    assert longer.bits_per_second == 1030  # 7208 bits in 7 seconds


def test_held_deltas_are_listed_in_the_order_in_which_they_were_found() -> None:
    """A list has the head of a result object; what is decided together has its ids and its sum."""
    other = replace(HELD, held_id=4)
    gap = UncertainGap("jp-1", "uncertain", after_noon("01:00"), after_noon("02:00"), 2, 77)
    assert held_list_object(HeldList((HELD, other), (gap,))) == {
        "job": "held-list",
        "status": "ok",
        "error": None,
        "units": [
            {
                "source_id": "jp-1",
                "node_id": "prod:jp-1.svc.plus",
                "minute": "2026-04-08T12:01:00Z",
                "held_reason": "account_rate",
                "account_uuid": None,
                "total_bytes": 1802,
                "held_ids": [3, 4],
            }
        ],
        "held": [HELD_OBJECT, {**HELD_OBJECT, "held_id": 4}],
        "uncertain_gaps": [
            {
                "source_id": "jp-1",
                "kind": "uncertain",
                "from_at": "2026-04-08T12:01:00Z",
                "to_at": "2026-04-08T12:02:00Z",
                "streams": 2,
                "uncertain_bytes": 77,
            }
        ],
    }


def test_a_run_that_decides_deltas_tells_them() -> None:
    """Its result object has them beside what every run tells."""
    began, ended = after_noon("06:00"), after_noon("06:01")
    assert result_object(HeldResult("held-release", "r", "ok", began, ended))["held"] == []
    result = HeldResult("held-release", "r", "ok", began, ended, held=(HELD,))
    assert result_object(result)["held"] == [HELD_OBJECT]
