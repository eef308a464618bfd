"""What a run needs to know of the schema's version, without loading SQLAlchemy."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg.errors import (
    InvalidSchemaName,
    UndefinedColumn,
    UndefinedFunction,
    UndefinedTable,
)
from psycopg.rows import scalar_row

from billing_cli.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection, Cursor

SCHEMA = "billing"

REVISIONS = (
    "0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", "0012",
    "0013", "0014", "0015",
)  # fmt: skip
"""Every revision that this version knows, oldest first."""

HEAD_REVISION = REVISIONS[-1]

APPEND_ONLY_TABLES = ("usage_records", "charges")
"""Tables in which the database refuses UPDATE, DELETE and TRUNCATE; partitioned by month."""

# Their partitions are made by the month: what is there, and what the next run may need.
MAKE_PARTITIONS_NOW = "SELECT billing.make_partitions()"

MIGRATE_HINT = "run `billing migrate`"
# Only the first migration creates what is missing of the shared tables.
RESTORE_HINT = "the tables in public belong to accounts.svc.plus: restore what is missing"

# Any number will do that nothing else in the database locks: these are the letters of "billing".
# The lock belongs to the transaction, not the session, which a pooler may hand to someone else.
WAIT_FOR_OTHER_MIGRATIONS = "SELECT pg_advisory_xact_lock(27700462113877607)"

# Asked first, because naming a table that is not there would end the open transaction.
VERSION_TABLE_IS_THERE = "SELECT to_regclass('billing.alembic_version') IS NOT NULL"

CURRENT_REVISION = "SELECT version_num FROM billing.alembic_version"


@contextmanager
def pipeline_at_head(connection: Connection[Any]) -> Iterator[None]:
    """Execute the statements of the block in one round trip, provided that the schema is at head.

    Their results can be read after it. Raises SchemaError where another revision is stored.
    """
    revision = None
    try:
        with connection.pipeline():
            revision = connection.execute(CURRENT_REVISION)
            yield
    except (UndefinedTable, UndefinedColumn, UndefinedFunction, InvalidSchemaName):
        found = _revision_in(revision)
        if found == HEAD_REVISION:
            raise
        raise wrong_revision(found) from None
    found = _revision_in(revision)
    if found != HEAD_REVISION:
        raise wrong_revision(found)


def _revision_in(cursor: Cursor[Any] | None) -> str | None:
    """Return what CURRENT_REVISION found, None where it failed."""
    if cursor is None or cursor.rowcount != 1:
        return None
    row = cursor.fetchone()
    return row[0] if row else None


def require_head(connection: Connection[Any]) -> None:
    """Raise SchemaError unless the database is at this version's revision.

    Where it was never migrated, that also ends the open transaction.
    """
    with pipeline_at_head(connection):
        pass


def current_revision(connection: Connection[Any]) -> str | None:
    """Return the revision that the database is at, None where it was never migrated."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        if not cursor.execute(VERSION_TABLE_IS_THERE).fetchone():
            return None
        revision: str | None = cursor.execute(CURRENT_REVISION).fetchone()
        return revision


def wrong_revision(revision: str | None) -> SchemaError:
    """Return the error for a database that is not at head, with what to do about it."""
    if revision is None:
        return SchemaError(f"the database has no {SCHEMA} tables yet; {MIGRATE_HINT}")
    if revision in REVISIONS:
        return SchemaError(
            f"schema {SCHEMA} is at revision {revision}, this version needs {HEAD_REVISION}; "
            f"{MIGRATE_HINT}"
        )
    return SchemaError(
        f"schema {SCHEMA} is at revision {revision}, which this version does not know; "
        "install the version of billing that migrated it"
    )
