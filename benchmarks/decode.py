"""How long a page of many samples takes to decode, compared with plain JSON parsing."""

from __future__ import annotations

import gc
import json
import random
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks.measure import Cost
from benchmarks.sizes import short
from billing_cli.exporter.decode import Decoder, Expected

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from billing_cli.simulator.postgres import EmbeddedPostgres

ROUNDS = 7


def run(_server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure the shortest of several rounds: the one that the machine disturbed least."""
    samples = sizes.decode_samples
    body = page_body(samples)
    now = datetime(2026, 4, 8, 12, 1, tzinfo=UTC)

    def decode() -> None:
        page = Decoder(now, Expected("jp-1", "prod")).page(body)
        assert len(page.snapshots[0].totals) == samples

    # As where `billing` runs.
    gc.disable()
    plain = _shortest(lambda: json.loads(body))
    strict = _shortest(decode)
    gc.enable()
    results.run(f"decoding {short(samples)} samples", Cost(strict), samples)
    results.figure(f"decoding {short(samples)} samples", strict / plain, "x `json.loads`", "decode")


def page_body(samples: int) -> bytes:
    """Return a page with one snapshot, as an exporter would send it."""
    source = random.Random(20260408)
    node = {"node_id": "jp-1", "env": "prod"}
    rows = [
        {
            "uuid": str(uuid.UUID(int=source.getrandbits(128))),
            "email": f"user{number}@example.com",
            "inbound_tag": "xhttp-premium",
            "uplink_bytes_total": source.randrange(10**11),
            "downlink_bytes_total": source.randrange(10**12),
        }
        for number in range(samples)
    ]
    snapshot = {"collected_at": "2026-04-08T12:00:00.123456789Z", **node, "samples": rows}
    page = {**node, "snapshots": [snapshot], "has_more": False, "next_cursor": "1775649600"}
    return json.dumps(page, separators=(",", ":")).encode()


def _shortest(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
