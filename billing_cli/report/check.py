"""What `check` found, as a table for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.report.text import table

if TYPE_CHECKING:
    from billing_cli.core.check import CheckReport, Finding

HEADER = ("STATE", "AREA", "NAME", "FINDING")
COLORS = {"ok": "\x1b[32m", "warning": "\x1b[33m", "failed": "\x1b[31m"}
PLAIN = "\x1b[0m"


def check_text(report: CheckReport, *, is_colored: bool) -> str:
    """Return an aligned table and a line that sums it up; colours are for terminals only."""
    header, *lines = table(HEADER, [_row(one) for one in report.findings]).splitlines()
    if is_colored:
        lines = [
            f"{COLORS[one.state]}{one.state}{PLAIN}{line.removeprefix(one.state)}"
            for one, line in zip(report.findings, lines, strict=True)
        ]
    counts = f"{report.count('failed')} failed, {report.count('warning')} warnings"
    return "\n".join([header, *lines, "", f"check: {report.count('ok')} ok, {counts}"])


def _row(finding: Finding) -> tuple[str, ...]:
    area = finding.area if finding.source_id is None else f"{finding.area} {finding.source_id}"
    return finding.state, area, finding.name, _printable(finding.text)


def _printable(text: str) -> str:
    # What an exporter calls itself must not move the cursor or colour the terminal.
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
