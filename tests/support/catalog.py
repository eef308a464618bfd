"""What PostgreSQL knows of a schema, as plain values that can be compared.

Partitions are left out: which there are depends on the month.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

# Tables that are not partitions of another.
IS_TABLE = "relkind IN ('r', 'p') AND NOT relispartition"

COLUMNS = f"""
SELECT attrelid::regclass::text,
       row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname,
       format_type(atttypid, atttypmod), attnotnull,
       attidentity, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum)
  FROM pg_attribute
  JOIN pg_class ON pg_class.oid = attrelid AND {IS_TABLE}
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace = %(schema)s::regnamespace AND attnum > 0 AND NOT attisdropped
 ORDER BY 1, 2
"""

TABLES = f"""
SELECT oid::regclass::text, reloptions, pg_get_partkeydef(oid), obj_description(oid)
  FROM pg_class WHERE relnamespace = %(schema)s::regnamespace AND {IS_TABLE} ORDER BY 1
"""

CONSTRAINTS = f"""
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(pg_constraint.oid)
  FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid AND {IS_TABLE}
 WHERE connamespace = %(schema)s::regnamespace ORDER BY 1, 2
"""

INDEXES = f"""
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid)
  FROM pg_index JOIN pg_class ON pg_class.oid = indrelid AND {IS_TABLE}
 WHERE relnamespace = %(schema)s::regnamespace ORDER BY 1
"""

TRIGGERS = f"""
SELECT pg_get_triggerdef(pg_trigger.oid)
  FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid AND {IS_TABLE}
 WHERE relnamespace = %(schema)s::regnamespace AND NOT tgisinternal ORDER BY 1
"""

FUNCTIONS = """
SELECT pg_get_functiondef(oid) FROM pg_proc
 WHERE pronamespace = %(schema)s::regnamespace ORDER BY 1
"""

QUERIES = (TABLES, COLUMNS, CONSTRAINTS, INDEXES, TRIGGERS, FUNCTIONS)


def schema_of(database_url: str, schema: str) -> list[Any]:
    """Return all that is declared in a schema; equal for two schemas that are the same."""
    with psycopg.connect(database_url, row_factory=tuple_row) as connection:
        if connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone() == (None,):
            return []
        return [row for query in QUERIES for row in connection.execute(query, {"schema": schema})]


def rows_of(database_url: str, schema: str) -> dict[str, list[str]]:
    """Return the text of every row in a schema, by table."""
    with psycopg.connect(database_url, row_factory=tuple_row) as connection:
        tables = [name for name, *_ in connection.execute(TABLES, {"schema": schema})]
        return {
            name: [
                text
                for (text,) in connection.execute(
                    f"SELECT whole::text FROM {schema}.{name} AS whole ORDER BY 1"
                )
            ]
            for name in tables
        }
