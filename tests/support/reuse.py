"""Makes a used test database as it was, where only its rows have changed.

Emptying a database takes about a tenth of what copying the template and dropping the copy takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from typing import LiteralString

Definitions = tuple[Any, ...]

# A database that has grown by more is dropped: what is deleted from it would still be read over.
MAX_GROWTH_BYTES = 4 * 1024 * 1024

END_OTHER_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

# Every change of a definition or of a right writes a new row with an xmin of its own. Copies of
# the template have its rows, xmin included. Schemas for temporary tables come with those.
CATALOGS = (
    "pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_trigger", "pg_proc",
    "pg_type", "pg_operator", "pg_cast", "pg_rewrite", "pg_policy", "pg_extension",
    "pg_event_trigger", "pg_default_acl", "pg_statistic_ext", "pg_inherits", "pg_description",
    "pg_publication", "pg_publication_rel", "pg_publication_namespace", "pg_foreign_server",
)  # fmt: skip
VERSIONS = """
(SELECT (count(*), sum(xmin::text::bigint) FILTER (WHERE xmin <> '1'::xid))::text FROM {})
"""
READ_DEFINITIONS = f"""
SELECT {", ".join(map(VERSIONS.format, CATALOGS))},
       {VERSIONS.format("pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'")},
       datdba::text, datconnlimit::text, datacl::text,
       (SELECT count(*)::text FROM pg_db_role_setting WHERE setdatabase = pg_database.oid),
       (SELECT count(*)::text FROM pg_subscription WHERE subdbid = pg_database.oid),
       (SELECT count(*)::text FROM pg_prepared_xacts WHERE database = datname)
  FROM pg_database WHERE datname = current_database()
"""

READ_FILLED_TABLES = """
SELECT format('%I.%I', nspname, relname)
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind = 'r' AND nspname IN ('public', 'billing') AND pg_relation_size(pg_class.oid) > 0
 ORDER BY 1
"""
# Triggers that fire in spite of session_replication_role.
READ_GUARDS = """
SELECT format('%%I.%%I', nspname, relname), quote_ident(tgname)
  FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
  JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE tgenabled = 'A' AND format('%%I.%%I', nspname, relname) = ANY (%s)
"""
RESTART_SEQUENCES = """
SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
  FROM pg_sequences WHERE last_value IS NOT NULL
"""


class Original(NamedTuple):
    """What the template holds: its definitions, its size, and its rows by table."""

    definitions: Definitions
    size: int
    rows: dict[str, list[str]]


def read_original(url: str) -> Original:
    """Return what a database holds that only `migrate` has written to."""
    with psycopg.connect(url, autocommit=True) as connection:
        return Original(
            _row(connection, READ_DEFINITIONS),
            _size(connection),
            {name: _rows(connection, name) for name in _filled_tables(connection)},
        )


def empty(url: str, definitions: Definitions, original: Original) -> Definitions | None:
    """Make a database hold what the original held; return its definitions from now on.

    `definitions` are those from before it was used. Where these have changed, or where it has
    grown much, nothing is returned: the database has to be dropped.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        # A test may have left operators in schema public that are nearer to ours.
        connection.execute("SET search_path = pg_catalog")
        connection.execute(END_OTHER_SESSIONS)
        if (
            _row(connection, READ_DEFINITIONS) != definitions
            or _size(connection) > original.size + MAX_GROWTH_BYTES
        ):
            return None
        filled = _filled_tables(connection)
        guards = connection.execute(READ_GUARDS, (filled,)).fetchall()
        statements = [
            "SET session_replication_role = replica",
            *(f"ALTER TABLE {table} DISABLE TRIGGER {name}" for table, name in guards),
            *(f"{_verb(table)} ONLY {table}" for table in filled),
            *(
                f"INSERT INTO {table} SELECT ({sql.quote(row)}::{table}).*"
                for table, rows in original.rows.items()
                for row in rows
            ),
            *(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for table, name in guards),
            RESTART_SEQUENCES,
        ]
        connection.execute(";".join(statements).encode())
        is_defined_anew = guards or "TRUNCATE" in {*map(_verb, filled)}
        return _row(connection, READ_DEFINITIONS) if is_defined_anew else definitions


def _verb(table: str) -> str:
    """Return how a table is emptied; a partition for the rest counts as used by its size."""
    return "TRUNCATE" if table.endswith("_default") else "DELETE FROM"


def _row(connection: psycopg.Connection[Any], query: LiteralString) -> tuple[Any, ...]:
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


def _size(connection: psycopg.Connection[Any]) -> int:
    (size,) = _row(connection, "SELECT pg_database_size(current_database())")
    return int(size)


def _filled_tables(connection: psycopg.Connection[Any]) -> list[str]:
    return [name for (name,) in connection.execute(READ_FILLED_TABLES)]


def _rows(connection: psycopg.Connection[Any], table: str) -> list[str]:
    query = f"SELECT row::text FROM ONLY {table} AS row"
    return [row for (row,) in connection.execute(query.encode())]
