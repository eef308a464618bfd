"""What was pruned, as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import table

if TYPE_CHECKING:
    from billing_cli.features.prune.result import PruneResult

HEADER = ("MONTH", "RECORDS", "CHARGES", "DISK BYTES", "TABLES")


def prune_text(result: PruneResult) -> str:
    """Return a summary line, the months, and what became of their tables."""
    would = " (dry run: nothing is changed)" if result.dry_run else ""
    since = "" if result.kept_since is None else f", kept from {result.kept_since:%Y-%m} on"
    lines = [f"prune: {result.status}{would} - {len(result.months)} months of evidence{since}"]
    rows = [
        (
            f"{one.month:%Y-%m}",
            f"{one.records:,}",
            f"{one.charges:,}",
            f"{one.disk_bytes:,}",
            f"{', '.join(one.tables)} ({'dropped' if one.is_dropped else 'detached'})",
        )
        for one in result.months
    ]
    if rows:
        lines += ["", table(HEADER, rows), ""]
    if result.dropped_tables:
        lines.append(f"dropped as well: {', '.join(result.dropped_tables)}")
    if result.moved_rows:
        lines.append(f"{result.moved_rows:,} rows got a partition of their month")
    if result.deleted_runs or result.deleted_gaps:
        lines.append(
            f"deleted {result.deleted_runs:,} journal rows, {result.deleted_gaps:,} resolved gaps"
        )
    return "\n".join(lines)
