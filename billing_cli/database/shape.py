"""Compares tables as they are with tables as they should be, column by column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg import Connection


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as far as it matters here. Types are spelled as PostgreSQL's `format_type` does.

    `nullable` are the columns that must take NULL. `name` holds the schema.
    """

    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    nullable: frozenset[str] = frozenset()
    primary_key: frozenset[str] = frozenset()


# One row a column of the tables that exist. What is no table has no columns that count.
TABLE_COLUMNS = """
SELECT wanted.name AS table_name,
       attribute.attname AS column_name,
       format_type(attribute.atttypid, attribute.atttypmod) AS type_name,
       NOT attribute.attnotnull AS nullable,
       COALESCE(attribute.attnum = ANY (primary_key.conkey), false) AS in_primary_key
  FROM unnest(%(names)s::text[]) AS wanted (name)
  JOIN pg_class ON pg_class.oid = to_regclass(wanted.name) AND pg_class.relkind IN ('r', 'p')
  JOIN pg_attribute AS attribute
    ON attribute.attrelid = pg_class.oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
  LEFT JOIN pg_constraint AS primary_key
    ON primary_key.conrelid = pg_class.oid AND primary_key.contype = 'p'
 ORDER BY wanted.name, attribute.attnum
"""

# Which of the tables and of their partitions lack a trigger of the table's name that always fires.
TABLES_WITHOUT_TRIGGER = """
SELECT relation.oid::regclass::text
  FROM unnest(%(names)s::text[]) AS wanted (name)
 CROSS JOIN LATERAL pg_partition_tree(to_regclass(wanted.name)) AS member
  JOIN pg_class AS relation ON relation.oid = member.relid
 WHERE NOT EXISTS (
       SELECT FROM pg_trigger
        WHERE tgrelid = relation.oid
          AND tgname = split_part(wanted.name, '.', 2) || '_append_only'
          AND tgenabled = 'A')
 ORDER BY 1
"""


# What stands where a table should. Only of tables of ours may a partitioned one be.
NO_TABLES = """
SELECT wanted.name || ' is '
       || CASE relkind WHEN 'v' THEN 'a view' WHEN 'm' THEN 'a materialized view'
                       WHEN 'f' THEN 'a foreign table' WHEN 'p' THEN 'a partitioned table'
                       ELSE 'no table' END
  FROM unnest(%(names)s::text[]) AS wanted (name)
  JOIN pg_class ON pg_class.oid = to_regclass(wanted.name)
 WHERE relkind <> 'r' AND NOT (relkind = 'p' AND wanted.name <> 'public.users')
 ORDER BY 1
"""


def read_no_tables(connection: Connection[Any], names: Iterable[str]) -> tuple[str, ...]:
    """Return in words which of the names are taken by what is no plain table, such as a view.

    A view runs its owner's code as whoever reads it.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(NO_TABLES, {"names": sorted(names)})
        return tuple(text for (text,) in cursor)


def read_shapes(connection: Connection[Any], names: Iterable[str]) -> dict[str, TableShape]:
    """Return the shapes of those of the tables that exist, by name."""
    columns: dict[str, dict[str, str]] = {}
    nullable: dict[str, set[str]] = {}
    primary_key: dict[str, set[str]] = {}
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(TABLE_COLUMNS, {"names": sorted(names)})
        for name, column, type_name, takes_null, in_primary_key in cursor:
            columns.setdefault(name, {})[column] = type_name
            if takes_null:
                nullable.setdefault(name, set()).add(column)
            if in_primary_key:
                primary_key.setdefault(name, set()).add(column)
    return {
        name: TableShape(
            name,
            columns[name],
            frozenset(nullable.get(name, ())),
            frozenset(primary_key.get(name, ())),
        )
        for name in columns
    }


def tables_without_guard(connection: Connection[Any], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the append-only tables and partitions that would let a row be changed."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(TABLES_WITHOUT_TRIGGER, {"names": sorted(names)})
        return tuple(str(name) for (name,) in cursor)


def differences(expected: TableShape, found: TableShape) -> tuple[str, ...]:
    """Return what keeps a table from being used, one line each naming table and column.

    More columns than expected are no difference. Nor is a column that takes NULL where none is
    written: it refuses nothing.
    """
    problems = []
    for column, type_name in expected.columns.items():
        if column not in found.columns:
            problems.append(f"{expected.name}.{column} is missing, expected {type_name}")
        elif found.columns[column].replace(" ", "") != type_name.replace(" ", ""):
            problems.append(
                f"{expected.name}.{column} is {found.columns[column]}, expected {type_name}"
            )
        elif column in expected.nullable and column not in found.nullable:
            problems.append(f"{expected.name}.{column} is NOT NULL, but must take NULL")
    if found.primary_key != expected.primary_key:
        problems.append(
            f"{expected.name} has the primary key ({_list(found.primary_key)}), "
            f"expected ({_list(expected.primary_key)})"
        )
    return tuple(problems)


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
