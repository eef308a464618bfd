"""What exporters say: pages and snapshots as JSON bytes, and their cursors.

A cursor is opaque to clients. Here it is a nanosecond stamp, as in the exporters at large: a
client that cuts it to seconds gets the same snapshots again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from billing_cli.simulator.stamps import format_stamp, parse_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from billing_cli.core.model import NodeIdentity
    from billing_cli.simulator.traffic import Node, Snapshot

Seam = Literal["after", "next", "repeat"]
"""How pages join.

after: the cursor is the page's last stamp, and the next page begins after it.
next: the cursor is the next page's first stamp; the last page has none.
repeat: as `after`, but the next page repeats the last snapshot (beyond its limit).
"""


Order = Literal["rising", "twice", "reversed"]
"""How a page lists its snapshots: oldest first, each of them twice, or newest first."""


class BadRequestError(Exception):
    """The query string is not one that an exporter understands. The text names the parameter."""


@dataclass(frozen=True, slots=True)
class WindowQuery:
    """A request for a window, both ends inclusive, in nanoseconds; `cursor` as the client sent."""

    since: int
    until: int
    limit: int
    cursor: str

    @classmethod
    def parse(cls, parameters: Mapping[str, str], max_page: int) -> WindowQuery:
        """Read the query string's parameters. Raises BadRequestError."""
        try:
            limit = int(parameters.get("limit", max_page))
        except ValueError:
            raise BadRequestError("limit is no number") from None
        if limit < 1:
            raise BadRequestError("limit is below 1")
        return cls(
            since=_stamp(parameters, "since"),
            until=_stamp(parameters, "until"),
            limit=min(limit, max_page),
            cursor=parameters.get("cursor", ""),
        )


def window_page(
    node: Node,
    snapshots: Sequence[Snapshot],
    query: WindowQuery,
    seam: Seam,
    identity: NodeIdentity | None = None,
    order: Order = "rising",
) -> bytes:
    """Return one page of the window. `snapshots` is what the exporter offers, oldest first."""
    begin = query.since
    if query.cursor:
        cursor = _stamp({"cursor": query.cursor}, "cursor")
        begin = max(begin, cursor + 1 if seam == "after" else cursor)
    offered = [
        snapshot for snapshot in snapshots if begin <= snapshot.stamp_nanoseconds <= query.until
    ]
    size = query.limit + (1 if seam == "repeat" and query.cursor else 0)
    page, rest = offered[:size], offered[size:]
    cursor_text = ""
    if seam == "next":
        cursor_text = format_stamp(rest[0].stamp_nanoseconds) if rest else ""
    elif page:
        cursor_text = format_stamp(page[-1].stamp_nanoseconds)
    speaker = identity or node.identity
    encoded = [encode_snapshot(node, snapshot, identity) for snapshot in page]
    if order == "reversed":
        encoded.reverse()
    elif order == "twice":
        encoded = [snapshot for snapshot in encoded for _ in range(2)]
    body = b",".join(encoded)
    return b'{"node_id":%b,"env":%b,"snapshots":[%b],"has_more":%b,"next_cursor":%b}' % (
        _json(speaker.node_id if page else ""),
        _json(speaker.env if page else ""),
        body,
        _json(bool(rest)),
        _json(cursor_text),
    )


def encode_snapshot(_node: Node, snapshot: Snapshot, identity: NodeIdentity | None = None) -> bytes:
    """Return the snapshot as JSON; kept with it, unless it speaks under another identity."""
    if snapshot.encoded is not None and identity is None:
        return snapshot.encoded
    speaker = identity or snapshot.identity
    samples = ",".join(
        f'{{"uuid":"{name.sample_uuid}","email":"{email}","inbound_tag":"{name.inbound_tag}",'
        f'"uplink_bytes_total":{totals.uplink},"downlink_bytes_total":{totals.downlink}}}'
        for name, (totals, email) in snapshot.published().items()
    )
    encoded = b'{"collected_at":%b,"node_id":%b,"env":%b,"samples":[%b]}' % (
        _json(format_stamp(snapshot.stamp_nanoseconds)),
        _json(speaker.node_id),
        _json(speaker.env),
        samples.encode(),
    )
    if identity is None:
        snapshot.encoded = encoded
    return encoded


def _stamp(parameters: Mapping[str, str], name: str) -> int:
    try:
        return parse_stamp(parameters[name])
    except KeyError:
        raise BadRequestError(f"{name} is missing") from None
    except ValueError:
        raise BadRequestError(f"{name} is no RFC 3339 time") from None


def _json(value: str | bool) -> bytes:
    return json.dumps(value).encode()
