"""Statements that are sent before the one ahead of them has been answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest

from billing_cli.database import arrays
from billing_cli.database.connecting import Database
from billing_cli.database.connection import Session
from billing_cli.database.patience import PatientConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

# Far more than the buffers between two processes hold.
MANY = range(500_000)

INSERT = "INSERT INTO numbers SELECT * FROM unnest(%s::bigint[])"


@pytest.fixture
def patient(database_url: str) -> Iterator[PatientConnection[Any]]:
    """Return a connection with a table of numbers, in a transaction."""
    with PatientConnection[Any].connect(database_url, prepare_threshold=None) as connection:
        connection.execute("CREATE TEMPORARY TABLE numbers (number bigint PRIMARY KEY)")
        yield connection


def test_the_server_has_all_of_a_statement_before_it_answers(
    patient: PatientConnection[Any],
) -> None:
    """It works on a large statement although nobody asks for its answer yet."""
    with patient.pipeline():
        cursor = patient.execute(INSERT, [arrays.plain(MANY)])
        assert patient.pgconn.flush() == 0
        assert cursor.rowcount == -1
    assert cursor.rowcount == len(MANY)


def test_large_statements_follow_each_other(patient: PatientConnection[Any]) -> None:
    """Neither side waits for the other for ever, whatever both have to say."""
    with patient.pipeline():
        patient.execute(INSERT, [arrays.plain(MANY)])
        answer = patient.execute("SELECT number, repeat('x', 20) FROM numbers")
        again = patient.execute(f"{INSERT} ON CONFLICT DO NOTHING", [arrays.plain(MANY)])
    assert (answer.rowcount, again.rowcount) == (len(MANY), 0)


def test_patience_begins_anew_with_each_answer(patient: PatientConnection[Any]) -> None:
    """Many statements may take longer together than one is given."""
    patient.patience_seconds = 1.5
    assert len(in_a_pipeline(patient, *["SELECT pg_sleep(0.4)"] * 5)) == 5


def test_a_statement_without_an_end_is_cancelled(patient: PatientConnection[Any]) -> None:
    """One of a pipeline like any other."""
    patient.patience_seconds = 0.3
    with pytest.raises(psycopg.errors.QueryCanceled):
        in_a_pipeline(patient, "SELECT 1", "SELECT pg_sleep(60)")


def test_the_first_error_is_the_one_that_is_raised(patient: PatientConnection[Any]) -> None:
    """What follows it is not done, and not what is complained of."""
    with pytest.raises(psycopg.errors.UndefinedTable):
        in_a_pipeline(patient, "SELECT 1", "SELECT FROM nowhere", "SELECT 1 / 0")


def test_what_else_fails_in_a_failed_pipeline_is_not_warned_of(
    patient: PatientConnection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The error that ended it is raised; one line about one failure is enough."""

    def fail() -> None:
        with patient.pipeline():
            patient.execute("SELECT FROM nowhere")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert caplog.messages == []


@pytest.mark.parametrize(("own", "granted"), [("4MB", "64MB"), ("128MB", "128MB")])
def test_a_transaction_has_memory_for_its_columns(
    database_url: str, own: str, granted: str
) -> None:
    """At least what a large run needs; what the server gives beyond that is kept."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET work_mem = '{own}'".encode())
    with Session(Database(database_url)) as session:
        row = session.transaction(lambda one: one.execute("SHOW work_mem").fetchone())
        assert row == (granted,)


def in_a_pipeline(connection: PatientConnection[Any], *statements: LiteralString) -> list[int]:
    """Send all the statements, then wait; return how many rows each gave."""
    with connection.pipeline():
        cursors = [connection.execute(statement) for statement in statements]
    return [cursor.rowcount for cursor in cursors]
