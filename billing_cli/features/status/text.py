"""The state of everything as a list for people and programs, what is serious first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Line, Table
from billing_cli.cli.units import human_bytes, human_seconds, plural, sparkline, with_currency

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.core.source_status import SourceStatus
    from billing_cli.features.status.result import StatusReport

SOURCE_COLUMNS = (
    Column("source"),
    Column("state", "state"),
    Column("node", is_extra=True),
    Column("contract", is_extra=True),
    Column("watermark", "moment"),
    Column("lag", "seconds"),
    Column("success", is_extra=True),
    Column("attempt", is_extra=True),
    Column("gaps", "prose"),
    Column("held", "count"),
    Column("unresolved", "count", is_extra=True),
)
HOUR_COLUMNS = (Column("bytes_1h"), Column("lag_1h"))
RUN_COLUMNS = (
    Column("run", "moment"),
    Column("job"),
    Column("status", "state"),
    Column("took", is_extra=True),
    Column("minutes", "count"),
    Column("error", "prose"),
)


def status_parts(report: StatusReport, *, has_sparklines: bool = False) -> list[Part]:
    """Return what needs attention with advice, the sources, what is billed today, the last runs.

    With sparklines, the sources show bytes and lag of the last hour.
    """
    columns = SOURCE_COLUMNS + (HOUR_COLUMNS if has_sparklines else ())
    rows = [
        (*_source_row(report, source), *(_hour(report, source) if has_sparklines else ()))
        for source in report.sources
    ]
    none = "no source is configured: add [[sources]] to the configuration; `billing check` tests it"
    parts: list[Part] = [*_findings(report), "", Table(columns, rows, empty=none)]
    today = report.today
    billed, included = human_bytes(today.billed_bytes), human_bytes(today.included_bytes)
    amount = with_currency(today.amount, report.currency)
    day = f"today ({today.since:%Y-%m-%d} UTC)"
    parts += ["", f"{day}: {billed} billed ({included} included), amount {amount}"]
    if report.runs:
        runs = [
            (
                run.started_at,
                run.job,
                run.status,
                f"{run.duration_seconds:.1f} s",
                run.written_minutes,
                run.error,
            )
            for run in report.runs
        ]
        parts += ["", Table(RUN_COLUMNS, runs, is_list=False)]
    return parts


def _findings(report: StatusReport) -> Iterator[Part]:
    failed = sum(finding.severity == "failed" for finding in report.findings)
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    counts = f": {failed} failed, {plural(warnings, 'warning')}" if failed or warnings else ""
    yield Line(f"status: {report.severity}{counts}", report.severity)
    for finding in report.findings:
        about = f"{finding.source_id}: " if finding.source_id else ""
        yield Line(f"{finding.severity}: {about}{finding.text}", finding.severity)
        yield f"  -> {finding.advice}"


def _source_row(report: StatusReport, source: SourceStatus) -> tuple[Cell, ...]:
    return (
        source.source_id,
        report.severity_of(source),
        f"{source.env}:{source.node_id}" if source.env else source.node_id,
        source.contract,
        source.watermark,
        source.lag_seconds,
        _age(source.last_succeeded_at, report.checked_at),
        _age(source.last_attempted_at, report.checked_at),
        ", ".join(f"{count} {kind}" for kind, count in sorted(source.gaps.items())),
        source.held_deltas,
        source.unresolved_streams,
    )


def _hour(report: StatusReport, source: SourceStatus) -> tuple[Cell, Cell]:
    last_hour = report.last_hour.get(source.source_id)
    if last_hour is None:
        return None, None
    return sparkline(last_hour.charged_bytes), sparkline(last_hour.lag_seconds)


def _age(moment: datetime | None, now: datetime) -> str | None:
    if moment is None:
        return None
    return f"{human_seconds(max(0.0, (now - moment).total_seconds()))} ago"
