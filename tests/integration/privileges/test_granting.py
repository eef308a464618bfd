"""`billing migrate --grant-to ROLE`: the grants are given, or printed, or refused with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from billing_cli.database.privileges import Privileges, read_privileges, read_role
from billing_cli.errors import SchemaError, UsageError
from billing_cli.features.migrate.job import migrate
from tests.integration.privileges.conftest import ADD_ARREARS_SINCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Databases

ODD_NAME = 'billing "100%" o\'jobs'


@pytest.fixture
def role(databases: Databases) -> Iterator[str]:
    """Return the name of a role that was given nothing yet; the name needs quoting."""
    name = f"{next(databases.names)} {ODD_NAME}"
    identifier = sql.Identifier(name)
    databases.admin.execute(sql.SQL("CREATE ROLE {}").format(identifier))
    yield name
    databases.admin.execute(sql.SQL("DROP ROLE {}").format(identifier))


@pytest.fixture
def scratch(empty_database_url: str, role: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Return a connection to a database without tables; what the role is given goes with it."""
    with psycopg.connect(empty_database_url, autocommit=True) as opened:
        yield opened
        opened.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


def privileges_of(connection: psycopg.Connection[Any], role: str) -> Privileges:
    """Return what the role lacks, and what it has beyond its work."""
    found = read_role(connection, role)
    assert found is not None
    return read_privileges(connection, found)


def test_a_migration_grants_to_the_role_of_the_jobs(
    scratch: psycopg.Connection[Any], empty_database_url: str, role: str
) -> None:
    """One command prepares both; its name may need quotes."""
    done = migrate(empty_database_url, grant_to=role)
    assert done.needless_privileges == ()
    assert privileges_of(scratch, role) == Privileges((), ())


def test_the_script_grants_the_same(scratch: psycopg.Connection[Any], role: str) -> None:
    """What an administrator runs by hand leads to what the command does."""
    script = migrate("", sql=True, grant_to=role).script
    assert script is not None
    scratch.execute(script.encode())
    assert privileges_of(scratch, role) == Privileges((), ())


def test_granting_again_takes_in_new_columns_and_takes_old_grants_away(
    scratch: psycopg.Connection[Any], empty_database_url: str, role: str
) -> None:
    """After an upgrade the role has what this version needs, no more of our tables than that."""
    migrate(empty_database_url, grant_to=role)
    scratch.execute(ADD_ARREARS_SINCE)
    grant = sql.SQL("GRANT ALL ON billing.charges TO {0}; GRANT DELETE ON public.users TO {0}")
    scratch.execute(grant.format(sql.Identifier(role)))
    assert privileges_of(scratch, role).missing
    done = migrate(empty_database_url, grant_to=role)
    # The shared tables are another owner's: what was given there is told, not taken.
    assert done.needless_privileges == ("DELETE on public.users",)
    assert privileges_of(scratch, role) == Privileges((), done.needless_privileges)


def test_an_unknown_role_is_told_and_nothing_is_migrated(empty_database_url: str) -> None:
    """Migration and grants are one transaction."""
    with pytest.raises(UsageError, match="there is no role 'no-such-role'; create it first"):
        migrate(empty_database_url, grant_to="no-such-role")
    assert migrate(empty_database_url).from_revision is None


def test_a_role_that_grants_can_not_limit_is_refused(
    scratch: psycopg.Connection[Any], empty_database_url: str, role: str
) -> None:
    """Neither a superuser nor an owner: least privilege would be an illusion."""
    with pytest.raises(UsageError, match="is a superuser"):
        migrate(empty_database_url, grant_to=scratch.info.user)
    migrate(empty_database_url)
    owner = sql.SQL("ALTER TABLE public.users OWNER TO {}").format(sql.Identifier(role))
    scratch.execute(owner)
    with pytest.raises(UsageError, match=r"owns public\.users: grants can't limit it"):
        migrate(empty_database_url, grant_to=role)
    scratch.execute("ALTER TABLE public.users OWNER TO CURRENT_USER")


@pytest.mark.parametrize("name", ["", "a$grant$b", "two\nlines"])
def test_what_is_no_name_of_a_role_is_refused(name: str) -> None:
    """Before any of it stands in a script."""
    with pytest.raises(UsageError, match="needs the name of a role"):
        migrate("", sql=True, grant_to=name)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("DROP FUNCTION billing.lock_accounts", "is missing"),
        ("ALTER FUNCTION billing.lock_accounts SECURITY INVOKER", "is not SECURITY DEFINER"),
        (
            "CREATE ROLE {0}; ALTER FUNCTION billing.lock_accounts OWNER TO {0}",
            r"owner \w+ of billing.lock_accounts\(uuid\[\]\) needs .*, SELECT \(uuid\) and UPDATE",
        ),
        (
            "ALTER FUNCTION billing.lock_accounts OWNER TO CURRENT_USER",
            "owner postgres of .* is a superuser",
        ),
        (
            "CREATE ROLE {0} LOGIN; ALTER FUNCTION billing.lock_accounts OWNER TO {0}",
            r"owner \w+ of .* may do more than lock accounts",
        ),
    ],
)
def test_check_finds_that_accounts_can_not_be_locked(
    connection: psycopg.Connection[dict[str, Any]], database_url: str, damage: str, problem: str
) -> None:
    """Every job would fail at its first account."""
    name = f"{connection.info.dbname}_weak"
    connection.execute(damage.format(name).encode())
    try:
        with pytest.raises(SchemaError, match=problem):
            migrate(database_url, check=True)
    finally:
        connection.execute("DROP FUNCTION IF EXISTS billing.lock_accounts")
        connection.execute(f"DROP ROLE IF EXISTS {name}".encode())
