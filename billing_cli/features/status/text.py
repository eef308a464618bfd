"""The state of everything as text, with colours for whoever sits at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import human_bytes, human_seconds, plain, table
from billing_cli.core.times import format_rfc3339
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from billing_cli.cli.text import Style
    from billing_cli.core.source_status import SourceStatus
    from billing_cli.features.status.result import StatusReport

COLORS = {
    "ok": "green",
    "look": "yellow",
    "partial": "yellow",
    "failed": "red",
    "error": "red",
}


def status_text(report: StatusReport, style: Style = plain) -> str:
    """Return the sources, what needs a look, what is billed today, and the last runs."""
    lines = ["no source is configured"]
    if report.sources:
        rows = [_source_row(one, report.checked_at) for one in report.sources]
        lines = [_styled_table(_SOURCE_HEADER, rows, style)]
    lines += [
        style(f"{one.source_id}: {printable(reason)}", fg="yellow")
        for one in report.sources
        for reason in one.attention
    ]
    lines += [
        f"{one.source_id}: {printable(advice)}" for one in report.sources for advice in one.advice
    ]
    if report.missing_partitions:
        months = ", ".join(report.missing_partitions)
        lines.append(style(f"no partition for the evidence of {months}", fg="yellow"))
    today = report.today
    billed, included = human_bytes(today.billed_bytes), human_bytes(today.included_bytes)
    day = f"today ({today.since:%Y-%m-%d} UTC)"
    lines += ["", f"{day}: {billed} billed ({included} included), amount {today.amount:f}"]
    if report.runs:
        rows = [
            (
                _moment(one.started_at),
                one.job,
                one.status,
                f"{one.duration_seconds:.1f} s",
                str(one.written_minutes),
                one.error or "-",
            )
            for one in report.runs
        ]
        lines += ["", _styled_table(_RUN_HEADER, rows, style)]
    return "\n".join(lines)


_SOURCE_HEADER = (
    "SOURCE",
    "STATE",
    "NODE",
    "CONTRACT",
    "WATERMARK",
    "LAG",
    "SUCCESS",
    "ATTEMPT",
    "GAPS",
    "HELD",
    "UNRESOLVED",
)
_RUN_HEADER = ("RUN", "JOB", "STATUS", "TOOK", "MINUTES", "ERROR")


def _source_row(one: SourceStatus, now: datetime) -> tuple[str, ...]:
    return (
        one.source_id,
        _state(one),
        f"{one.env}:{one.node_id}" if one.env else one.node_id or "-",
        one.contract or "-",
        _moment(one.watermark),
        human_seconds(one.lag_seconds),
        _age(one.last_succeeded_at, now),
        _age(one.last_attempted_at, now),
        ", ".join(f"{count} {kind}" for kind, count in sorted(one.gaps.items())) or "-",
        str(one.held_deltas),
        str(one.unresolved_streams),
    )


def _state(one: SourceStatus) -> str:
    if not one.enabled:
        return "disabled"
    if one.last_error:
        return "failed"
    return "look" if one.attention else "ok"


def _styled_table(header: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    def paint(row: int, _column: int, cell: str) -> str:
        if row < 0:
            return style(cell, bold=True)
        word = cell.strip()
        if word in COLORS:
            return style(cell, fg=COLORS[word])
        return style(cell, dim=True) if word in {"-", "0", "disabled", "busy"} else cell

    return table(header, rows, paint)


def _moment(moment: datetime | None) -> str:
    return format_rfc3339(moment.replace(microsecond=0)) if moment else "-"


def _age(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "-"
    return f"{human_seconds(max(0.0, (now - moment).total_seconds()))} ago"
