"""Values of the core as columns, by the parameter names of the statements that take them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from billing_cli.core.model import Checkpoint, UsageRecord

Columns = dict[str, arrays.BinaryArray]


def usage_columns(stream_ids: Sequence[int], records: Sequence[UsageRecord]) -> Columns:
    """Return records and the ids of their streams; there is at least one."""
    _, buckets, epochs, froms, tos, starts, ends = zip(*records, strict=True)
    uplink_starts, downlink_starts = zip(*starts, strict=True)
    uplink_ends, downlink_ends = zip(*ends, strict=True)
    return {
        "stream_ids": arrays.bigints(stream_ids),
        "buckets": arrays.moments(buckets),
        "froms": arrays.moments(froms),
        "tos": arrays.moments(tos),
        "epochs": arrays.integers(epochs),
        "uplink_starts": arrays.bigints(uplink_starts),
        "uplink_ends": arrays.bigints(uplink_ends),
        "downlink_starts": arrays.bigints(downlink_starts),
        "downlink_ends": arrays.bigints(downlink_ends),
    }


def checkpoint_columns(checkpoints: Iterable[Checkpoint]) -> Columns:
    """Return checkpoints; there is at least one."""
    seen_ats, totals, epochs = zip(*checkpoints, strict=True)
    uplinks, downlinks = zip(*totals, strict=True)
    return {
        "seen_ats": arrays.moments(seen_ats),
        "uplinks": arrays.bigints(uplinks),
        "downlinks": arrays.bigints(downlinks),
        "epochs": arrays.integers(epochs),
    }
