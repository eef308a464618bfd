"""Row level security that applies to a role of ours: accounts would count as deleted unawares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from billing_cli.config.redaction import forget_secrets
from billing_cli.database.functions import LOCK_ROLE
from billing_cli.errors import SchemaError
from billing_cli.features.migrate.job import migrate
from tests.integration.jobs.test_isolation import pending_accounts
from tests.integration.jobs.world import only_source

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

ENABLE = "ALTER TABLE public.{} ENABLE ROW LEVEL SECURITY"
# As an owner may mean it: whoever works for the service sees everything, and others do not.
NOT_FOR_LOCKS = f"CREATE POLICY own ON public.users USING (current_user <> '{LOCK_ROLE}')"


@pytest.fixture(autouse=True)
def without_secrets_of_others() -> None:
    """Forget passwords of tests before: that of a role of the tests is its name."""
    forget_secrets()


@pytest.mark.parametrize(
    ("table", "policy"),
    [
        ("users", ""),
        ("users", NOT_FOR_LOCKS),
        (
            "account_quota_states",
            "CREATE POLICY own ON public.account_quota_states FOR SELECT USING (true)",
        ),
    ],
)
def test_row_security_that_applies_to_a_role_is_refused(
    database_url: str, job_url: str, table: str, policy: str
) -> None:
    """The error names table and roles, and the policy that shows them all rows."""
    job_role = role_of(job_url)
    roles = f"{LOCK_ROLE}, {job_role}" if table == "users" else job_role
    with psycopg.connect(database_url) as connection:
        connection.execute(f"{ENABLE.format(table)}; {policy}".encode())
    for url in (database_url, job_url):
        with pytest.raises(SchemaError) as caught:
            migrate(url, check=True)
        assert str(caught.value) == (
            f"row level security of public.{table} applies to {roles}, and may hide rows: "
            f"have its owner run: CREATE POLICY billing ON public.{table} TO {roles} USING (true)"
        )
    with psycopg.connect(database_url) as connection:
        connection.execute(str(caught.value).partition("owner run: ")[2].encode())
    migrate(database_url, check=True)


def test_a_restrictive_policy_is_refused_whatever_another_one_shows(
    database_url: str, job_url: str
) -> None:
    """It applies in addition."""
    with psycopg.connect(database_url) as connection:
        connection.execute(ENABLE.format("users").encode())
        connection.execute("CREATE POLICY all_rows ON public.users USING (true)")
    migrate(job_url, check=True)
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE POLICY own ON public.users AS RESTRICTIVE USING (uuid IS NULL)")
    with pytest.raises(SchemaError, match=r"row level security of public\.users"):
        migrate(job_url, check=True)


def test_policies_for_each_command_that_a_role_uses_are_as_good_as_one_for_all(
    database_url: str, job_url: str
) -> None:
    """A table that is only read needs one for SELECT alone."""
    with psycopg.connect(database_url) as connection:
        for table in ("account_billing_profiles", "account_quota_states"):
            connection.execute(ENABLE.format(table).encode())
            connection.execute(
                f"CREATE POLICY r ON public.{table} FOR SELECT USING (true)".encode()
            )
        table = "public.account_quota_states"
        connection.execute(f"CREATE POLICY a ON {table} FOR INSERT WITH CHECK (true)".encode())
        connection.execute(f"CREATE POLICY w ON {table} FOR UPDATE USING (true)".encode())
    for url in (database_url, job_url):
        migrate(url, check=True)


def test_a_role_that_passes_row_security_is_accepted(database_url: str, job_url: str) -> None:
    """With BYPASSRLS. The other one may not write the run history, and so is none of ours."""
    job_role = sql.Identifier(role_of(job_url))
    with psycopg.connect(database_url, autocommit=True) as connection:
        role = sql.Identifier(f"{connection.info.dbname}_passing")
        connection.execute(ENABLE.format("account_quota_states").encode())
        connection.execute(sql.SQL("CREATE ROLE {} BYPASSRLS").format(role))
        try:
            for statement in (
                "GRANT SELECT ON public.account_quota_states TO {0}",
                "GRANT INSERT ON billing.runs TO {0}",
                "REVOKE INSERT ON billing.runs FROM {1}",
            ):
                connection.execute(sql.SQL(statement).format(role, job_role))
            migrate(database_url, check=True)
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


def test_accounts_that_can_not_be_locked_do_not_count_as_deleted(world: World) -> None:
    """Their usage waits, the result is partial and names them, until they can be locked again."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.flow_until(8)
    world.run(world.at(2))
    world.connection.execute(f"{ENABLE.format('users')}; {NOT_FOR_LOCKS}".encode())

    result = world.run_unchecked(world.at(4))

    assert result.status == "partial"
    assert sorted(only_source(result).notes) == sorted(
        f"account {user.uuid} can't be locked, and is not charged: see `billing check`"
        for user in users
    )
    assert pending_accounts(world) == {user.uuid for user in users}
    world.connection.execute("ALTER TABLE public.users DISABLE ROW LEVEL SECURITY")
    world.run(world.at(10))
    world.assert_all_is_billed()


def role_of(url: str) -> str:
    """Return the role of a connection string."""
    return str(conninfo_to_dict(url)["user"])
