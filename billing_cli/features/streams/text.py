"""Streams as a list for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.cli.tables import Part
    from billing_cli.features.streams.result import StreamStatus

COLUMNS = (
    Column("source", is_extra=True),
    Column("node"),
    Column("inbound_tag"),
    Column("sample", is_extra=True),
    Column("account"),
    Column("state", "state"),
    Column("first_seen", "moment", is_extra=True),
    Column("last_change", "moment", is_extra=True),
    Column("uplink", "bytes", is_extra=True),
    Column("downlink", "bytes", is_extra=True),
    Column("pending", "bytes"),
)


def streams_parts(streams: Sequence[StreamStatus]) -> list[Part]:
    """Return a table of the streams, and how to decide about those that are duplicates.

    Totals are those that the exporter shows.
    """
    rows = [
        (
            stream.source_id,
            stream.stored_node_id,
            stream.name.inbound_tag,
            stream.name.sample_uuid,
            stream.account_uuid,
            stream.state,
            stream.first_seen_at,
            stream.changed_at,
            stream.totals.uplink,
            stream.totals.downlink,
            stream.pending_bytes,
        )
        for stream in streams
    ]
    parts: list[Part] = [Table(COLUMNS, rows, empty="no streams")]
    duplicates = sum(stream.state == "duplicate" for stream in streams)
    if duplicates:
        advice = (
            f"{plural(duplicates, 'duplicate')}: another stream of the account counts the same "
            "bytes. `billing held list` shows what is held of it; `billing held release` charges "
            "it from now on, `billing held reject` ignores it for good."
        )
        parts += ["", advice]
    return parts
