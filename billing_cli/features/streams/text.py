"""Streams as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import human_bytes, table
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.features.streams.result import StreamStatus

HEADER = (
    "SOURCE",
    "NODE",
    "LINE",
    "SAMPLE",
    "ACCOUNT",
    "STATE",
    "FIRST SEEN",
    "LAST CHANGE",
    "UPLINK",
    "DOWNLINK",
    "PENDING",
)


def streams_text(streams: Sequence[StreamStatus]) -> str:
    """Return a table of the streams, and how to decide about those that are duplicates.

    Totals are in bytes as the exporter shows them.
    """
    if not streams:
        return "no streams"
    listed = table(
        HEADER,
        [
            (
                one.source_id or "-",
                one.stored_node_id,
                one.name.inbound_tag or "-",
                one.name.sample_uuid,
                one.account_uuid or "-",
                one.state,
                format_rfc3339(one.first_seen_at.replace(microsecond=0)),
                format_rfc3339(one.changed_at.replace(microsecond=0)),
                str(one.totals.uplink),
                str(one.totals.downlink),
                human_bytes(one.pending_bytes) if one.pending_bytes else "-",
            )
            for one in streams
        ],
    )
    duplicates = sum(one.state == "duplicate" for one in streams)
    if not duplicates:
        return listed
    return (
        f"{listed}\n\n{duplicates} duplicate: another stream of the account counts the same bytes. "
        "`billing held list` shows what is held of it; `held release` charges it from now on, "
        "`held reject` ignores it for good."
    )
