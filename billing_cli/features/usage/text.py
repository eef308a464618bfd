"""Usage as a table with bars, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from billing_cli.cli.text import human_bytes, table
from billing_cli.core.times import format_rfc3339
from billing_cli.features.usage.result import row_object

if TYPE_CHECKING:
    from billing_cli.features.usage.result import Usage, UsageReport

BAR_CHARACTERS = 20
HEADERS = {"day": "DAY", "hour": "HOUR", "node": "NODE", "inbound-tag": "INBOUND TAG"}
COLUMNS = (
    "key",
    "uplink_bytes",
    "downlink_bytes",
    "total_bytes",
    "included_bytes",
    "rated_bytes",
    "amount",
)


def usage_text(report: UsageReport, *, has_bars: bool = False) -> str:
    """Return a table; with bars, each group's share of the largest one."""
    if not report.rows:
        return f"no usage from {format_rfc3339(report.since)} to {format_rfc3339(report.until)}"
    rows = [*report.rows, *([report.others] if report.others else []), report.total]
    largest = max(row.total_bytes for row in report.rows)
    cells = [
        (
            row.key or "-",
            *(human_bytes(count) for count in row[1:3]),
            human_bytes(row.total_bytes),
            *(human_bytes(count) for count in row[3:5]),
            f"{row.amount:f}",
            *((_bar(row, largest if row in report.rows else 0),) if has_bars else ()),
        )
        for row in rows
    ]
    key = HEADERS.get(report.by, "ACCOUNT")
    header = (key, "UPLINK", "DOWNLINK", "TOTAL", "INCLUDED", "RATED", "AMOUNT")
    return table((*header, "") if has_bars else header, cells)


def usage_csv(report: UsageReport) -> str:
    """Return the groups as CSV with a header: plain bytes and decimals, no total."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow((report.by.replace("-", "_"), *COLUMNS[1:]))
    rows = [*report.rows, *([report.others] if report.others else [])]
    for row in rows:
        values = row_object(row)
        writer.writerow([values[column] for column in COLUMNS])
    return written.getvalue().rstrip("\n")


def _bar(row: Usage, largest: int) -> str:
    return "█" * round(BAR_CHARACTERS * row.total_bytes / largest) if largest else ""
