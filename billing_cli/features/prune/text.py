"""What was pruned, as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import plural

if TYPE_CHECKING:
    from billing_cli.cli.tables import Part
    from billing_cli.features.prune.result import PruneResult

COLUMNS = (
    Column("month"),
    Column("records", "count"),
    Column("charges", "count"),
    Column("disk", "bytes"),
    Column("tables", "prose"),
)


def prune_parts(result: PruneResult) -> list[Part]:
    """Return a summary line, the months, and what became of their tables."""
    would = " (dry run: nothing is changed)" if result.dry_run else ""
    since = "" if result.kept_since is None else f", kept from {result.kept_since:%Y-%m} on"
    months = plural(len(result.months), "month")
    parts: list[Part] = [f"prune: {result.status}{would} - {months} of evidence{since}"]
    rows = [
        (
            f"{month.month:%Y-%m}",
            month.records,
            month.charges,
            month.disk_bytes,
            f"{', '.join(month.tables)} ({'dropped' if month.is_dropped else 'detached'})",
        )
        for month in result.months
    ]
    if rows:
        parts += ["", Table(COLUMNS, rows), ""]
    if result.dropped_tables:
        parts.append(f"dropped as well: {', '.join(result.dropped_tables)}")
    if result.moved_rows:
        parts.append(f"{plural(result.moved_rows, 'row')} got a partition of their month")
    if result.deleted_runs or result.deleted_gaps:
        runs = plural(result.deleted_runs, "run record")
        parts.append(f"deleted {runs}, {plural(result.deleted_gaps, 'resolved gap')}")
    if result.months and not result.dry_run:
        parts.append(
            "where there is a log of seals, run `billing seal`: until then `billing verify` "
            "reports what was pruned as deleted"
        )
    return parts
