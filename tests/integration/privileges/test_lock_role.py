"""The functions that lock accounts run as a role that may do nothing else."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.errors import InsufficientPrivilege

from billing_cli.database.functions import LOCK_ROLE
from billing_cli.errors import SchemaError
from billing_cli.features.migrate.job import migrate
from billing_cli.simulator.postgres import running_postgres

SHARED_SCHEMA = Path(__file__).parents[1] / "migration" / "shared_schema.sql"

OWNER = """
SELECT rolname, rolsuper, rolcanlogin FROM pg_proc JOIN pg_roles ON pg_roles.oid = proowner
 WHERE proname = 'lock_accounts'
"""

# As whoever owns the schema `public` can do it: a view whose code takes part in what reads it.
REPLACE_USERS_BY_A_VIEW = """
CREATE FUNCTION public.trap() RETURNS uuid LANGUAGE plpgsql VOLATILE AS $trap$
BEGIN
  RAISE NOTICE 'the trap runs as {mark} %', current_user;
  {attack};
  RETURN gen_random_uuid();
END $trap$;
ALTER TABLE public.users RENAME TO former_users;
CREATE VIEW public.users AS SELECT public.trap() AS uuid, proxy_uuid FROM public.former_users;
GRANT SELECT, UPDATE ON public.users TO {role};
INSERT INTO public.former_users (uuid, proxy_uuid, username, password)
VALUES (gen_random_uuid(), gen_random_uuid(), '', '')
"""


@pytest.mark.parametrize(
    "attack",
    [
        "CREATE ROLE thief SUPERUSER",
        "UPDATE public.account_quota_states SET current_balance = 1000000",
        "UPDATE public.former_users SET username = 'stolen'",
        "INSERT INTO billing.runs (run_id) VALUES (gen_random_uuid())",
    ],
)
def test_a_view_in_place_of_users_gains_nothing(
    connection: psycopg.Connection[dict[str, Any]],
    job_connection: psycopg.Connection,
    attack: str,
) -> None:
    """Its code ran as whoever migrated, such as a superuser; now as a role without privileges."""
    heard: list[str] = []
    job_connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    replace = REPLACE_USERS_BY_A_VIEW.format(attack=attack, role=LOCK_ROLE, mark="role")
    connection.execute(replace.encode())
    with pytest.raises(InsufficientPrivilege):
        job_connection.execute("SELECT billing.lock_accounts(ARRAY[gen_random_uuid()])")
    assert heard == [f"the trap runs as role {LOCK_ROLE}"]


def test_a_view_in_place_of_users_is_refused_before_it_is_read(
    connection: psycopg.Connection[dict[str, Any]], database_url: str
) -> None:
    """By `migrate`, which may run as a superuser, and by `check`."""
    trap = REPLACE_USERS_BY_A_VIEW.format(
        attack="RAISE EXCEPTION 'it was read'", role=LOCK_ROLE, mark="role"
    )
    connection.execute(trap.encode())
    for is_check in (True, False):
        with pytest.raises(SchemaError, match=r"public\.users is a view: it has to be a plain"):
            migrate(database_url, check=is_check)


def test_migrating_hands_the_functions_back_to_the_role(
    connection: psycopg.Connection[dict[str, Any]], database_url: str
) -> None:
    """As after a backup was restored by a superuser, who then owns everything."""
    for name in ("lock_accounts", "lock_available_accounts"):
        connection.execute(f"ALTER FUNCTION billing.{name} OWNER TO CURRENT_USER".encode())
    with pytest.raises(SchemaError, match=r"is a superuser; run `billing migrate`"):
        migrate(database_url, check=True)
    migrate(database_url)
    assert connection.execute(OWNER).fetchone() == {
        "rolname": LOCK_ROLE,
        "rolsuper": False,
        "rolcanlogin": False,
    }


@pytest.mark.parametrize("option", ["CREATEROLE", "NOCREATEROLE"])
def test_the_owner_of_a_database_migrates_without_a_superuser(option: str) -> None:
    """With CREATEROLE by itself; without it, after what the error asks a superuser to run."""
    with TemporaryDirectory() as directory, running_postgres(server_directory(directory)) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute(f"CREATE ROLE owner LOGIN {option}; CREATE ROLE jobs LOGIN".encode())
            admin.execute("CREATE DATABASE account OWNER owner")
            with psycopg.connect(server.url("account"), autocommit=True) as admin_of_account:
                # As from PostgreSQL 15 on by itself.
                admin_of_account.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
                admin_of_account.execute("GRANT CREATE ON SCHEMA public TO owner")
            url = make_conninfo(server.url(), dbname="account", user="owner")
            with psycopg.connect(url) as connection:
                connection.execute(SHARED_SCHEMA.read_bytes())
            if option == "NOCREATEROLE":
                with pytest.raises(SchemaError, match="have a superuser run: CREATE ROLE") as error:
                    migrate(url)
                admin.execute(str(error.value).partition(" run: ")[2].encode())
            assert migrate(url, grant_to="jobs").needless_privileges == ()
        with psycopg.connect(make_conninfo(url, user="jobs")) as jobs:
            assert jobs.execute("SELECT billing.lock_accounts('{}')").fetchall() == []


def server_directory(directory: str) -> Path:
    """Let the server, which is not root's, enter the directory."""
    Path(directory).chmod(0o755)
    return Path(directory) / "server"
