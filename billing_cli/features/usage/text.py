"""Usage as a list for people, with bars, and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, with_currency
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from billing_cli.cli.tables import Cell, Part
    from billing_cli.features.usage.result import Usage, UsageReport

BAR_CHARACTERS = 20
COLUMNS = (
    Column("uplink_bytes", "bytes", is_extra=True),
    Column("downlink_bytes", "bytes", is_extra=True),
    Column("total_bytes", "bytes"),
    Column("included_bytes", "bytes", is_extra=True),
    Column("rated_bytes", "bytes", is_extra=True),
    Column("amount", "money"),
)


def usage_parts(report: UsageReport, *, has_bars: bool = False) -> list[Part]:
    """Return a table with the total below; with bars, each group's share of the largest one."""
    rows = [*report.rows, *([report.others] if report.others else []), report.total]
    largest = max((row.total_bytes for row in report.rows), default=0)
    cells: list[tuple[Cell, ...]] = [
        (*_cells(row), *((_bar(row, largest if row in report.rows else 0),) if has_bars else ()))
        for row in rows
    ]
    since, until = format_rfc3339(report.since), format_rfc3339(report.until)
    columns = (_key(report), *COLUMNS, *((Column("share", is_extra=True),) if has_bars else ()))
    none = f"no usage from {since} to {until}"
    shown = Table(columns, cells if report.rows else (), empty=none)
    return [shown, *amounts_in(report.currency if report.rows else ""), *usage_notes(report)]


def usage_notes(report: UsageReport) -> list[str]:
    """Return where amounts and bytes are not of the same usage."""
    notes = []
    if report.evidence_since is not None:
        since = format_rfc3339(report.evidence_since)
        notes.append(
            f"note: charges of minutes before {since} were pruned: of those only bytes are shown"
        )
    if report.deleted_amount:
        amount = with_currency(report.deleted_amount, report.currency)
        notes.append(
            f"note: {amount} of the amounts was charged to accounts before they were deleted: "
            "of those charges no bytes are shown"
        )
    return notes


def usage_table(report: UsageReport) -> Table:
    """Return the groups as rows, without the total."""
    rows = [*report.rows, *([report.others] if report.others else [])]
    return Table((_key(report), *COLUMNS), [_cells(row) for row in rows])


def _key(report: UsageReport) -> Column:
    return Column(report.by.replace("-", "_"))


def _cells(row: Usage) -> tuple[Cell, ...]:
    return (
        row.key,
        row.uplink_bytes,
        row.downlink_bytes,
        row.total_bytes,
        row.included_bytes,
        row.rated_bytes,
        row.amount,
    )


def _bar(row: Usage, largest: int) -> str:
    return "\u2588" * round(BAR_CHARACTERS * row.total_bytes / largest) if largest else ""
