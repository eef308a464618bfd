"""Held deltas and their decisions as lists for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import human_bytes, with_currency
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.features.held.result import HeldDelta, HeldList, HeldResult, HeldUnit

IDS_SHOWN = 5

UNIT_COLUMNS = (
    Column("source", is_extra=True),
    Column("node"),
    Column("minute", "moment"),
    Column("reason"),
    Column("account", is_extra=True),
    Column("streams", "count"),
    Column("bytes", "bytes"),
    Column("ids", "prose"),
)
GAP_COLUMNS = (
    Column("source"),
    Column("gap"),
    Column("from", "moment"),
    Column("to", "moment", is_extra=True),
    Column("streams", "count", is_extra=True),
    Column("uncertain", "bytes"),
)
COLUMNS = (
    Column("id"),
    Column("state", "state"),
    Column("reason"),
    Column("source", is_extra=True),
    Column("node"),
    Column("inbound_tag", is_extra=True),
    Column("sample", is_extra=True),
    Column("account", is_extra=True),
    Column("from", "moment", is_extra=True),
    Column("to", "moment"),
    Column("uplink", "bytes", is_extra=True),
    Column("downlink", "bytes", is_extra=True),
    Column("bytes", "bytes"),
    Column("rate", "rate", is_extra=True),
    Column("found", "moment", is_extra=True),
)


def held_list_parts(listed: HeldList) -> list[Part]:
    """Return tables of what is decided together, of the deltas, and of uncertain bytes."""
    parts: list[Part] = []
    if listed.units:
        units = [_unit_row(unit) for unit in listed.units]
        parts += [Table(UNIT_COLUMNS, units, is_list=False), ""]
    parts.append(_deltas(listed.deltas))
    parts += [
        f"{delta.held_id}: {delta.state} {format_rfc3339(delta.decided_at)}: {delta.reason}"
        for delta in listed.deltas
        if delta.decided_at is not None
    ]
    if listed.gaps:
        rows = [
            (gap.source_id, gap.kind, gap.from_at, gap.to_at, gap.streams, gap.uncertain_bytes)
            for gap in listed.gaps
        ]
        head = "not charged, because the snapshots allow for less; for information only"
        parts += ["", head, Table(GAP_COLUMNS, rows, is_list=False)]
    return parts


def held_result_parts(result: HeldResult) -> list[Part]:
    """Return what was decided, and what it costs."""
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = f"{result.job}: {result.status}{would}"
    if result.error:
        return [f"{head} - {result.error}"]
    total = result.included_bytes + result.charged_bytes
    decided = (
        f"{head} - {len(result.held)} decided, {human_bytes(total)} billed "
        f"({human_bytes(result.included_bytes)} included), "
        f"amount {with_currency(result.amount, result.currency)}"
    )
    return [decided, "", _deltas(result.held)]


def _unit_row(unit: HeldUnit) -> tuple[Cell, ...]:
    ids = [str(delta.held_id) for delta in unit.deltas]
    hidden = len(ids) - IDS_SHOWN
    return (
        unit.source_id,
        unit.stored_node_id,
        unit.minute,
        unit.held_reason,
        "all" if unit.held_reason == "line_rate" else unit.account_uuid,
        len({delta.stream_id for delta in unit.deltas}),
        unit.total_bytes,
        " ".join(ids[:IDS_SHOWN]) + (f" and {hidden} more" if hidden > 0 else ""),
    )


def _deltas(deltas: Sequence[HeldDelta]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            str(delta.held_id),
            delta.state,
            delta.held_reason,
            delta.source_id,
            delta.stored_node_id,
            delta.record.name.inbound_tag,
            delta.record.name.sample_uuid,
            delta.account_uuid,
            delta.record.from_at,
            delta.record.to_at,
            delta.record.uplink_bytes,
            delta.record.downlink_bytes,
            delta.total_bytes,
            delta.bits_per_second,
            delta.found_at,
        )
        for delta in deltas
    ]
    return Table(COLUMNS, rows, empty="no held deltas")
