"""What becomes of a run when the server itself goes: a server of its own for these tests."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from billing_cli.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_UNAVAILABLE
from billing_cli.features.migrate.job import migrate
from billing_cli.features.status.job import status
from billing_cli.simulator.postgres import EmbeddedPostgres, start_postgres
from tests.integration.database.stage import (
    MINUTE,
    PASSWORD,
    assert_heals,
    behind,
    blocked,
    collect_through,
    eventually,
    failure_of,
    with_parameters,
)
from tests.integration.jobs.world import serving_world
from tests.support.disks import small_disk
from tests.support.relay import Relay, relayed
from tests.support.standby import can_copy, server_directory, standby_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.world import World

TEMPLATE = "migrated"
ROLE = "billing_jobs"

# Whoever comes as this role is asked for its password; a second one is turned away.
ACCESS_RULES = f"""
local all {ROLE} scram-sha-256
local all turned_away reject
"""

SMALL_DISK_BYTES = 1024 * 1024

pytestmark = pytest.mark.usefixtures("no_pause")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """Return a server that tests may stop, with a migrated database to copy."""
    with server_directory() as made:
        started = start_postgres(made, durable=False)
        execute(started, f"CREATE DATABASE {TEMPLATE}")
        # PostgreSQL 13 would store it in another form than ACCESS_RULES ask for.
        execute(
            started,
            "SET password_encryption = 'scram-sha-256';"
            f" CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'",
        )
        migrate(started.url(TEMPLATE), grant_to=ROLE)
        yield started


@pytest.fixture
def world(server: EmbeddedPostgres) -> Iterator[World]:
    """Return a fleet that is two minutes behind, in a database of its own."""
    name = f"account_{next(NUMBERS)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    # What was committed survives a crash of the server, though not one of the machine.
    execute(server, f"ALTER DATABASE {name} SET synchronous_commit = on")
    url = server.url(name)
    with serving_world(url, url) as made:
        behind(made)
        yield made
        made.connection.close()
    execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


NUMBERS = count()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_stops_in_mid_transaction_leaves_nothing(
    world: World, server: EmbeddedPostgres, mode: str
) -> None:
    """Orderly or as in a crash: the run ends as an outage, and the next one does it all."""

    def stopped() -> None:
        with blocked(world, lambda: collect_through(world)) as running:
            server.run("pg_ctl", "stop", "--wait", "--silent", f"--mode={mode}")
            error = running.exception()
        start_again(server, world)
        assert error is not None
        raise error

    failure = failure_of(world, stopped)
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert_heals(world)


def test_a_server_that_shuts_down_is_an_outage(world: World, server: EmbeddedPostgres) -> None:
    """It lets nobody in any more, while others finish what they are at."""
    server.run("pg_ctl", "stop", "--no-wait", "--silent", "--mode=smart")
    failure = failure_of(world, lambda: collect_through(world))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure).endswith("FATAL: the database system is shutting down")
    world.connection.close()
    eventually(lambda: not server.is_running())
    start_again(server, world)
    assert_heals(world)


def test_a_restart_between_two_runs_is_not_noticed(world: World, server: EmbeddedPostgres) -> None:
    """The next run finds everything where it was."""
    server.stop()
    start_again(server, world)
    assert_heals(world)


def test_a_standby_is_an_outage_and_can_be_looked_at(
    world: World, server: EmbeddedPostgres
) -> None:
    """Nothing can be written there, but `status` needs to read only."""
    database = world.connection.info.dbname
    if not can_copy(server):
        pytest.skip("this PostgreSQL came without pg_basebackup")
    with standby_of(server) as standby:
        url = standby.url(database)
        failure = failure_of(world, lambda: collect_through(world, url))
        world.database_url, direct = url, world.database_url
        seen = status(world.context(world.at(MINUTE)), max_lag_seconds=600)
        world.database_url = direct
        # A string that names both finds the one that takes writes.
        both = with_parameters(
            direct,
            host=f"{standby.directory},{server.directory}",
            target_session_attrs="read-write",
        )
        assert collect_through(world, both).status == "ok"
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert str(failure).startswith("database: it is a replica, or set to be read-only: cannot")
    assert [source.watermark for source in seen.sources] == [world.watermarks["jp-1"]]
    assert_heals(world)


def test_a_commit_that_a_failover_has_lost_is_made_again(
    world: World, server: EmbeddedPostgres
) -> None:
    """The promoted replica never heard of the transaction: the run repeats it there, and is ok."""
    with lagging_standby_of(server) as standby, relayed(world.database_url) as relay:
        both = failing_over(world, server, standby, relay, at="COMMIT")
        assert collect_through(world, both).status == "ok"
        assert not server.is_running()
        world.database_url = standby.url(world.connection.info.dbname)
        reconnect(world)
        assert_heals(world)
        world.connection.close()


def test_an_answer_from_beyond_what_a_failover_has_lost_is_not_used(
    world: World, server: EmbeddedPostgres
) -> None:
    """What lies before it would be billed in one minute; the next run asks for it, and bills it."""
    with lagging_standby_of(server) as standby, relayed(world.database_url) as relay:
        before = dict(world.watermarks)
        world.run(world.at(6))
        world.flow_until(MINUTE)
        both = failing_over(world, server, standby, relay, at="pg_current_xact_id")
        failed = collect_through(world, both).sources[0].error or ""
        assert failed.startswith("the database has lost commits: the watermark was 2026-")
        world.database_url = standby.url(world.connection.info.dbname)
        world.watermarks = before
        reconnect(world)
        assert_heals(world)
        world.connection.close()


@contextmanager
def lagging_standby_of(server: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """Run a replica that receives nothing any more; afterwards the server runs again."""
    if not can_copy(server):
        pytest.skip("this PostgreSQL came without pg_basebackup")
    with standby_of(server) as standby:
        execute(standby, "ALTER SYSTEM SET primary_conninfo = ''")
        execute(standby, "SELECT pg_reload_conf()")
        with psycopg.connect(standby.url(), autocommit=True) as connection:
            query = "SELECT 1 FROM pg_stat_wal_receiver"
            eventually(lambda: connection.execute(query).fetchone() is None)
        yield standby
    start_postgres(server.directory, durable=False)


def failing_over(
    world: World, server: EmbeddedPostgres, standby: EmbeddedPostgres, relay: Relay, *, at: str
) -> str:
    """Return a string that names both servers: the second one is promoted in mid-transaction.

    That is at a statement of the first transaction that writes, told by a part of its text.
    """

    def judge(place: int, statement: str) -> Literal["cut"] | None:
        is_writing = "pg_current_xact_id" in "".join(relay.statements[: place + 1])
        if at not in statement or not is_writing or not server.is_running():
            return None
        server.run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
        standby.run("pg_ctl", "promote", "--wait", "--silent")
        return "cut"

    relay.judge = judge
    return with_parameters(
        standby.url(world.connection.info.dbname),
        host=f"127.0.0.1,{socket_of(standby)}",
        port=f"{urlsplit(relay.url).port},5432",
        target_session_attrs="read-write",
    )


def test_a_wrong_password_is_a_wrong_configuration(world: World, server: EmbeddedPostgres) -> None:
    """Also a missing one, and a role that the server turns away; the right one is let in."""
    right = with_parameters(world.database_url, user=ROLE, password=PASSWORD)
    with access_rules(server):
        for parameters, reason in (
            ({"password": PASSWORD + "-not"}, f'password authentication failed for user "{ROLE}"'),
            ({"password": None}, "fe_sendauth: no password supplied"),
            ({"user": "turned_away"}, "pg_hba.conf rejects connection"),
        ):
            url = with_parameters(right, **parameters)
            failure = failure_of(world, lambda url=url: collect_through(world, url))
            assert failure.exit_code == EXIT_CONFIG
            assert reason in str(failure)
        world.database_url = right
        assert_heals(world)


def test_a_full_disk_fails_the_run(world: World, server: EmbeddedPostgres) -> None:
    """A real one, of a megabyte: the run fails, and is made up for once there is room again."""
    world.flow_until(60)
    with small_disk(server.directory, SMALL_DISK_BYTES) as disk:
        if disk is None:
            pytest.skip("only root may mount a small disk")
        database = world.connection.info.dbname
        execute(server, f"CREATE TABLESPACE small LOCATION '{disk}'")
        try:
            fill(world)
            failure = failure_of(world, lambda: world.run_unchecked(world.at(62)))
            assert failure.exit_code == EXIT_FAILED
            assert "No space left on device" in str(failure)
            world.connection.execute("DROP TABLE public.filler")
            world.run(world.at(62))
            world.assert_all_is_billed()
        finally:
            world.connection.close()
            # The disk can't go while something lies on it.
            execute(server, f"DROP DATABASE {database} WITH (FORCE)")
            execute(server, "DROP TABLESPACE small")


def fill(world: World) -> None:
    """Move the buckets to the small disk, and fill it up."""
    world.connection.execute("ALTER TABLE public.traffic_minute_buckets SET TABLESPACE small")
    world.connection.execute("CREATE TABLE public.filler (filler text) TABLESPACE small")
    world.connection.execute("ALTER TABLE public.filler ALTER filler SET STORAGE PLAIN")
    for _ in range(2 * SMALL_DISK_BYTES // 8000):
        try:
            world.connection.execute("INSERT INTO public.filler VALUES (repeat('x', 8000))")
        except psycopg.errors.DiskFull:
            return
    pytest.fail("the disk is larger than it should be")


def start_again(server: EmbeddedPostgres, world: World) -> None:
    """Start the server after it was stopped."""
    start_postgres(server.directory, durable=False)
    reconnect(world)


def reconnect(world: World) -> None:
    """Give the world a new connection in place of one that has been lost."""
    world.connection.close()
    world.connection = psycopg.connect(world.database_url, autocommit=True)


@contextmanager
def access_rules(server: EmbeddedPostgres) -> Iterator[None]:
    """Let the server ask for passwords as long as the block lasts."""
    path = server.data / "pg_hba.conf"
    before = path.read_text()
    path.write_text(ACCESS_RULES + before)
    server.run("pg_ctl", "reload", "--silent")
    stranger = with_parameters(server.url(), user="turned_away")
    eventually(lambda: "rejects" in refusal(stranger))
    try:
        yield
    finally:
        path.write_text(before)
        server.run("pg_ctl", "reload", "--silent")


def socket_of(server: EmbeddedPostgres) -> str:
    """Return the directory of a server's socket, which stands for its host."""
    return str(conninfo_to_dict(server.url())["host"])


def refusal(url: str) -> str:
    """Return why nobody is let in by a connection string."""
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(url)
    return str(caught.value)


def execute(server: EmbeddedPostgres, statement: str) -> None:
    """Do one thing that concerns the whole server."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement.encode())
