"""What `check` found, as a list for people and programs: problems first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import plural

if TYPE_CHECKING:
    from billing_cli.cli.tables import Cell, Part
    from billing_cli.features.check.findings import CheckReport, Finding

COLUMNS = (
    Column("state", "state"),
    Column("area"),
    Column("name"),
    Column("finding", "prose"),
)
GRAVEST_FIRST = ("failed", "warning", "ok")


def check_parts(report: CheckReport) -> list[Part]:
    """Return a table, what failed first, and a line that sums it up. Defaults are only counted."""
    found = [finding for finding in report.findings if not finding.is_default]
    # The sort is stable: what is equally grave stays in its order.
    found.sort(key=lambda finding: GRAVEST_FIRST.index(finding.state))
    parts: list[Part] = [Table(COLUMNS, [_row(finding) for finding in found])]
    defaults = len(report.findings) - len(found)
    if defaults:
        parts += ["", f"{plural(defaults, 'setting')} not set: the defaults count"]
    failed, warnings = report.count("failed"), plural(report.count("warning"), "warning")
    return [*parts, "", f"check: {report.count('ok')} ok, {failed} failed, {warnings}"]


def _row(finding: Finding) -> tuple[Cell, ...]:
    area = finding.area if finding.source_id is None else f"{finding.area} {finding.source_id}"
    return finding.state, area, finding.name, finding.text
