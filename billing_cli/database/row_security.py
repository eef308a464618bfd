"""Row level security: a role that it applies to may not see, or not lock, all rows.

An account that can be read but not locked would count as deleted, and its usage would wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

# Our roles are whoever is connected, those that may write the run history, and, for users alone,
# the owner of the functions that lock them. For each command that a role may use, a policy that
# shows and takes every row is as good as none, if no other one restricts it.
RESTRICTED = """
WITH subject AS (
  SELECT table_name, role.oid AS role_id
    FROM unnest(%(tables)s::text[]) AS wanted (table_name)
   CROSS JOIN pg_roles AS role
   WHERE (role.rolname = current_user
          OR role.oid IN (SELECT acl.grantee FROM pg_class, aclexplode(relacl) AS acl
                           WHERE pg_class.oid = to_regclass('billing.runs')
                             AND acl.privilege_type = 'INSERT' AND acl.grantee <> relowner))
     AND has_any_column_privilege(role.oid, to_regclass(table_name), 'SELECT')
   UNION
  SELECT 'public.users', proowner FROM pg_proc
   WHERE pg_proc.oid = to_regprocedure('billing.lock_accounts(uuid[])')
)
SELECT table_name, string_agg(DISTINCT quote_ident(rolname), ', ' ORDER BY quote_ident(rolname))
  FROM subject
  JOIN pg_class ON pg_class.oid = to_regclass(table_name)
  JOIN pg_roles AS role ON role.oid = role_id
 CROSS JOIN LATERAL (
       SELECT polcmd AS command
         FROM (VALUES ('r', 'SELECT'), ('a', 'INSERT'), ('w', 'UPDATE')) AS may (polcmd, privilege)
        WHERE has_any_column_privilege(role.oid, pg_class.oid, privilege)) AS used
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE NOT polpermissive) AS restrictive,
              count(*) FILTER (
                WHERE polpermissive
                  AND (polqual IS NULL OR pg_get_expr(polqual, polrelid) = 'true')
                  AND (polwithcheck IS NULL OR pg_get_expr(polwithcheck, polrelid) = 'true')
              ) AS unlimited
         FROM pg_policy
        WHERE polrelid = pg_class.oid AND polcmd::text IN ('*', used.command)
          AND EXISTS (SELECT FROM unnest(polroles) AS policy (role_id)
                       WHERE policy.role_id = 0 OR pg_has_role(role.oid, policy.role_id, 'USAGE'))
       ) AS policies
 WHERE relrowsecurity AND NOT rolsuper AND NOT rolbypassrls
   AND (relforcerowsecurity OR NOT pg_has_role(role.oid, relowner, 'USAGE'))
   AND NOT (unlimited > 0 AND restrictive = 0)
 GROUP BY table_name
 ORDER BY table_name
"""


def read_restricted(connection: Connection[Any], names: Iterable[str]) -> tuple[str, ...]:
    """Return in words which tables restrict which of our roles, and what to run."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(RESTRICTED, {"tables": sorted(names)}).fetchall()
    return tuple(
        f"row level security of {table} applies to {roles}, and may hide rows: have its owner run: "
        f"CREATE POLICY billing ON {table} TO {roles} USING (true)"
        for table, roles in rows
    )
