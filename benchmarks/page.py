"""The tables of docs/evidence/performance.md, written by the run that measured them."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psycopg

from benchmarks.world import SETTINGS
from billing_cli import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.results import Figure, Results, Run, Storage
    from billing_cli.simulator.postgres import EmbeddedPostgres

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
# The page beside it that holds the capacity model.
SCALING = "scaling.md"


def write_pages(page: Path, results: Results, circumstances: str) -> None:
    """Replace what stands between the marks of the page, and of the one on scaling beside it.

    Raises ValueError where the marks are missing.
    """
    _write(page, [circumstances, *_tables(results)])
    if results.capacity:
        table = _table(("", "measured"), results.capacity)
        _write(page.with_name(SCALING), [circumstances, table])


def _write(page: Path, paragraphs: Sequence[str]) -> None:
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    text = "\n\n".join(paragraphs)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def circumstances_of(server: EmbeddedPostgres, minutes: float, command: str) -> str:
    """Say when, where and with what everything was measured."""
    with psycopg.connect(server.url()) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    assert row is not None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = ", ".join(
        f"`{name}` {value}" for name, value in SETTINGS.items() if not name.startswith("log_")
    )
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} with billing {__version__}, Python "
        f"{platform.python_version()}, PostgreSQL {row[0]}, {platform.system()} "
        f"{platform.machine()}, {cores} cores, in {minutes:.0f} minutes, by "
        f"`{command}`.\n"
        f"Server: {settings}; everything else as PostgreSQL has it, so `fsync`, "
        "`synchronous_commit` and `full_page_writes` are on."
    )


def _tables(results: Results) -> list[str]:
    return [
        _table(("what", "measured", "", "at most", "met"), map(_figure_row, results.figures)),
        _table(
            ("what", "samples", "memory, MB", "statements", "WAL, MB", "rows", "seconds"),
            map(_run_row, results.runs),
        ),
        *_storage_tables(results.storage),
    ]


def _storage_tables(storage: Sequence[Storage]) -> list[str]:
    head = ("table", "rows", "bytes a row", "in indexes", "together")
    return [_table(head, map(_storage_row, storage))] if storage else []


def _figure_row(figure: Figure) -> tuple[str, ...]:
    value = f"{figure.value:.2f}" if figure.unit.startswith("x ") else f"{figure.value:.0f}"
    if figure.limit is None:
        return figure.what, value, figure.unit, "", ""
    is_met = "yes" if figure.is_met() else "**no**"
    return figure.what, value, figure.unit, f"{figure.limit:.3g}", is_met


def _run_row(run: Run) -> tuple[str, ...]:
    cost = run.cost
    return (
        run.what,
        _number(run.samples),
        _number(cost.peak_megabytes),
        _number(cost.statements),
        "" if cost.wal_bytes is None else f"{cost.wal_bytes / 1e6:.1f}",
        _number(cost.rows),
        f"{cost.seconds:.2f}",
    )


def _storage_row(storage: Storage) -> tuple[str, ...]:
    together = storage.table_bytes + storage.index_bytes
    figures = (storage.rows, storage.table_bytes, storage.index_bytes, together)
    return f"`{storage.table}`", *map(_number, figures)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
