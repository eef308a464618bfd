"""How much an exporter may cost: every bound that a hostile answer meets, in one place."""

from __future__ import annotations

from dataclasses import dataclass

MAX_NAME_CHARACTERS = 256
"""The longest node id, environment or inbound tag that is accepted."""

MAX_NAME_BYTES = 512
"""The same in UTF-8: a node id, an environment and a tag are keys of one index together."""

MAX_CURSOR_CHARACTERS = 4096
"""The longest cursor that is sent back: it has to fit into a request line."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one source's answers; tests make them small.

    `body_bytes` bounds a page after decompression: 400 bytes for each of `page_samples`, more than
    twice what a sample takes in compact JSON, so that white space does not decide. `page_objects`
    bounds the JSON objects of a page before it is decoded, and with them the memory: one unknown
    object in each sample is allowed for. A page beyond one of the three is asked for once more,
    snapshot by snapshot. `wanted_samples` is how many a page should hold, once it is known how
    large the snapshots of the node are. Beyond `minute_snapshots` or `minute_samples` in one
    minute, its last snapshot takes the place of the one before, and has its bytes, as counters are
    cumulative. `retries` and
    `backoff_seconds` are for connect errors and 502/503/504 only; the second pause is twice the
    first. `file_bytes` and `file_snapshots` bound what is read from a file, after decompression;
    what is remembered of each of its snapshots takes about 200 bytes.
    """

    body_bytes: int = 120_000_000
    snapshot_samples: int = 150_000
    page_samples: int = 300_000
    page_objects: int = 600_000
    wanted_samples: int = 100_000
    spool_bytes: int = 1024 * 1024
    pages: int = 10_000
    minute_samples: int = 100_000
    minute_snapshots: int = 120
    retries: int = 2
    backoff_seconds: float = 0.2
    file_bytes: int = 16_000_000_000
    file_snapshots: int = 1_000_000


DEFAULT_LIMITS = Limits()
