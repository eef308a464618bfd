"""The months of the evidence: made ahead, made by whoever runs jobs, and never missed by a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import tuple_row

from billing_cli.database.partitions import (
    PartitionState,
    make_missing_partitions,
    read_partition_state,
)
from billing_cli.errors import SchemaError
from billing_cli.features.migrate.job import migrate
from tests.integration.migration.test_schema import store_evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Databases

# Each partition of a table with its bounds, as months from this one on; the rest has none.
READ_MONTHS_AHEAD = """
SELECT extract(year FROM age(first, this_month)) * 12 + extract(month FROM age(first, this_month))
  FROM (SELECT substring(pg_get_expr(relpartbound, oid) FROM 'FROM \\(''([^'']*)''')::timestamptz
                 AT TIME ZONE 'UTC' AS first,
               date_trunc('month', now() AT TIME ZONE 'UTC') AS this_month
          FROM pg_class
          JOIN pg_inherits ON inhrelid = oid
         WHERE inhparent = %s::regclass) AS bound
 ORDER BY 1
"""

LAST_AHEAD = """
SELECT 'billing.' || %s || to_char(
         date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', '_YYYY_MM')
"""
TABLES = ("billing.usage_records", "billing.charges")


@pytest.fixture
def jobs(job_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Return a connection of the role that runs jobs; all partitions are there."""
    with psycopg.connect(job_url, autocommit=True) as opened:
        # A month may have begun since the session's first database was migrated.
        make_missing_partitions(opened)
        yield opened


def months_ahead(connection: psycopg.Connection[Any], table: str) -> list[int | None]:
    """Return the months that have a partition, counted from this one; None stands for the rest."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(READ_MONTHS_AHEAD, (table,)).fetchall()
    return [None if months is None else int(months) for (months,) in rows]


def drop_last_ahead(connection: psycopg.Connection[Any]) -> None:
    """Take away the partitions of the month after the next."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        for table in ("usage_records", "charges"):
            row = cursor.execute(LAST_AHEAD, (table,)).fetchone()
            assert row is not None
            cursor.execute(f"DROP TABLE {row[0]}".encode())


def test_a_migration_makes_the_months_around_now(
    databases: Databases, empty_database_url: str
) -> None:
    """The last one, this one, two ahead, and the rest."""
    migrate(empty_database_url, grant_to=databases.job_role)
    with psycopg.connect(databases.job_url(empty_database_url), autocommit=True) as jobs:
        for table in TABLES:
            assert months_ahead(jobs, table) == [-1, 0, 1, 2, None]
        assert read_partition_state(jobs) == PartitionState((), False)


def test_the_role_of_the_jobs_makes_what_is_missing(
    connection: psycopg.Connection[dict[str, Any]], jobs: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """It owns nothing, and the partitions belong to who migrated, guards included."""
    before = [months_ahead(connection, table) for table in TABLES]
    drop_last_ahead(connection)
    make_missing_partitions(jobs)
    assert [months_ahead(connection, table) for table in TABLES] == before
    assert jobs.execute("SELECT billing.make_partitions()").fetchone() == (0,)
    migrate(connection.info.dsn, check=True)


def test_whoever_reads_the_rest_is_not_waited_for(
    connection: psycopg.Connection[dict[str, Any]],
    jobs: psycopg.Connection[tuple[Any, ...]],
) -> None:
    """A long audit lets no run fail; the next one makes what this one could not."""
    drop_last_ahead(connection)
    with connection.transaction():
        connection.execute("SELECT FROM billing.charges_default")
        assert jobs.execute("SELECT billing.make_partitions()").fetchone() == (0,)
    assert jobs.execute("SELECT billing.make_partitions()").fetchone() == (1,)


def test_a_month_without_a_partition_goes_to_the_rest(
    connection: psycopg.Connection[dict[str, Any]], jobs: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """It is stored all the same, and stands in the way of nothing but its own partition."""
    store_evidence(connection)
    for table in TABLES:
        assert connection.execute(f"SELECT FROM {table}_default".encode()).rowcount == 1
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("SELECT billing.make_partition('2026-04-01T00:00:00Z')")
    drop_last_ahead(connection)
    assert jobs.execute("SELECT billing.make_partitions()").fetchone() == (1,)
    assert read_partition_state(jobs) == PartitionState((), True)


def test_months_that_are_missing_are_named(
    connection: psycopg.Connection[dict[str, Any]], jobs: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """This one and the next; those after are made in time."""
    drop_last_ahead(connection)
    assert read_partition_state(jobs).missing_months == ()
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'),"
            " to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')"
        ).fetchone()
    assert row is not None
    connection.execute(f"DROP TABLE billing.charges_{row[0]}".encode())
    assert read_partition_state(jobs).missing_months == (row[1],)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DROP FUNCTION billing.make_partitions", "is missing"),
        ("ALTER FUNCTION billing.make_partitions SECURITY INVOKER", "is not SECURITY DEFINER"),
        (
            "CREATE ROLE {0}; ALTER FUNCTION billing.make_partitions OWNER TO {0}",
            r"owner \w+ of billing.make_partitions\(\) does not own billing.usage_records",
        ),
    ],
)
def test_check_finds_that_partitions_can_not_be_made(
    connection: psycopg.Connection[dict[str, Any]], database_url: str, damage: str, problem: str
) -> None:
    """The evidence of all months to come would end in one heap."""
    name = f"{connection.info.dbname}_weak"
    connection.execute(damage.format(name).encode())
    try:
        with pytest.raises(SchemaError, match=problem):
            migrate(database_url, check=True)
    finally:
        connection.execute("DROP FUNCTION IF EXISTS billing.make_partitions")
        connection.execute(f"DROP ROLE IF EXISTS {name}".encode())
