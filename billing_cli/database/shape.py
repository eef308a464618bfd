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

# What keeps a table of others from taking the rows that jobs write, though its columns are right.
# A trigger that comes before an insert may fill whatever has no default.
OBSTACLES = """
WITH written AS (
  SELECT table_name, to_regclass(table_name) AS relation, column_name,
         bool_or(privilege = 'INSERT') AS is_inserted
    FROM unnest(%(tables)s::text[], %(columns)s::text[], %(privileges)s::text[])
      AS written (table_name, column_name, privilege)
   GROUP BY table_name, column_name
), inserted AS (
  SELECT table_name, relation, array_agg(column_name) AS column_names
    FROM written WHERE is_inserted GROUP BY table_name, relation
)
SELECT table_name || '.' || attname || ' is '
       || CASE attgenerated WHEN '' THEN 'an identity column that takes no values'
                            ELSE 'a generated column' END
       || ', but jobs write it: ALTER TABLE ' || table_name || ' ALTER ' || quote_ident(attname)
       || CASE attgenerated WHEN '' THEN ' DROP IDENTITY' ELSE ' DROP EXPRESSION' END
  FROM written
  JOIN pg_attribute ON attrelid = relation AND attname = column_name AND NOT attisdropped
 WHERE attgenerated <> '' OR attidentity = 'a'
 UNION ALL
SELECT table_name || '.' || attname || ' is NOT NULL without a default, but jobs do not write it: '
       || 'ALTER TABLE ' || table_name || ' ALTER ' || quote_ident(attname)
       || ' SET DEFAULT ..., or DROP NOT NULL'
  FROM inserted
  JOIN pg_attribute ON attrelid = relation AND attnum > 0 AND NOT attisdropped
  JOIN pg_type ON pg_type.oid = atttypid
 WHERE attnotnull AND NOT atthasdef AND attidentity = '' AND typdefault IS NULL
   AND attname <> ALL (column_names)
   AND NOT EXISTS (SELECT FROM pg_trigger
                    WHERE tgrelid = relation AND NOT tgisinternal AND tgenabled <> 'D'
                      AND tgtype & 7 = 7)
 UNION ALL
SELECT table_name || ' has a primary key that is DEFERRABLE, which ON CONFLICT can''t use: '
       || 'ALTER TABLE ' || table_name || ' DROP CONSTRAINT ' || quote_ident(conname)
       || ', ADD ' || replace(replace(pg_get_constraintdef(pg_constraint.oid),
                                      ' INITIALLY DEFERRED', ''), ' DEFERRABLE', '')
  FROM inserted
  JOIN pg_constraint ON conrelid = relation AND contype = 'p' AND condeferrable
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


def read_obstacles(
    connection: Connection[Any], written: Iterable[tuple[str, str, str]]
) -> tuple[str, ...]:
    """Return what keeps tables from taking rows, and what to run: one line each.

    `written` are the table, the column and the privilege, of all columns that jobs write.
    """
    tables, columns, privileges = zip(*written, strict=True)
    wanted = {"tables": [*tables], "columns": [*columns], "privileges": [*privileges]}
    with connection.cursor(row_factory=tuple_row) as cursor:
        return tuple(text for (text,) in cursor.execute(OBSTACLES, wanted))


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
