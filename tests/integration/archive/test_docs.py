"""The queries of docs/archive.md, run by DuckDB on an archive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from tests.integration.archive.test_archive import _archive

if TYPE_CHECKING:
    import pytest

    from tests.support.sealing import Sealing

PAGE = Path(__file__).parents[3] / "docs" / "archive.md"
QUERIES = re.compile(r"```sql duckdb\n(.*?)```", re.DOTALL)


def test_the_queries_of_the_page_run(
    sealing: Sealing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two accounts moved 180 bytes each in April, by one stream each, without corrections."""
    _archive(sealing, tmp_path / "to")
    monkeypatch.chdir(tmp_path / "to")
    by_month, streams, corrections = (
        duckdb.sql(query).fetchall() for query in QUERIES.findall(PAGE.read_text())
    )

    assert [(row[0], int(row[2])) for row in by_month] == [("2026-04", 180)] * 2
    assert [tuple(map(int, row[2:])) for row in streams] == [(60, 120)] * 2
    assert corrections == []
