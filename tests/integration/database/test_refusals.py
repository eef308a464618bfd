"""Whatever PostgreSQL refuses: the right exit code, one clear line, nothing half-written."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.database.connecting import Database
from billing_cli.database.connection import Session
from billing_cli.database.sources import try_lock_sources
from billing_cli.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_UNAVAILABLE, BillingError
from tests.integration.database.stage import (
    PASSWORD,
    assert_heals,
    collect_through,
    failure_of,
    with_parameters,
)
from tests.integration.jobs.faults import accept_again, refuse_some_times
from tests.support.relay import relayed

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

# The server's word for each failure, by what becomes of the run.
SQLSTATES = {
    EXIT_FAILED: {
        "25P03": "we paused in mid-transaction",
        "53100": "disk full",
        "53200": "out of memory",
        "53400": "temp_file_limit",
        "55P03": "lock timeout",
        "57014": "statement timeout, or cancelled",
        "58030": "input/output error",
        "XX000": "an error of the server's program",
        "XX001": "a damaged table",
    },
    EXIT_UNAVAILABLE: {
        "08006": "the connection failed",
        "25006": "read-only",
        "53300": "too many connections",
        "57P01": "shutdown by the administrator",
        "57P02": "another process crashed",
        "57P03": "starting up",
        "57P04": "the database was dropped",
        "57P05": "idle_session_timeout",
    },
    EXIT_CONFIG: {
        "3F000": "a schema is missing",
        "42501": "privileges are missing",
        "42703": "a column is missing",
        "42883": "a function is missing",
        "42P01": "a table is missing",
        "42P10": "a key of a shared table is missing",
    },
}

pytestmark = pytest.mark.usefixtures("no_pause")


@pytest.mark.parametrize("exit_code", SQLSTATES)
def test_each_error_of_the_server_has_its_exit_code(world: World, exit_code: int) -> None:
    """Raised in the midst of a transaction, as often as it is tried again."""
    for sqlstate, meaning in SQLSTATES[exit_code].items():
        refuse_some_times(world, sqlstate, times=3)
        failure = failure_of(world, lambda: collect_through(world))
        assert failure.exit_code == exit_code, (sqlstate, meaning)
        assert "simulated" in str(failure)
        accept_again(world)
        world.connection.execute("DROP SEQUENCE public.refusals")
    assert_heals(world)


UNQUALIFIED = """
CREATE FUNCTION public.count_buckets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN {body}; RETURN NEW; END $$;
CREATE TRIGGER counting AFTER INSERT ON public.traffic_minute_buckets
FOR EACH ROW EXECUTE FUNCTION public.count_buckets()
"""


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ("INSERT INTO bucket_counts VALUES (1)", 'relation "bucket_counts" does not exist'),
        ("PERFORM count_bucket(1)", "function count_bucket(integer) does not exist"),
    ],
)
def test_a_trigger_of_others_is_not_taken_for_our_schema(
    world: World, body: str, missing: str
) -> None:
    """The line names its function, and what to change there in place of `billing migrate`."""
    world.connection.execute(UNQUALIFIED.format(body=body).encode())
    failure = failure_of(world, lambda: collect_through(world))
    assert failure.exit_code == EXIT_CONFIG
    text = f"database: a trigger of another owner failed: {missing}, in public.count_buckets; "
    assert str(failure).startswith(text)
    assert "SET search_path" in str(failure)
    assert "billing migrate" not in str(failure)
    world.connection.execute("DROP FUNCTION public.count_buckets CASCADE")
    assert_heals(world)


def test_a_port_where_nobody_listens_is_unreachable(world: World) -> None:
    """The line says where, which is no secret."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        url = f"postgresql://billing:{PASSWORD}@127.0.0.1:{port}/account"
        failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure) == (
        f'database: connection to server at "127.0.0.1", port {port} failed: Connection refused; '
        "check that it runs and can be reached, and DATABASE_URL"
    )


def test_several_addresses_without_a_server_are_told_in_one_line(world: World) -> None:
    """The last one's failure stands for all of them."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        url = f"postgresql://billing:{PASSWORD}@127.0.0.1:{port},127.0.0.1:{port}/account"
        failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure).count("Connection refused") == 1


def test_a_missing_socket_is_unreachable(world: World) -> None:
    """As where the server on this machine is down."""
    url = "postgresql://billing@/account?host=/nowhere"
    failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert "failed: No such file or directory; check that it runs" in str(failure)


def test_a_server_that_never_greets_is_given_up_on(world: World) -> None:
    """Within the connect timeout, though the port is open."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://billing:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/account"
        failure = failure_of(world, lambda: collect_through(world, url, connect_timeout_seconds=2))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure) == "database: connection timeout expired"


@pytest.mark.parametrize(
    ("place", "seconds"),
    [("make_partitions", 1.5), ("pg_current_xact_id", 2)],
    ids=["reading", "writing"],
)
def test_a_server_that_falls_silent_is_given_up_on(
    world: World, place: str, seconds: float
) -> None:
    """While it reads or in mid-transaction: no word and no hanging up, as behind a dead tunnel."""
    released = threading.Event()
    with relayed(world.database_url) as relay:

        def hold(_place: int, statement: str) -> None:
            if place in statement:
                released.wait()

        relay.judge = hold
        limits = {"statement_timeout_seconds": seconds, "grace_seconds": 0.2}
        try:
            failure = failure_of(world, lambda: collect_through(world, relay.url, **limits))
        finally:
            released.set()
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure) == "database: the server has stopped answering"
    assert sum("pg_current_xact_id" in one for one in relay.statements) <= 1
    assert_heals(world)


def test_reading_does_not_wait_for_ever_either(world: World) -> None:
    """What is read before exporters are asked is cancelled where a table stays locked."""
    with psycopg.connect(world.connection.info.dsn) as other:
        other.execute("LOCK TABLE billing.alembic_version IN ACCESS EXCLUSIVE MODE")
        limits = {"statement_timeout_seconds": 1.0, "lock_timeout_seconds": 20}
        with pytest.raises(BillingError) as caught:
            collect_through(world, **limits, grace_seconds=2)
    assert caught.value.exit_code == EXIT_FAILED
    assert str(caught.value) == "database: canceling statement due to statement timeout"
    assert_heals(world)


def test_a_lock_that_others_hold_too_long_fails_the_run(world: World) -> None:
    """Someone has the sources' sync states under lock and does not let go."""
    with psycopg.connect(world.connection.info.dsn) as other:
        other.execute("SELECT FROM public.billing_source_sync_state FOR UPDATE")
        failure = failure_of(world, lambda: collect_through(world, lock_timeout_seconds=0.2))
    assert failure.exit_code == EXIT_FAILED
    assert str(failure) == "database: canceling statement due to lock timeout"
    assert_heals(world)


def test_a_lock_that_a_trigger_waits_for_in_vain_fails_the_run(world: World) -> None:
    """To look for a source to blame would take as long again for each of them."""
    world.connection.execute("CREATE TABLE public.counts (total bigint)")
    world.connection.execute("INSERT INTO public.counts VALUES (0)")
    body = "UPDATE public.counts SET total = total + 1"
    trigger = UNQUALIFIED.format(body=body).replace("plpgsql", "plpgsql SECURITY DEFINER")
    world.connection.execute(trigger.encode())
    with psycopg.connect(world.connection.info.dsn) as other:
        other.execute("UPDATE public.counts SET total = 1")
        failure = failure_of(world, lambda: collect_through(world, lock_timeout_seconds=0.2))
    assert failure.exit_code == EXIT_FAILED
    assert failure.code == "database_timeout"
    world.connection.execute("DROP FUNCTION public.count_buckets CASCADE")
    assert_heals(world)


def test_a_statement_that_takes_too_long_fails_the_run(world: World) -> None:
    """The server ends it, and with it the transaction."""
    with psycopg.connect(world.connection.info.dsn) as other:
        other.execute("SELECT FROM public.account_quota_states FOR UPDATE")
        failure = failure_of(world, lambda: collect_through(world, statement_timeout_seconds=1.0))
    assert failure.exit_code == EXIT_FAILED
    assert str(failure) == "database: canceling statement due to statement timeout"
    assert_heals(world)


def test_an_unknown_database_is_a_wrong_configuration(world: World) -> None:
    """Nobody will create it within the minute."""
    url = with_parameters(world.database_url, dbname="nowhere")
    failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_CONFIG
    assert str(failure).endswith('FATAL: database "nowhere" does not exist')


def test_an_unknown_role_is_a_wrong_configuration(world: World) -> None:
    """The server says so, where it does not ask for a password first."""
    url = with_parameters(world.database_url, user="stranger")
    failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_CONFIG


def test_a_role_without_privileges_is_a_wrong_configuration(world: World) -> None:
    """The line names what it may not touch, and how to grant it."""
    role = world.connection.info.dbname + "_stranger"
    world.connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        url = with_parameters(world.database_url, user=role)
        failure = failure_of(world, lambda: collect_through(world, url))
    finally:
        world.connection.execute(f"DROP ROLE {role}".encode())
    assert failure.exit_code == EXIT_CONFIG
    assert "permission denied for schema billing" in str(failure)
    assert "`billing migrate --grant-to ROLE`" in str(failure)


def test_too_many_connections_are_an_outage(world: World) -> None:
    """The server is up, but has no room: the next run may find some."""
    database = world.connection.info.dbname
    world.connection.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 0".encode())
    failure = failure_of(world, lambda: collect_through(world))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure).endswith(f'FATAL: too many connections for database "{database}"')
    world.connection.execute(f"ALTER DATABASE {database} CONNECTION LIMIT -1".encode())
    assert_heals(world)


def test_a_database_set_to_be_read_only_is_an_outage(world: World) -> None:
    """As managed servers do to protect themselves, or during a failover."""
    database = world.connection.info.dbname
    setting = f"ALTER DATABASE {database} SET default_transaction_read_only"
    world.connection.execute(f"{setting} = on".encode())
    failure = failure_of(world, lambda: collect_through(world))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure).startswith("database: it is a replica, or set to be read-only: cannot")
    world.connection.execute(f"{setting} = off".encode())
    assert_heals(world)


def test_an_attempt_does_not_find_the_locks_of_the_one_before(world: World) -> None:
    """They are given back before the connection is, so that a run is not busy with itself."""
    attempts = 0

    def work(connection: psycopg.Connection) -> set[str]:
        nonlocal attempts
        attempts += 1
        locked = try_lock_sources(connection, ["jp-1"])
        if attempts % 3:
            raise psycopg.errors.SerializationFailure("simulated")
        return locked

    with Session(Database(world.database_url)) as session:
        for _ in range(10):
            assert session.transaction(work) == {"jp-1"}
    assert attempts == 30
