"""What `check` found, as a table for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import table

if TYPE_CHECKING:
    from billing_cli.cli.text import Style
    from billing_cli.features.check.findings import CheckReport, Finding

HEADER = ("STATE", "AREA", "NAME", "FINDING")
COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def check_text(report: CheckReport, style: Style) -> str:
    """Return an aligned table and a line that sums it up; `style` colours the states."""

    def paint(row: int, column: int, cell: str) -> str:
        if row < 0:
            return style(cell, bold=True)
        return style(cell, fg=COLORS[cell.strip()]) if column == 0 else cell

    shown = table(HEADER, [_row(one) for one in report.findings], paint)
    counts = f"{report.count('failed')} failed, {report.count('warning')} warnings"
    return f"{shown}\n\ncheck: {report.count('ok')} ok, {counts}"


def _row(finding: Finding) -> tuple[str, ...]:
    area = finding.area if finding.source_id is None else f"{finding.area} {finding.source_id}"
    return finding.state, area, finding.name, finding.text
