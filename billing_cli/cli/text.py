"""The result of a job about sources or accounts, for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Line, Table
from billing_cli.cli.units import amounts_in, human_bytes, plural, with_currency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.core.result import AccountAmount, RunResult, SourceResult

MAX_ROWS_SHOWN = 50

SOURCE_COLUMNS = (
    Column("source"),
    Column("status", "state"),
    Column("node", is_extra=True),
    Column("snapshots", "count", is_extra=True),
    Column("watermark", "moment"),
    Column("lag", "seconds"),
    Column("attention", "prose"),
)
DIFFERENCE_COLUMNS = (
    Column("minute", "moment"),
    Column("source", is_extra=True),
    Column("account"),
    Column("inbound_tag", is_extra=True),
    Column("uplink", "bytes", is_extra=True),
    Column("downlink", "bytes", is_extra=True),
    Column("balance", "change"),
)


def run_parts(result: RunResult) -> list[Part]:
    """Return a summary line, a table of the sources, and what needs attention."""
    total = result.included_bytes + result.charged_bytes
    seconds = (result.finished_at - result.started_at).total_seconds()
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = (
        f"{result.job}: {result.status}{would} - {plural(result.written_minutes, 'minute')} "
        f"written, {human_bytes(total)} billed ({human_bytes(result.included_bytes)} included), "
        f"amount {with_currency(result.amount, result.currency)}, "
        f"{plural(result.processed_samples, 'sample')}, {seconds:.1f} s"
    )
    parts: list[Part] = [head]
    if result.sources:
        parts += ["", Table(SOURCE_COLUMNS, [_source_row(source) for source in result.sources])]
    if result.differences:
        parts += ["", *_differences(result)]
    if result.error:
        parts.append(Line(f"error: {result.error}", "error"))
    for source in result.sources:
        if source.error:
            parts.append(Line(f"{source.source_id}: error: {source.error}", "error"))
        parts.extend(f"{source.source_id}: {note}" for note in source.notes)
    return parts


def _differences(result: RunResult) -> list[Part]:
    rows = [
        (
            difference.minute,
            difference.source_id,
            difference.account_uuid,
            difference.line_code,
            difference.uplink_bytes,
            difference.downlink_bytes,
            difference.amount_delta,
        )
        for difference in result.differences[:MAX_ROWS_SHOWN]
    ]
    parts: list[Part] = [Table(DIFFERENCE_COLUMNS, rows)]
    if len(result.differences) > len(rows):
        parts.append(f"... and {len(result.differences) - len(rows)} more")
    return parts + amounts_in(result.currency)


def _source_row(source: SourceResult) -> tuple[Cell, ...]:
    counts = (
        (source.resets, "reset"),
        (source.gaps, "gap"),
        (source.rejected_samples, "rejected sample"),
        (source.unresolved_streams, "unresolved stream"),
        (source.held_deltas, "held delta"),
        (source.successions, "succession"),
        (source.corrections, "correction"),
        (source.resolved_gaps, "resolved gap"),
    )
    return (
        source.source_id,
        source.status,
        f"{source.env}:{source.node_id}" if source.env else source.node_id,
        source.snapshots,
        source.last_completed_until,
        source.lag_seconds,
        ", ".join(plural(count, noun) for count, noun in counts if count),
    )


def account_parts(
    accounts: Sequence[AccountAmount], columns: Sequence[Column], currency: str
) -> list[Part]:
    """Return a table of the accounts with the largest amounts, and how many others there are."""
    by_size = sorted(accounts, key=lambda account: (-abs(account.amount), account.account_uuid))
    shown = by_size[:MAX_ROWS_SHOWN]
    if not shown:
        return []
    rows = [(account.account_uuid, account.corrections, account.amount) for account in shown]
    parts: list[Part] = ["", Table(columns, rows), *amounts_in(currency)]
    if len(by_size) > len(shown):
        hidden = plural(len(by_size) - len(shown), "other account")
        parts.append(f"... and {hidden}; --json lists them all")
    return parts
