"""Brings the database's schema to what this version needs, or tells what is wrong with it.

SQLAlchemy and Alembic are loaded inside the functions: whoever imports all jobs must not pay for
them.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import billing_cli
from billing_cli.errors import SchemaError
from billing_cli.store.connection import Database, Session
from billing_cli.store.schema import (
    APPEND_ONLY_TABLES,
    HEAD_REVISION,
    REVISIONS,
    SCHEMA,
    WAIT_FOR_OTHER_MIGRATIONS,
    current_revision,
    require_head,
    wrong_revision,
)
from billing_cli.store.shape import TableShape, differences, read_shapes, tables_without_guard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg
    from alembic.config import Config
    from sqlalchemy import Connection, MetaData

MAX_DIFFERENCES_SHOWN = 5

# A change to a large table takes its time, and so does the migration that is waited for.
STATEMENT_TIMEOUT_SECONDS = 3600.0
LOCK_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did. `script` is the SQL that was asked for instead of a migration.

    `from_revision` is None for a database that was never migrated. `created_tables` are the
    shared tables that were missing, such as `public.users`.
    """

    from_revision: str | None
    to_revision: str
    created_tables: tuple[str, ...] = ()
    script: str | None = None


def migrate(dsn: str, *, check: bool = False, sql: bool = False) -> Migration:
    """Migrate to this version's revision and verify the tables, all of it or nothing.

    `check` only verifies. `sql` returns the script for an empty database, and opens no connection.
    Raises SchemaError where the tables or the revision are not what this version needs,
    DatabaseUnavailableError where the database can't be reached.
    """
    if sql:
        return Migration(None, HEAD_REVISION, script=_script())
    with open_session(dsn) as session:
        return session.read(_verify) if check else session.transaction(_upgrade)


def open_session(dsn: str) -> Session:
    """Return a session with the patience that schema changes need."""
    return Session(
        Database(
            dsn,
            application_name="billing migrate",
            statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
            lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
        )
    )


@contextmanager
def sqlalchemy_connection(connection: psycopg.Connection) -> Iterator[Connection]:
    """Lend a connection to SQLAlchemy; its transaction stays the session's to end.

    Database errors leave the block as the driver's own.
    """
    from sqlalchemy import create_engine  # noqa: PLC0415 - loaded only to migrate
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415
    from sqlalchemy.pool import StaticPool  # noqa: PLC0415

    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connection,
        poolclass=StaticPool,
        use_native_hstore=False,
    )
    engine.dialect.do_commit = _leave_open  # type: ignore[method-assign, assignment]
    engine.dialect.do_rollback = _leave_open  # type: ignore[method-assign, assignment]
    try:
        with engine.connect() as lent:
            yield lent
    except DBAPIError as error:
        raise error.orig or error from None


def alembic_config(output: io.StringIO | None = None) -> Config:
    """Return Alembic's configuration, with the migrations that this installation came with."""
    from alembic.config import Config  # noqa: PLC0415 - loaded only to migrate

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    return config


def _upgrade(connection: psycopg.Connection) -> Migration:
    # The revision is read behind the lock: whoever waited here finds the other's work done.
    connection.execute(WAIT_FOR_OTHER_MIGRATIONS)
    revision = current_revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise wrong_revision(revision)
    shared = _shared_shapes()
    found = read_shapes(connection, shared)
    # Before anything is created: a foreign key to a wrong table would fail with less to say.
    _require({name: shared[name] for name in found}, found)
    if revision is None:
        for name in read_shapes(connection, _own_shapes()):
            raise SchemaError(f"{name} exists, but was not made by a migration")
    if revision != HEAD_REVISION:
        _run_migrations(connection)
    _verify(connection)
    created = tuple(name for name in shared if name not in found)
    return Migration(revision, HEAD_REVISION, created_tables=created)


def _run_migrations(connection: psycopg.Connection) -> None:
    from alembic import command  # noqa: PLC0415 - loaded only to migrate

    config = alembic_config()
    with sqlalchemy_connection(connection) as lent:
        config.attributes["connection"] = lent
        command.upgrade(config, "head")


def _verify(connection: psycopg.Connection) -> Migration:
    """Raise SchemaError unless the revision, all tables and their guards are as needed."""
    require_head(connection)
    expected = _own_shapes() | _shared_shapes()
    _require(expected, read_shapes(connection, expected))
    guarded = [f"{SCHEMA}.{name}" for name in APPEND_ONLY_TABLES]
    for name in tables_without_guard(connection, guarded):
        raise SchemaError(f"{name} is not append-only: its trigger is missing or disabled")
    return Migration(HEAD_REVISION, HEAD_REVISION)


def _require(expected: Mapping[str, TableShape], found: Mapping[str, TableShape]) -> None:
    problems = [f"{name} is missing, or is no table" for name in expected if name not in found]
    for name in found:
        problems += differences(expected[name], found[name])
    if len(problems) > MAX_DIFFERENCES_SHOWN:
        more = len(problems) - MAX_DIFFERENCES_SHOWN
        problems = [*problems[:MAX_DIFFERENCES_SHOWN], f"and {more} more"]
    if problems:
        raise SchemaError("; ".join(problems))


def _own_shapes() -> dict[str, TableShape]:
    from billing_cli.store.metadata import metadata  # noqa: PLC0415 - loaded only to migrate

    return _shapes_of(metadata)


def _shared_shapes() -> dict[str, TableShape]:
    from billing_cli.store.shared_metadata import shared_metadata  # noqa: PLC0415

    return _shapes_of(shared_metadata)


def _shapes_of(metadata: MetaData) -> dict[str, TableShape]:
    """Return what the catalog would say of the declared tables, those referred to first.

    A column that is declared as unused only serves to create the table.
    """
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - loaded only to migrate

    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    shapes = {}
    for table in metadata.sorted_tables:
        used = [column for column in table.columns if not column.info.get("unused")]
        shapes[str(table)] = TableShape(
            name=str(table),
            columns={column.name: column.type.compile(dialect).lower() for column in used},
            nullable=frozenset(column.name for column in used if column.nullable),
            primary_key=frozenset(column.name for column in table.primary_key),
        )
    return shapes


def _leave_open(_connection: object) -> None:
    """Stand in for SQLAlchemy's COMMIT and ROLLBACK."""


def _script() -> str:
    from alembic import command  # noqa: PLC0415 - loaded only to migrate

    output = io.StringIO()
    command.upgrade(alembic_config(output), "head", sql=True)
    return output.getvalue()


def _migrations() -> Path:
    """Return the migrations' directory: inside an installed wheel, or at the top of a checkout."""
    package = Path(billing_cli.__file__).parent
    installed = package / "_alembic"
    return installed if installed.is_dir() else package.parent / "alembic"
