"""PgBouncer in transaction mode and stunnel, the real programs, between a run and its database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.errors import EXIT_CONFIG, EXIT_UNAVAILABLE
from billing_cli.features.migrate.job import migrate
from billing_cli.features.status.job import status
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.reconcile import reconcile
from tests.integration.database.stage import (
    assert_heals,
    blocked,
    collect_through,
    failure_of,
    with_parameters,
)
from tests.support.pgbouncer import pooled
from tests.support.stunnel import far_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.world import World

# What a session could leave to whoever gets it next.
READ_LEFTOVERS = """
SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
       current_setting('idle_in_transaction_session_timeout'), current_setting('work_mem'),
       (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')
"""

pytestmark = pytest.mark.usefixtures("no_pause")


def test_every_job_works_through_a_pooler(world: World, database_url: str) -> None:
    """In transaction mode, with a single session for all of them, and nothing left in it."""
    with (
        pooled(world.database_url, pool_size=1) as url,
        psycopg.connect(url, autocommit=True) as other,
        jobs_over(world, url),
    ):
        fresh = other.execute(READ_LEFTOVERS).fetchone()
        live_a_life(world)
        assert other.execute(READ_LEFTOVERS).fetchone() == fresh
    with pooled(database_url, pool_size=1) as url:
        assert migrate(url).from_revision == migrate(url, check=True).to_revision


def test_jobs_share_a_pooler_with_others(world: World) -> None:
    """Transactions of somebody else, with other settings, come and go in between."""
    with pooled(world.database_url, pool_size=1) as url, jobs_over(world, url):
        with psycopg.connect(url) as other:
            other.execute("SET LOCAL lock_timeout = 1")
            other.execute("SET LOCAL TimeZone = 'Asia/Kathmandu'")
        assert world.run(world.at(8)).status == "ok"
        world.assert_all_is_billed()


def test_a_pooler_without_a_free_session_is_an_outage(world: World) -> None:
    """The run does not wait for ever, and leaves the queue."""
    with pooled(world.database_url, pool_size=1) as url, psycopg.connect(url) as other:
        other.execute("SELECT 1")
        limits = {"statement_timeout_seconds": 0.3, "grace_seconds": 0.2}
        failure = failure_of(world, lambda: collect_through(world, url, **limits))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert_heals(world)


def test_a_pooler_that_does_not_know_the_database_is_a_wrong_configuration(world: World) -> None:
    """As where its list of databases was forgotten."""
    with pooled(world.database_url) as url:
        elsewhere = with_parameters(url, dbname="nowhere")
        failure = failure_of(world, lambda: collect_through(world, elsewhere))
    assert failure.exit_code == EXIT_CONFIG


def test_a_pooler_without_a_server_behind_it_is_an_outage(world: World) -> None:
    """Whatever the pooler says about it, or if it says nothing."""
    nowhere = with_parameters(world.database_url, host="/nowhere")
    with pooled(nowhere, is_up=False) as url:
        failure = failure_of(world, lambda: collect_through(world, url, connect_timeout_seconds=2))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert_heals(world)


@pytest.mark.parametrize("postgresql", [False, True], ids=["tls", "starttls"])
def test_every_job_works_through_stunnel(world: World, postgresql: bool) -> None:
    """Both ways to speak: TLS from the first byte on, and PostgreSQL's own way to ask for it."""
    with (
        far_end(world.database_url, postgresql=postgresql) as far,
        far.near_end() as (_, url),
        jobs_over(world, url),
    ):
        live_a_life(world)


def test_a_pooler_behind_stunnel_works_too(world: World) -> None:
    """The longest way that a deployment takes."""
    with (
        pooled(world.database_url, pool_size=1) as pool_url,
        far_end(pool_url) as far,
        far.near_end() as (_, url),
        jobs_over(world, url),
    ):
        assert world.run(world.at(8)).status == "ok"
        world.assert_all_is_billed()


def test_a_tunnel_whose_far_end_is_down_is_an_outage(world: World) -> None:
    """The near end accepts the connection, and hangs up."""
    with far_end(world.database_url) as far, far.near_end() as (_, url):
        far.end.stop()
        failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert_heals(world)


def test_a_tunnel_to_somebody_else_is_an_outage(world: World) -> None:
    """The near end finds another name in the certificate than it was told, and hangs up."""
    with far_end(world.database_url) as far, far.near_end("other.example.net") as (_, url):
        failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == EXIT_UNAVAILABLE


def test_a_tunnel_that_breaks_in_mid_transaction_leaves_nothing(world: World) -> None:
    """What the run had written is rolled back, and the next run does it again."""
    with far_end(world.database_url) as far, far.near_end() as (near, url):

        def broken() -> None:
            with blocked(world, lambda: collect_through(world, url)) as running:
                near.stop()
                error = running.exception()
                assert error is not None
                raise error

        failure = failure_of(world, broken)
    assert failure.exit_code == EXIT_UNAVAILABLE
    assert_heals(world)


def test_tls_is_verified_as_the_connection_string_says(world: World) -> None:
    """sslmode=verify-full with the right authority and the right name is a good line."""
    with far_end(world.database_url, postgresql=True) as far:
        url = far.url(sslmode="verify-full", sslrootcert=far.ca_bundle)
        with jobs_over(world, url):
            assert world.run(world.at(8)).status == "ok"
    world.assert_all_is_billed()


@pytest.mark.parametrize(
    ("host", "authority", "exit_code", "reason"),
    [
        ("localhost", "{own}", EXIT_UNAVAILABLE, 'does not match host name "localhost"'),
        ("127.0.0.1", "system", EXIT_UNAVAILABLE, "certificate verify failed"),
        ("127.0.0.1", "/nowhere/ca.pem", EXIT_CONFIG, "/nowhere/ca.pem"),
    ],
    ids=["another name", "an authority that is not trusted", "a bundle that is missing"],
)
def test_tls_that_can_not_be_verified_is_no_line(
    world: World, host: str, authority: str, exit_code: int, reason: str
) -> None:
    """Nothing is sent to whom sslmode=verify-full does not trust; the line says why."""
    with far_end(world.database_url, postgresql=True) as far:
        url = far.url(
            host=host, sslmode="verify-full", sslrootcert=authority.format(own=far.ca_bundle)
        )
        failure = failure_of(world, lambda: collect_through(world, url))
    assert failure.exit_code == exit_code
    assert reason in str(failure)


def test_tls_that_the_server_does_not_speak_is_a_wrong_configuration(world: World) -> None:
    """As where sslmode=require is left in place through a tunnel to a server without TLS."""
    with far_end(world.database_url) as far, far.near_end() as (_, url):
        encrypted = with_parameters(url, sslmode="require")
        failure = failure_of(world, lambda: collect_through(world, encrypted))
    assert failure.exit_code == EXIT_CONFIG
    assert "server does not support SSL, but SSL was required" in str(failure)


def live_a_life(world: World) -> None:
    """Collect, fall behind, catch up in steps, reconcile and look at it."""
    assert world.run(world.at(6)).status == "ok"
    world.flow_until(10)
    world.fetching = type(world.fetching)(step_max_samples=4, page_limit=2)
    caught_up = world.run(world.at(12), catch_up)
    assert (caught_up.status, caught_up.steps > 1) == ("ok", True)
    reconciled = world.run(world.at(12), reconcile)
    assert (reconciled.status, reconciled.corrections) == ("ok", 0)
    context = world.context(world.at(12))
    assert not status(context, max_lag_seconds=600).needs_attention
    world.assert_all_is_billed()


@contextmanager
def jobs_over(world: World, url: str) -> Iterator[None]:
    """Let the jobs take another way to the database."""
    direct, world.database_url = world.database_url, url
    try:
        yield
    finally:
        world.database_url = direct
