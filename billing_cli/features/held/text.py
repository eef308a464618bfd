"""Held deltas and their decisions as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import human_bytes, table
from billing_cli.core.times import format_rfc3339
from billing_cli.printable import printable

if TYPE_CHECKING:
    from billing_cli.features.held.result import HeldDelta, HeldList, HeldResult, HeldUnit

BITS_IN_A_UNIT = 1000

IDS_SHOWN = 5

UNIT_HEADER = ("SOURCE", "NODE", "MINUTE", "REASON", "ACCOUNT", "STREAMS", "BYTES", "IDS")
GAP_HEADER = ("SOURCE", "GAP", "FROM", "TO", "STREAMS", "UNCERTAIN")
HEADER = (
    "ID",
    "STATE",
    "REASON",
    "SOURCE",
    "NODE",
    "LINE",
    "SAMPLE",
    "ACCOUNT",
    "FROM",
    "TO",
    "UPLINK",
    "DOWNLINK",
    "BYTES",
    "RATE",
    "FOUND",
)


def held_list_text(listed: HeldList) -> str:
    """Return tables of what is decided together, of the deltas, and of uncertain bytes."""
    parts = []
    if listed.units:
        parts.append(table(UNIT_HEADER, [_unit_row(one) for one in listed.units]))
    lines = [table(HEADER, [_row(one) for one in listed.deltas])] if listed.deltas else []
    lines += [
        printable(f"{one.held_id}: {one.state} {format_rfc3339(one.decided_at)}: {one.reason}")
        for one in listed.deltas
        if one.decided_at is not None
    ]
    parts.append("\n".join(lines) or "no held deltas")
    if listed.gaps:
        rows = [
            (
                one.source_id,
                one.kind,
                format_rfc3339(one.from_at),
                format_rfc3339(one.to_at) if one.to_at else "-",
                str(one.streams),
                human_bytes(one.uncertain_bytes),
            )
            for one in listed.gaps
        ]
        parts.append(
            "not charged, because the snapshots allow for less; for information only\n"
            + table(GAP_HEADER, rows)
        )
    return "\n\n".join(parts)


def held_result_text(result: HeldResult) -> str:
    """Return what was decided, and what it costs."""
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = f"{result.job}: {result.status}{would}"
    if result.error:
        return f"{head} - {printable(result.error)}"
    total = result.included_bytes + result.charged_bytes
    return (
        f"{head} - {len(result.held)} decided, {human_bytes(total)} billed "
        f"({human_bytes(result.included_bytes)} included), amount {result.amount:f}\n\n"
        f"{table(HEADER, [_row(one) for one in result.held])}"
    )


def human_rate(bits_per_second: int) -> str:
    """Return a rate with a decimal unit, such as `2.5 Gbit/s`."""
    amount = float(bits_per_second)
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if amount < BITS_IN_A_UNIT:
            return f"{amount:.0f} {unit}" if unit == "bit/s" else f"{amount:.1f} {unit}"
        amount /= BITS_IN_A_UNIT
    return f"{amount:.1f} Tbit/s"


def _unit_row(unit: HeldUnit) -> tuple[str, ...]:
    ids = [str(one.held_id) for one in unit.deltas]
    hidden = len(ids) - IDS_SHOWN
    account = "all" if unit.held_reason == "line_rate" else unit.account_uuid or "-"
    return (
        unit.source_id or "-",
        unit.stored_node_id,
        format_rfc3339(unit.minute),
        unit.held_reason,
        account,
        str(len({one.stream_id for one in unit.deltas})),
        human_bytes(unit.total_bytes),
        " ".join(ids[:IDS_SHOWN]) + (f" and {hidden} more" if hidden > 0 else ""),
    )


def _row(held: HeldDelta) -> tuple[str, ...]:
    record = held.record
    return (
        str(held.held_id),
        held.state,
        held.held_reason,
        held.source_id or "-",
        held.stored_node_id,
        record.name.inbound_tag or "-",
        record.name.sample_uuid,
        held.account_uuid or "-",
        format_rfc3339(record.from_at),
        format_rfc3339(record.to_at),
        f"{record.start.uplink} -> {record.end.uplink}",
        f"{record.start.downlink} -> {record.end.downlink}",
        human_bytes(held.total_bytes),
        human_rate(held.bits_per_second),
        format_rfc3339(held.found_at.replace(microsecond=0)),
    )
