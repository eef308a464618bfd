"""What a server says of itself and of the role that is connected. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from billing_cli.addresses import is_loopback
from billing_cli.core.model import NodeIdentity
from billing_cli.database.privileges import (
    public_schema_warning,
    read_privileges,
    read_role,
)
from billing_cli.features.check.database_findings import (
    ReplicationFacts,
    RoleFacts,
    ServerFacts,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from psycopg import Connection

READ_SERVER = """
SELECT current_setting('server_version'), current_database(), current_user, pg_is_in_recovery(),
       clock_timestamp()
"""

# What reaches beyond this database. Roles that do not exist in older servers count for nothing.
READ_POWERS = """
SELECT power.name
  FROM pg_roles AS role
 CROSS JOIN LATERAL (VALUES
       ('create roles', rolcreaterole),
       ('create databases', rolcreatedb),
       ('replicate the server', rolreplication),
       ('pass by row security', rolbypassrls)) AS power (name, is_given)
 WHERE rolname = current_user AND is_given AND NOT rolsuper
 UNION ALL
SELECT 'act as ' || rolname
  FROM pg_roles
 WHERE rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                   'pg_read_all_data', 'pg_write_all_data')
   AND pg_has_role(current_user, oid, 'USAGE')
   AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
 ORDER BY 1
"""

# Asked of the catalog, because naming anything in a schema that is closed to us is an error.
READ_CLOSED_SCHEMAS = """
SELECT nspname FROM pg_namespace
 WHERE nspname IN ('billing', 'public') AND NOT has_schema_privilege(oid, 'USAGE')
 ORDER BY nspname
"""

# Who else takes part in the writing of the quota states. A publication alone also feeds readers;
# with a subscription of the same table, another server's rows are written here as well.
READ_REPLICATION = """
SELECT ARRAY (SELECT pubname FROM pg_publication_tables
               WHERE schemaname = 'public' AND tablename = 'account_quota_states'
               ORDER BY pubname),
       -- Not pg_subscription: before PostgreSQL 14 only superusers may read it.
       ARRAY (SELECT DISTINCT subname
                FROM pg_subscription_rel
                JOIN pg_stat_subscription ON subid = srsubid
               WHERE srrelid = to_regclass('public.account_quota_states')
               ORDER BY subname),
       ARRAY (SELECT nspname || '.' || relname
                FROM pg_class
                JOIN pg_namespace ON pg_namespace.oid = relnamespace
               WHERE (nspname, relname) IN (('pglogical', 'replication_set_table'),
                                            ('spock', 'replication_set_table'),
                                            ('bdr', 'tables'))
               ORDER BY 1)
"""

# The catalogs of these extensions name their tables in one column each.
REPLICATED_BY_EXTENSION = {
    "pglogical.replication_set_table": "set_reloid = to_regclass('public.account_quota_states')",
    "spock.replication_set_table": "set_reloid = to_regclass('public.account_quota_states')",
    "bdr.tables": "relname = 'account_quota_states'",
}

READ_KNOWN_SOURCES = """
SELECT source_id, env, node_id, contract, watermark
  FROM billing.sources
 WHERE watermark IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class KnownSource:
    """What earlier runs stored of a source."""

    identity: NodeIdentity
    contract: str
    watermark: datetime


def read_server(connection: Connection[Any], clock: Callable[[], datetime]) -> ServerFacts:
    """Return what the server is, and how this connection reaches it."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        before = clock()
        row = cursor.execute(READ_SERVER).fetchone()
        after = clock()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        version, database, role, is_standby, theirs = row
        powers = tuple(name for (name,) in cursor.execute(READ_POWERS))
    info = connection.info
    host = info.host
    is_socket = host.startswith(("/", "@"))
    is_encrypted = bool(connection.pgconn.ssl_in_use)
    return ServerFacts(
        version=version.partition(" ")[0],
        major_version=info.server_version // 10_000,
        database=database,
        role=role,
        place=host if is_socket else f"{host}:{info.port}",
        is_local=is_socket or is_loopback(info.hostaddr or host),
        is_encrypted=is_encrypted,
        is_verified=is_encrypted and info.get_parameters().get("sslmode") == "verify-full",
        is_standby=is_standby,
        clock_difference_seconds=(theirs - (before + (after - before) / 2)) / timedelta(seconds=1),
        powers=powers,
    )


def read_closed_schemas(connection: Connection[Any]) -> tuple[str, ...]:
    """Return those of the two schemas that exist, and that the role may not look into."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return tuple(name for (name,) in cursor.execute(READ_CLOSED_SCHEMAS))


def read_role_facts(connection: Connection[Any]) -> RoleFacts:
    """Return what the role may do too little and too much of. The schema must be at head."""
    role = read_role(connection)
    assert role is not None  # noqa: S101 - we are connected as it
    privileges = read_privileges(connection, role)
    return RoleFacts(
        missing=privileges.missing,
        needless=privileges.needless,
        owned_tables=role.owned_tables,
        is_superuser=role.is_superuser,
        public_schema=public_schema_warning(connection),
    )


def read_replication(connection: Connection[Any]) -> ReplicationFacts:
    """Return how the quota states are replicated."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(READ_REPLICATION).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        publications, subscriptions, catalogs = row
        extensions = [
            name.partition(".")[0] for name in catalogs if _is_replicated_by(connection, name)
        ]
    return ReplicationFacts(tuple(publications), tuple(subscriptions), tuple(extensions))


def _is_replicated_by(connection: Connection[Any], catalog: str) -> bool:
    """Return whether an extension replicates quota states; one that can't be asked may do so."""
    schema = catalog.partition(".")[0]
    query = f"SELECT FROM {catalog} WHERE {REPLICATED_BY_EXTENSION[catalog]}"
    with connection.cursor(row_factory=tuple_row) as cursor:
        (is_open,) = cursor.execute(
            "SELECT has_schema_privilege(%s, 'USAGE') AND (SELECT"
            " has_table_privilege(pg_class.oid, 'SELECT') FROM pg_class JOIN pg_namespace ON"
            " pg_namespace.oid = relnamespace WHERE nspname || '.' || relname = %s)",
            (schema, catalog),
        ).fetchone() or (False,)
        return not is_open or cursor.execute(query.encode()).fetchone() is not None


def read_known_sources(connection: Connection[Any]) -> dict[str, KnownSource]:
    """Return what is stored of all sources, by source id."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return {
            source_id: KnownSource(NodeIdentity(env, node_id), contract, watermark)
            for source_id, env, node_id, contract, watermark in cursor.execute(READ_KNOWN_SOURCES)
        }
