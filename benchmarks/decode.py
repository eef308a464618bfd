"""How long a page of 100,000 samples takes to decode, beside what plain JSON parsing takes.

Run as `python benchmarks/decode.py`. The ratio is comparable between machines, the time is not.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from billing_cli.exporter.decode import Expected, decode_window_page

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = 100_000
ROUNDS = 7
LIMIT_SECONDS = 0.25


def main() -> int:
    """Print the figures; 1 where decoding takes longer than its limit."""
    body = page_body(SAMPLES)
    now = datetime(2026, 4, 8, 12, 1, tzinfo=UTC)

    def decode() -> None:
        page = decode_window_page(body, expected=Expected("jp-1", "prod"), now=now)
        assert len(page.snapshots[0].totals) == SAMPLES

    plain = best_seconds(lambda: json.loads(body))
    strict = best_seconds(decode)
    print(f"page                {len(body) / 1e6:8.1f} MB, {SAMPLES} samples")
    print(f"json.loads          {plain:8.3f} s")
    print(f"strict decoding     {strict:8.3f} s   limit {LIMIT_SECONDS} s")
    print(f"ratio               {strict / plain:8.2f}")
    return 0 if strict <= LIMIT_SECONDS else 1


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


def best_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of several runs: the one that the machine disturbed least."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    sys.exit(main())
