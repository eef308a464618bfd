"""docs/database.md and docs/errors.md say what the program does: they are checked against it."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from psycopg import errors as pg

from billing_cli.database.connecting import Database
from billing_cli.database.failures import is_transient, translate

DOCS = Path(__file__).parents[3] / "docs"
SQLSTATE = re.compile(r"`([0-9A-Z]{5})`")
IN_SECONDS = re.compile(r"\b(\d+) s\b")


def table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a page's heading, without its own head."""
    _, _, below = (DOCS / page).read_text(encoding="utf-8").partition(f"## {heading}\n")
    section, _, _ = below.partition("\n## ")
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


ROWS = [
    (sqlstate, exit_code, again)
    for what, exit_code, again, _ in table("errors.md", "What happens when PostgreSQL fails")
    for sqlstate in SQLSTATE.findall(what)
]


@pytest.mark.parametrize(("sqlstate", "exit_code", "again"), ROWS, ids=[row[0] for row in ROWS])
def test_each_code_of_the_table_ends_a_run_like_that(
    sqlstate: str, exit_code: str, again: str
) -> None:
    """The exit code, and whether the transaction is tried again."""
    error = pg.lookup(sqlstate)("simulated")
    assert translate(error).exit_code == int(re.split(r"\D", exit_code)[0])
    if again in {"yes", "no"}:
        assert is_transient(error) == (again == "yes")


def test_the_table_is_not_empty() -> None:
    """A page that was moved or rewritten does not pass unseen."""
    assert len(ROWS) > 15
    assert all(issubclass(pg.lookup(sqlstate), psycopg.Error) for sqlstate, _, _ in ROWS)


def test_the_limits_are_the_default_ones() -> None:
    """How long it waits for a connection, a statement and a lock, and what the server gets more."""
    database = Database("")
    found = [
        int(IN_SECONDS.findall(cells[1])[0])
        for cells in table("database.md", "How long it waits")[:3]
    ]
    assert found == [
        database.connect_timeout_seconds,
        database.statement_timeout_seconds,
        database.lock_timeout_seconds,
    ]
    (grace,) = [
        cells
        for cells in table("database.md", "How long it waits")
        if cells[0] == "any answer at all"
    ]
    assert grace[1].startswith(f"{database.grace_seconds:.0f} s ")
