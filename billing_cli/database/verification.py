"""Verifies that a database's schema is what this version needs: for `migrate` and `check`.

SQLAlchemy is loaded inside the functions: whoever imports this module must not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database.grants import GRANTS, OPTIONAL_GRANTS, SUSPEND_GRANTS
from billing_cli.database.privileges import function_problem
from billing_cli.database.row_security import read_restricted
from billing_cli.database.schema import APPEND_ONLY_TABLES, RESTORE_HINT, SCHEMA, require_head
from billing_cli.database.shape import (
    TableShape,
    differences,
    read_no_tables,
    read_obstacles,
    read_shapes,
    tables_without_guard,
)
from billing_cli.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg
    from sqlalchemy import MetaData

MAX_DIFFERENCES_SHOWN = 5


def verify(connection: psycopg.Connection) -> None:
    """Raise SchemaError unless the revision, all tables and their guards are as needed."""
    require_head(connection)
    expected = own_shapes() | shared_shapes()
    require_tables(connection, expected)
    require_shapes(expected, read_shapes(connection, expected))
    obstacles = (
        *read_obstacles(connection, written_columns()),
        *read_restricted(connection, expected),
    )
    if obstacles:
        raise SchemaError(_first_of(obstacles))
    guarded = [f"{SCHEMA}.{name}" for name in APPEND_ONLY_TABLES]
    for name in tables_without_guard(connection, guarded):
        raise SchemaError(f"{name} is not append-only: its trigger is missing or not ENABLE ALWAYS")
    problem = function_problem(connection)
    if problem is not None:
        raise SchemaError(problem)


def require_tables(connection: psycopg.Connection, names: Iterable[str]) -> None:
    """Raise SchemaError where a view or the like stands in the place of a table."""
    found = read_no_tables(connection, names)
    if found:
        raise SchemaError(f"{'; '.join(found)}: it has to be a plain table")


def require_shapes(expected: Mapping[str, TableShape], found: Mapping[str, TableShape]) -> None:
    """Raise SchemaError that names the first differences between tables and their declaration."""
    missing = [name for name in expected if name not in found]
    problems = [f"{name} is missing, or is no table" for name in missing]
    for name in found:
        problems += differences(expected[name], found[name])
    if problems:
        is_lost = not all(name.startswith(f"{SCHEMA}.") for name in missing)
        raise SchemaError(_first_of(problems) + (f"; {RESTORE_HINT}" if is_lost else ""))


def _first_of(problems: Sequence[str]) -> str:
    shown = [*problems[:MAX_DIFFERENCES_SHOWN]]
    if len(problems) > MAX_DIFFERENCES_SHOWN:
        shown.append(f"and {len(problems) - MAX_DIFFERENCES_SHOWN} more")
    return "; ".join(shown)


def written_columns() -> tuple[tuple[str, str, str], ...]:
    """Return table, column and privilege of each column of a shared table that jobs write."""
    return tuple(
        (grant.table, column, grant.privilege)
        for grant in (*GRANTS, *OPTIONAL_GRANTS, *SUSPEND_GRANTS)
        if grant.privilege in {"INSERT", "UPDATE"} and not grant.table.startswith(f"{SCHEMA}.")
        for column in grant.columns
    )


def own_shapes() -> dict[str, TableShape]:
    """Return the declared tables of our own schema, by qualified name."""
    from billing_cli.database.metadata import metadata  # noqa: PLC0415 - loaded only to migrate

    return _shapes_of(metadata)


def shared_shapes() -> dict[str, TableShape]:
    """Return the declared tables that we share with other services, by qualified name."""
    from billing_cli.database.shared_metadata import shared_metadata  # noqa: PLC0415

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
