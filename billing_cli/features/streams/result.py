"""What `streams` reports: each counter pair, whose it is and where it stands, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.core.model import StreamName, StreamOrigin, StreamState, Totals


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A stream as the database knows it.

    `source_id` is None where no source carries the node any more, `account_uuid` while the stream
    is unresolved; `pending_bytes` wait for that. `origin` says how it began, `state` whether its
    bytes are charged. `changed_at` is the snapshot in which
    the totals last changed, `absent_since` the last one that held a stream that is gone.
    """

    stream_id: int
    source_id: str | None
    stored_node_id: str
    name: StreamName
    account_uuid: str | None
    origin: StreamOrigin
    state: StreamState
    first_seen_at: datetime
    changed_at: datetime
    absent_since: datetime | None
    reset_epoch: int
    totals: Totals
    pending_bytes: int


def streams_object(streams: Sequence[StreamStatus]) -> dict[str, Any]:
    """Return the streams as a JSON object."""
    return {
        "job": "streams",
        "status": "ok",
        "error": None,
        "streams": [
            {
                **attributes(
                    stream,
                    """stream_id source_id account_uuid state first_seen_at changed_at absent_since
                    reset_epoch pending_bytes""",
                ),
                "node_id": stream.stored_node_id,
                "line_code": stream.name.inbound_tag,
                "sample_uuid": stream.name.sample_uuid,
                "first_sight": stream.origin,
                "uplink_bytes_total": stream.totals.uplink,
                "downlink_bytes_total": stream.totals.downlink,
            }
            for stream in streams
        ],
    }
