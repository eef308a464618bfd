"""Brings the database's schema to what this version needs, or reports what is wrong with it."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.database.begin import SEARCH_PATH
from billing_cli.database.connecting import Database
from billing_cli.database.connection import Session
from billing_cli.database.functions import ASSIGN_LOCK_ROLE, LOCK_ROLE
from billing_cli.database.grants import grant_script, seal_grant_script, suspend_grant_script
from billing_cli.database.privileges import (
    Role,
    public_schema_warning,
    read_privileges,
    read_role,
)
from billing_cli.database.schema import (
    HEAD_REVISION,
    MAKE_PARTITIONS_NOW,
    REVISIONS,
    WAIT_FOR_OTHER_MIGRATIONS,
    current_revision,
    wrong_revision,
)
from billing_cli.database.shape import read_shapes
from billing_cli.database.verification import (
    own_shapes,
    require_shapes,
    require_tables,
    shared_shapes,
    verify,
)
from billing_cli.errors import SchemaError, UsageError
from billing_cli.features.migrate.adoption import adopt_facts
from billing_cli.features.migrate.revisions import run_migrations, write_migrations

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

# A change to a large table takes its time, and so does the migration that is waited for.
STATEMENT_TIMEOUT_SECONDS = 3600.0
LOCK_TIMEOUT_SECONDS = 300.0

# Who is connected, and who may migrate: the owner of the shared tables, else of the database.
READ_OWNER = """
SELECT current_user::text,
       coalesce((SELECT pg_get_userbyid(relowner) FROM pg_class
                  WHERE oid = to_regclass('public.users')),
                (SELECT pg_get_userbyid(datdba) FROM pg_database
                  WHERE datname = current_database()))::text
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """What `migrate` did. `script` is the SQL that was asked for instead of a migration.

    `from_revision` is None for a database that was never migrated. `created_tables` are the
    shared tables that were missing, such as `public.users`. `needless_privileges` are what the
    role that was granted to has beyond its grants. `warnings` are what should be changed although
    billing works without. With `dry_run`, all of it was rolled back.
    """

    from_revision: str | None
    to_revision: str
    created_tables: tuple[str, ...] = ()
    script: str | None = None
    needless_privileges: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dry_run: bool = False


class NoSharedTablesError(SchemaError):
    """The database has none of the shared tables, and their creation was not confirmed."""

    code = "schema"

    def __init__(self, database: str) -> None:
        super().__init__(
            f"database {database!r} has none of the shared tables (public.users and others): "
            "check DATABASE_URL; to create them, as in a database for a trial or for development, "
            "add --create-shared-tables"
        )


class Roles(NamedTuple):
    """The roles that are given what they need: to run the jobs, `suspend`, and `seal`."""

    jobs: str | None = None
    suspend: str | None = None
    seal: str | None = None


ROLE_OPTIONS = ("--grant-to", "--grant-suspend-to", "--grant-seal-to")


def migrate(
    dsn: str,
    *,
    check: bool = False,
    sql: bool = False,
    dry_run: bool = False,
    create_shared_tables: bool = True,
    grant_to: str | None = None,
    grant_suspend_to: str | None = None,
    grant_seal_to: str | None = None,
) -> Migration:
    """Migrate to this version's revision and verify the tables, all of it or nothing.

    `check` only verifies. `sql` returns the script for an empty database, and opens no connection.
    `dry_run` does everything and rolls it back. Without `create_shared_tables`, a database that
    has none of them raises NoSharedTablesError; a dry run then says what would be created.
    `grant_to` names the role that is to run the jobs and is given what they need, as part of the
    same transaction, or of the script; `grant_suspend_to` and `grant_seal_to` those that run
    `suspend` and `seal`. Raises SchemaError where the tables or the revision are not what this
    version needs, UsageError where a role can't be limited to it, DatabaseUnavailableError where
    the database can't be reached.
    """
    roles = Roles(grant_to, grant_suspend_to, grant_seal_to)
    for option, name in zip(ROLE_OPTIONS, roles, strict=True):
        if name is not None:
            _check_role_name(name, option)
    named = [name for name in roles if name is not None]
    if len(set(named)) < len(named):
        raise UsageError(
            "the --grant options need roles of their own: jobs may not suspend or seal"
        )
    own = ((roles.suspend, suspend_grant_script), (roles.seal, seal_grant_script))
    scripts = {name: script(name) for name, script in own if name is not None}
    if sql:
        return Migration(None, HEAD_REVISION, script=_script(roles.jobs, scripts.values()))

    def work(connection: psycopg.Connection) -> Migration:
        done = _upgrade(connection, create_shared_tables=create_shared_tables or dry_run)
        for name, script in scripts.items():
            _limitable_role(connection, name)
            connection.execute(script.encode())
        return done if roles.jobs is None else _grant(connection, roles.jobs, done)

    with open_session(dsn, dry_run=dry_run) as session:
        if check:
            return session.read(_verified)
        try:
            return replace(session.transaction(work), dry_run=dry_run)
        except SchemaError as error:
            # What the role that locks accounts lacks says by itself what has to be run.
            if error.code != "privileges" or LOCK_ROLE in str(error):
                raise
            reason = str(error)
    raise _wrong_role(dsn, reason, grant_to)


def _wrong_role(dsn: str, reason: str, grant_to: str | None) -> SchemaError:
    """Return the error of a role that may not migrate: who may, and with which command."""
    with open_session(dsn) as session:
        rows = session.read(lambda connection: connection.execute(READ_OWNER).fetchall())
    ((role, owner),) = rows
    return SchemaError(
        f"role {role!r} may not migrate: {reason.partition(': ')[2]}; connect as {owner!r}, with "
        f"the password of {owner!r}, and run `billing migrate --grant-to {grant_to or role}`",
        code="privileges",
    )


def open_session(dsn: str, *, dry_run: bool = False) -> Session:
    """Return a session with the patience that schema changes need."""
    return Session(
        Database(
            dsn,
            application_name="billing migrate",
            statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
            lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
        ),
        dry_run=dry_run,
    )


def _upgrade(connection: psycopg.Connection, *, create_shared_tables: bool) -> Migration:
    # The revision is read behind the lock: whoever waited here finds the other's work done.
    connection.execute(WAIT_FOR_OTHER_MIGRATIONS)
    revision = current_revision(connection)
    if revision is not None and revision not in REVISIONS:
        raise wrong_revision(revision)
    shared = shared_shapes()
    # Before any of them is read: reading a view runs code of its owner as the role that migrates.
    require_tables(connection, shared)
    found = read_shapes(connection, shared)
    if not found and revision is None and not create_shared_tables:
        raise NoSharedTablesError(connection.info.dbname)
    # Before anything is created: a foreign key to a wrong table would fail with less to say.
    # Missing ones are created by the first migration only.
    expected = shared if revision else {name: shared[name] for name in found}
    require_shapes(expected, found)
    if revision is None:
        for name in read_shapes(connection, own_shapes()):
            raise SchemaError(f"{name} exists, but was not made by a migration")
    if revision != HEAD_REVISION:
        run_migrations(connection)
    # Also where nothing was to be migrated: a restored backup may have lost the owner.
    connection.execute(ASSIGN_LOCK_ROLE.encode())
    warnings = _verified(connection).warnings
    connection.execute(MAKE_PARTITIONS_NOW)
    adopt_facts(connection)
    created = tuple(name for name in shared if name not in found)
    return Migration(revision, HEAD_REVISION, created_tables=created, warnings=warnings)


def _verified(connection: psycopg.Connection) -> Migration:
    """Raise SchemaError where something is not as needed; return what should be changed."""
    verify(connection)
    warning = public_schema_warning(connection)
    return Migration(HEAD_REVISION, HEAD_REVISION, warnings=(warning,) if warning else ())


def _limitable_role(connection: psycopg.Connection, name: str) -> Role:
    role = read_role(connection, name)
    if role is None:
        raise UsageError(f"there is no role {name!r}; create it first, such as by CREATE ROLE")
    if role.is_superuser:
        raise UsageError(f"role {name!r} is a superuser: grants can't limit it")
    if role.owned_tables:
        raise UsageError(f"role {name!r} owns {role.owned_tables[0]}: grants can't limit it")
    return role


def _grant(connection: psycopg.Connection, name: str, done: Migration) -> Migration:
    role = _limitable_role(connection, name)
    # As bytes and without parameters, so that a percent sign in the name is nothing special.
    connection.execute(grant_script(name).encode())
    privileges = read_privileges(connection, role)
    if privileges.missing:
        raise SchemaError(f"role {name!r} still lacks {'; '.join(privileges.missing)}")
    return replace(done, needless_privileges=privileges.needless)


def _check_role_name(name: str, option: str) -> None:
    # A dollar sign could end the quoted blocks of the script.
    if not name or not name.isprintable() or "$" in name:
        raise UsageError(f"{option} needs the name of a role")


def _script(grant_to: str | None, grants: Iterable[str]) -> str:
    output = io.StringIO()
    write_migrations(output)
    of_jobs = () if grant_to is None else (grant_script(grant_to),)
    for script in (*of_jobs, *grants):
        output.write(f"BEGIN;\n\n{SEARCH_PATH};\n{script}\nCOMMIT;\n")
    return output.getvalue()
