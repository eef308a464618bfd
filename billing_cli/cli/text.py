"""Results as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from billing_cli.core.result import RunResult, SourceResult

    class Style(Protocol):
        """What colours a text, such as `click.style`."""

        def __call__(
            self, text: str, *, fg: str | None = None, bold: bool = False, dim: bool = False
        ) -> str:
            """Return the text with codes around it that a terminal understands."""


BYTES_IN_A_KIBIBYTE = 1024
SECONDS_IN_A_MINUTE = 60
MINUTES_IN_TWO_HOURS = 120
MAX_ROWS_SHOWN = 50


def run_text(result: RunResult) -> str:
    """Return a summary line, a table of the sources, and what needs a look."""
    total = result.included_bytes + result.charged_bytes
    seconds = (result.finished_at - result.started_at).total_seconds()
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = (
        f"{result.job}: {result.status}{would} - {result.written_minutes} minutes written, "
        f"{human_bytes(total)} billed ({human_bytes(result.included_bytes)} included), "
        f"amount {result.amount:f}, {result.processed_samples} samples, {seconds:.1f} s"
    )
    rows = [_source_row(source) for source in result.sources]
    header = ("SOURCE", "STATUS", "NODE", "SNAPSHOTS", "WATERMARK", "LAG", "ATTENTION")
    lines = [head, "", table(header, rows)] if rows else [head]
    if result.differences:
        lines += ["", _differences_table(result)]
    if result.error:
        lines.append(f"error: {printable(result.error)}")
    for source in result.sources:
        if source.error:
            lines.append(f"{source.source_id}: error: {printable(source.error)}")
        lines.extend(f"{source.source_id}: {printable(note)}" for note in source.notes)
    return "\n".join(lines)


def plain(text: str, **_: object) -> str:
    """Return the text as it is: the style of files and pipes."""
    return text


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    paint: Callable[[int, int, str], str] | None = None,
) -> str:
    """Return left-aligned columns, two spaces apart; the cells are made printable.

    `paint` is given each cell's row, with the header as -1, its column, and its text as wide as
    the column, so that colours do not count as text.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    # A line has no white space at its end.
    widths[-1] = 0
    return "\n".join(
        "  ".join(
            paint(number, column, cell.ljust(width)) if paint else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for number, row in enumerate((header, *rows), start=-1)
    )


def human_bytes(count: int) -> str:
    """Return a byte count with a binary unit, such as `1.5 GiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < BYTES_IN_A_KIBIBYTE:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= BYTES_IN_A_KIBIBYTE
    return f"{amount:.1f} PiB"


def human_seconds(seconds: float | None) -> str:
    """Return a duration such as `45 s`, `12 min` or `3.5 h`; `-` where there is none."""
    if seconds is None:
        return "-"
    if seconds < 2 * SECONDS_IN_A_MINUTE:
        return f"{seconds:.0f} s"
    minutes = seconds / SECONDS_IN_A_MINUTE
    if minutes < MINUTES_IN_TWO_HOURS:
        return f"{minutes:.0f} min"
    return f"{minutes / SECONDS_IN_A_MINUTE:.1f} h"


def _differences_table(result: RunResult) -> str:
    rows = [
        (
            format_rfc3339(one.minute),
            one.source_id,
            one.account_uuid,
            one.line_code or "-",
            f"{one.uplink_bytes:+d}",
            f"{one.downlink_bytes:+d}",
            f"{one.amount_delta:+f}",
        )
        for one in result.differences[:MAX_ROWS_SHOWN]
    ]
    header = ("MINUTE", "SOURCE", "ACCOUNT", "LINE", "UPLINK", "DOWNLINK", "BALANCE")
    hidden = len(result.differences) - len(rows)
    return table(header, rows) + (f"\n... and {hidden} more" if hidden > 0 else "")


def _source_row(source: SourceResult) -> tuple[str, ...]:
    counts = {
        "resets": source.resets,
        "gaps": source.gaps,
        "rejected": source.rejected_samples,
        "unresolved": source.unresolved_streams,
        "held": source.held_deltas,
        "successions": source.successions,
        "corrections": source.corrections,
        "gaps resolved": source.resolved_gaps,
    }
    attention = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    until = source.last_completed_until
    return (
        source.source_id,
        source.status,
        f"{source.env}:{source.node_id}" if source.env else source.node_id or "-",
        str(source.snapshots),
        format_rfc3339(until) if until else "-",
        human_seconds(source.lag_seconds),
        attention or "-",
    )
