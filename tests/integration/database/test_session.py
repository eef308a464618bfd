"""What every transaction begins with, whatever roles, databases and others have set up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.database.connecting import Database
from billing_cli.database.connection import Session
from billing_cli.errors import BillingError
from billing_cli.features.audit.job import audit
from billing_cli.features.migrate.job import migrate
from billing_cli.features.status.job import status
from billing_cli.jobs.reconcile import reconcile
from tests.integration.database.stage import (
    MINUTE,
    assert_heals,
    collect_through,
    wait_until_blocked,
)
from tests.support.relay import relayed

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

    from tests.integration.jobs.world import World

PECULIAR = {
    "default_transaction_isolation": "serializable",
    "TimeZone": "Europe/Berlin",
    "DateStyle": "SQL, DMY",
    "search_path": "public, pg_catalog",
    "client_encoding": "LATIN1",
    "extra_float_digits": "-5",
}

READ_SETTINGS = """
SELECT current_setting('transaction_isolation'), current_setting('TimeZone'),
       current_setting('DateStyle'), current_setting('search_path'),
       current_setting('client_encoding'), current_setting('extra_float_digits')
"""

# One and the same time of day in Berlin, an hour apart.
READ_REPEATED_HOUR = """
SELECT '2026-10-25 00:30Z'::timestamptz, '2026-10-25 01:30Z'::timestamptz
"""

# Functions of every name and type that statements call, found before PostgreSQL's own by whoever
# has `public` first in the search path.
TRAPS = """
CREATE FUNCTION public.{name}({types}) RETURNS {result} LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'executed as %', current_user;
END $$
"""
TRAPPED = (
    ("unnest", "text[]", "SETOF text"),
    ("unnest", "uuid[]", "SETOF uuid"),
    ("set_config", "text, text, boolean", "text"),
    ("current_setting", "text", "text"),
    ("to_regclass", "text", "regclass"),
    ("coalesce_sum", "bigint", "bigint"),
    ("to_char", "timestamptz, text", "text"),
    ("date_trunc", "text, timestamptz", "timestamptz"),
    ("hashtextextended", "text, bigint", "bigint"),
    ("pg_try_advisory_xact_lock", "bigint", "boolean"),
    ("pg_advisory_xact_lock", "bigint", "void"),
    ("now", "", "timestamptz"),
)


@pytest.mark.parametrize(
    ("do", "isolation"),
    [
        (Session.transaction, "read committed"),
        (Session.read, "read committed"),
        (Session.read_one_state, "repeatable read"),
    ],
)
def test_the_defaults_of_a_role_do_not_reach_a_transaction(
    database_url: str, do: Callable[..., Any], isolation: str
) -> None:
    """Isolation, zone, styles, path and encoding are the same everywhere."""
    make_peculiar(database_url)
    with Session(Database(database_url)) as session:
        for _ in range(2):
            row = do(session, lambda one: one.execute(READ_SETTINGS).fetchone())
            path = "pg_catalog, pg_temp"
            assert row == (isolation, "UTC", "ISO, YMD", path, "UTF8", "1")


def test_a_dry_run_has_the_same_settings(database_url: str) -> None:
    """All of it is one transaction, whichever part comes first."""
    make_peculiar(database_url)
    with Session(Database(database_url), dry_run=True) as session:
        for do in (session.read, session.transaction, session.read):
            row = do(lambda one: one.execute(READ_SETTINGS).fetchone())
            assert row is not None
            assert row[:2] == ("read committed", "UTC")


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_moments_an_hour_apart_are_never_equal(database_url: str, *, binary: bool) -> None:
    """Every moment is loaded in UTC, also by whoever looks before a transaction was begun."""
    make_peculiar(database_url)

    def look(connection: Connection) -> tuple[Any, ...]:
        connection.execute("SET LOCAL TimeZone = 'Europe/Berlin'")
        connection.execute("SET LOCAL DateStyle = 'ISO'")
        row = connection.execute(READ_REPEATED_HOUR, binary=binary).fetchone()
        assert row is not None
        return row

    with Session(Database(database_url)) as session:
        first, second = session.read(look)
    assert first != second
    assert second - first == timedelta(hours=1)
    assert first.tzinfo is second.tzinfo is UTC


def test_reading_one_state_can_not_write(database_url: str) -> None:
    """The database itself holds it to reading, whatever a statement says."""
    with (
        Session(Database(database_url)) as session,
        pytest.raises(BillingError, match="cannot execute DELETE in a read-only transaction"),
    ):
        session.read_one_state(lambda one: one.execute("DELETE FROM billing.runs"))


def test_reading_one_state_sees_nothing_of_later_commits(
    database_url: str, connection: Connection[Any]
) -> None:
    """What others commit meanwhile shows up in the next transaction."""
    count = "SELECT count(*) FROM public.users"

    def look(session: Connection) -> list[Any]:
        counts = [session.execute(count).fetchone()]
        connection.execute(
            "INSERT INTO public.users (uuid, proxy_uuid, username, password)"
            " VALUES (gen_random_uuid(), gen_random_uuid(), '', '')"
        )
        return [*counts, session.execute(count).fetchone()]

    with Session(Database(database_url)) as session:
        assert session.read_one_state(look) == [(0,), (0,)]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_top_up_during_a_run_costs_no_second_attempt(
    world: World, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run waits for it and goes on from there, whatever the role's default isolation is."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    set_for_database(world.connection, "default_transaction_isolation", level)
    with (
        relayed(world.database_url) as relay,
        psycopg.connect(world.connection.info.dsn) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        other.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        other.execute("UPDATE public.account_quota_states SET current_balance = current_balance")
        running = thread.submit(collect_through, world, relay.url)
        wait_until_blocked(world, running)
        other.commit()
        assert running.result().status == "ok"
    assert sum("pg_current_xact_id" in statement for statement in relay.statements) == 1
    assert_heals(world)


def test_functions_of_other_roles_are_never_executed(world: World, database_url: str) -> None:
    """Neither by jobs nor by their owner, although `public` is first in everybody's path."""
    name = world.connection.info.dbname
    world.connection.execute(f"CREATE ROLE {name}_intruder".encode())
    try:
        world.connection.execute(f"GRANT CREATE ON SCHEMA public TO {name}_intruder".encode())
        world.connection.execute(f"SET ROLE {name}_intruder".encode())
        for trap, types, result in TRAPPED:
            statement = TRAPS.format(name=trap, types=types, result=result)
            world.connection.execute(statement.encode())
        world.connection.execute("RESET ROLE")
        set_for_database(world.connection, "search_path", "public, pg_catalog")
        migrate(database_url)
        migrate(database_url, check=True)
        assert collect_through(world).status == "ok"
        context = world.context(world.at(MINUTE + 1))
        assert reconcile(context).status == "ok"
        assert audit(context).violations == 0
        status(context, max_lag_seconds=1e9)
    finally:
        world.connection.execute("RESET ROLE")
        set_for_database(world.connection, "search_path", "pg_catalog")
        world.connection.execute(f"DROP OWNED BY {name}_intruder CASCADE".encode())
        world.connection.execute(f"DROP ROLE {name}_intruder".encode())


def test_an_empty_database_is_migrated_under_peculiar_defaults(empty_database_url: str) -> None:
    """The owner's role may have defaults of its own, too."""
    make_peculiar(empty_database_url)
    migrate(empty_database_url)
    assert migrate(empty_database_url, check=True).from_revision is not None


def make_peculiar(database_url: str) -> None:
    """Give a database defaults that no session of ours may have."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, value in PECULIAR.items():
            set_for_database(connection, name, value)


def set_for_database(connection: Connection[Any], name: str, value: str) -> None:
    """Set what later sessions of a database begin with."""
    quoted = value if name == "search_path" else f"'{value}'"
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET {name} = {quoted}".encode())


def test_a_duplicate_is_reported_without_the_keys_of_its_row(database_url: str) -> None:
    """The line names constraint and table; what stands in the row is nobody's business."""

    def insert_twice(connection: Connection) -> None:
        for _ in range(2):
            connection.execute(
                "INSERT INTO public.billing_source_sync_state (source_id) VALUES ('a-customer')"
            )

    with Session(Database(database_url)) as session, pytest.raises(BillingError) as caught:
        session.transaction(insert_twice)
    text = str(caught.value)
    assert "billing_source_sync_state_pkey" in text
    assert "public.billing_source_sync_state" in text
    assert "a-customer" not in text
    assert caught.value.code == "database_constraint"


def test_a_value_that_can_not_be_read_is_not_repeated(database_url: str) -> None:
    """PostgreSQL quotes it in its message."""
    work = "SELECT 'a-customer'::uuid"
    with Session(Database(database_url)) as session, pytest.raises(BillingError) as caught:
        session.read(lambda connection: connection.execute(work))
    assert "a-customer" not in str(caught.value)


def test_a_transaction_timeout_of_the_server_is_a_timeout(database_url: str) -> None:
    """PostgreSQL 17 and newer end a transaction that takes longer than its administrator allows."""

    def linger(connection: Connection) -> None:
        if connection.info.server_version < 170000:
            pytest.skip("PostgreSQL 17 and newer have a transaction timeout")
        connection.execute("SET LOCAL transaction_timeout = '50ms'")
        connection.execute("SELECT pg_sleep(30)")

    with Session(Database(database_url)) as session, pytest.raises(BillingError) as caught:
        session.transaction(linger)
    assert (caught.value.code, caught.value.exit_code) == ("database_timeout", 1)
