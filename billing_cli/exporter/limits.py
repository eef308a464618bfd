"""How much an exporter may cost: every bound that a hostile answer meets, in one place."""

from __future__ import annotations

from dataclasses import dataclass

MAX_NAME_CHARACTERS = 256
"""The longest node id, environment or inbound tag that is believed."""

MAX_CURSOR_CHARACTERS = 4096
"""The longest cursor that is sent back: it has to fit into a request line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one source's answers; tests make them small.

    `body_bytes` counts after decompression, per page. `decoded_bytes` bounds what a page may weigh
    in memory while it is decoded. `minute_samples` is what a single minute may hold beyond the
    step's own `max_samples`, because a minute is never cut in two. `retries` and `backoff_seconds`
    are for connect errors and 502/503/504 only; the second pause is twice the first.
    """

    body_bytes: int = 32 * 1024 * 1024
    decoded_bytes: int = 140_000_000
    spool_bytes: int = 1024 * 1024
    pages: int = 10_000
    minute_samples: int = 400_000
    retries: int = 2
    backoff_seconds: float = 0.2


DEFAULT_LIMITS = Limits()
