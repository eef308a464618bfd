"""Compares what a role may do with what the jobs need, both ways: too little and too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from billing_cli.database import arrays
from billing_cli.database.grants import (
    FUNCTIONS,
    GRANTS,
    LOCK_FUNCTIONS,
    OPTIONAL_GRANTS,
    PARTITION_FUNCTION,
)
from billing_cli.database.schema import MIGRATE_HINT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

TABLES = tuple(dict.fromkeys(grant.table for grant in GRANTS))

# Locks work through functions that run as their owner, who must be able to take them, and to do
# nothing else: if `public.users` were replaced, the replacement's code would run as that role.
READ_LOCK_FUNCTION = """
SELECT pg_get_userbyid(proowner), prosecdef,
       CASE WHEN rolsuper THEN 'is a superuser'
            WHEN rolcanlogin OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
                 OR EXISTS (SELECT FROM pg_auth_members WHERE member = proowner)
                 OR EXISTS (SELECT FROM pg_class WHERE relowner = proowner)
                 OR has_table_privilege(proowner, 'public.users',
                                        'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
                 THEN 'may do more than lock accounts'
            WHEN NOT has_column_privilege(proowner, 'public.users', 'uuid', 'SELECT')
                 OR NOT has_column_privilege(proowner, 'public.users', 'uuid', 'UPDATE')
                 OR NOT has_schema_privilege(proowner, 'public', 'USAGE')
                 THEN 'needs USAGE on schema public, SELECT (uuid) and UPDATE (uuid) on'
                      ' public.users' END
  FROM pg_proc
  JOIN pg_roles ON pg_roles.oid = proowner
 WHERE pg_proc.oid = to_regprocedure(%(function)s)
"""

# Partitions are made by a function that runs as its owner, who must own their tables.
READ_PARTITION_FUNCTION = """
SELECT pg_get_userbyid(proowner), prosecdef,
       CASE WHEN EXISTS (SELECT FROM pg_class
                          WHERE oid = ANY (ARRAY[to_regclass('billing.usage_records'),
                                                 to_regclass('billing.charges')])
                            AND NOT pg_has_role(proowner, relowner, 'USAGE'))
            THEN 'does not own billing.usage_records and billing.charges' END
  FROM pg_proc WHERE oid = to_regprocedure(%(function)s)
"""

# What a role can't be kept from: everything, or whatever it likes with the tables it owns.
READ_ROLE = """
SELECT rolname, rolsuper,
       ARRAY (SELECT wanted.name
                FROM unnest(%(tables)s::text[]) AS wanted (name)
                JOIN pg_class ON pg_class.oid = to_regclass(wanted.name)
               WHERE pg_has_role(role.oid, relowner, 'USAGE')
               ORDER BY wanted.name)
  FROM pg_roles AS role
 WHERE rolname = coalesce(%(role)s, current_user)
"""

# Every privilege on a column that the role has and should not have, or the other way round.
COMPARE_COLUMNS = """
SELECT wanted.table_name, wanted.privilege, wanted.column_name, wanted.needed
  FROM (SELECT tables.name AS table_name, privilege.name AS privilege, attnum,
               attname AS column_name, attrelid,
               EXISTS (SELECT FROM unnest(%(grant_tables)s::text[], %(grant_privileges)s::text[],
                                          %(grant_columns)s::text[])
                           AS permission (table_name, privilege, column_name)
                        WHERE permission.table_name = tables.name
                          AND permission.privilege = privilege.name
                          AND permission.column_name IN ('', attname)) AS needed
          FROM unnest(%(tables)s::text[]) AS tables (name)
          JOIN pg_attribute
            ON attrelid = to_regclass(tables.name) AND attnum > 0 AND NOT attisdropped
         CROSS JOIN unnest('{SELECT,INSERT,UPDATE}'::text[]) AS privilege (name)) AS wanted
 WHERE needed <> has_column_privilege(%(role)s, attrelid, attnum, privilege)
 ORDER BY table_name, privilege, attnum
"""

# What no job needs on any table, and on the database.
READ_NEEDLESS = """
SELECT privilege.name || ' on ' || tables.name
  FROM unnest(%(tables)s::text[]) AS tables (name)
 CROSS JOIN unnest('{DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS privilege (name)
 WHERE has_table_privilege(%(role)s, to_regclass(tables.name), privilege.name)
 UNION ALL
SELECT 'CREATE on schema ' || name
  FROM unnest('{billing,public}'::text[]) AS schemas (name)
 WHERE has_schema_privilege(%(role)s, name, 'CREATE')
 ORDER BY 1
"""

# Who may create objects in `public` but is neither its owner, nor that of the shared tables, nor a
# superuser: what they create there runs with the rights of whoever comes across it.
READ_CREATORS = """
SELECT CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END
  FROM pg_namespace
 CROSS JOIN LATERAL aclexplode(coalesce(nspacl, acldefault('n', nspowner))) AS acl
  LEFT JOIN pg_roles ON pg_roles.oid = acl.grantee
 WHERE nspname = 'public' AND acl.privilege_type = 'CREATE' AND acl.grantee <> nspowner
   AND NOT coalesce(rolsuper, false)
   AND acl.grantee IS DISTINCT FROM
       (SELECT relowner FROM pg_class WHERE pg_class.oid = to_regclass('public.users'))
 ORDER BY 1
"""

READ_MISSING_ENTRANCES = """
SELECT 'USAGE on schema ' || name
  FROM unnest('{billing,public}'::text[]) AS schemas (name)
 WHERE NOT has_schema_privilege(%(role)s, name, 'USAGE')
 UNION ALL
SELECT 'EXECUTE on function ' || name
  FROM unnest(%(functions)s::text[]) AS functions (name)
 WHERE NOT has_function_privilege(%(role)s, to_regprocedure(name), 'EXECUTE')
 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Role:
    """A role as the database has it.

    `owned_tables` are those that it owns, itself or by membership in their owner: it can do with
    them what it likes, whatever it is granted.
    """

    name: str
    is_superuser: bool
    owned_tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a role lacks to run the jobs, and what it has beyond that, each in words."""

    missing: tuple[str, ...]
    needless: tuple[str, ...]


def read_role(connection: Connection[Any], name: str | None = None) -> Role | None:
    """Return a role, or the one that is connected; None where there is none of that name."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(READ_ROLE, {"role": name, "tables": arrays.texts(TABLES)}).fetchone()
    return None if row is None else Role(row[0], row[1], tuple(row[2]))


def read_privileges(connection: Connection[Any], role: Role) -> Privileges:
    """Return what the role may do too little and too much of. The schema must be at head."""
    grants = [
        (grant.table, grant.privilege, column)
        for grant in (*GRANTS, *OPTIONAL_GRANTS)
        for column in grant.columns or ("",)
    ]
    wanted = {
        "role": role.name,
        "tables": arrays.texts(TABLES),
        "functions": arrays.texts(FUNCTIONS),
        "grant_tables": arrays.texts(table for table, _, _ in grants),
        "grant_privileges": arrays.texts(privilege for _, privilege, _ in grants),
        "grant_columns": arrays.texts(column for _, _, column in grants),
    }
    with connection.cursor(row_factory=tuple_row) as cursor:
        missing = [text for (text,) in cursor.execute(READ_MISSING_ENTRANCES, wanted)]
        if role.is_superuser:
            return Privileges(tuple(missing), ("everything: it is a superuser",))
        columns = cursor.execute(COMPARE_COLUMNS, wanted).fetchall()
        needless = [text for (text,) in cursor.execute(READ_NEEDLESS, wanted)]
    missing += _in_words(columns, needed=True)
    needless = [*_in_words(columns, needed=False), *needless]
    return Privileges(tuple(missing), tuple(needless))


def public_schema_warning(connection: Connection[Any]) -> str | None:
    """Return which untrusted roles can create objects in schema `public`, and how to end that."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        roles = [name for (name,) in cursor.execute(READ_CREATORS)]
    if not roles:
        return None
    names = ", ".join(roles)
    return (
        f"{names} can create objects in schema public, which others may then run unawares: "
        f"REVOKE CREATE ON SCHEMA public FROM {names};"
    )


def function_problem(connection: Connection[Any]) -> str | None:
    """Return why a function that the jobs call could not do its work for them, or None."""
    queries = dict.fromkeys(LOCK_FUNCTIONS, READ_LOCK_FUNCTION)
    queries[PARTITION_FUNCTION] = READ_PARTITION_FUNCTION
    found = (_problem(connection, function, query) for function, query in queries.items())
    return next(filter(None, found), None)


def _problem(connection: Connection[Any], function: str, query: str) -> str | None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(query.encode(), {"function": function}).fetchone()
    if row is None:
        return f"{function} is missing"
    owner, is_definer, problem = row
    if not is_definer:
        return f"{function} is not SECURITY DEFINER"
    return f"owner {owner} of {function} {problem}; {MIGRATE_HINT}" if problem else None


def _in_words(columns: Iterable[tuple[str, str, str, bool]], *, needed: bool) -> list[str]:
    names: dict[tuple[str, str], list[str]] = {}
    for table, privilege, column, is_needed in columns:
        if is_needed == needed:
            names.setdefault((privilege, table), []).append(column)
    return [
        f"{privilege} ({', '.join(found)}) on {table}"
        for (privilege, table), found in names.items()
    ]
