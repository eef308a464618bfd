"""Runs that fail at the database's hands, and what they leave behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from billing_cli.database.connecting import Database
from billing_cli.errors import BillingError
from billing_cli.jobs.collect import collect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from billing_cli.core.result import RunResult
    from tests.integration.jobs.world import World

PASSWORD = "s3cr3t-of-the-database"
MINUTE = 6.0

COUNT_BLOCKED = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing' AND wait_event_type = 'Lock'
"""

# A session that the server has not missed yet may still hold the source.
COUNT_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing'
"""

# What a failed run may leave: that it was there.
JOURNAL = {"billing.runs", "billing.totals"}


def behind(world: World) -> None:
    """Give one node and two users a history of which the last minutes are still to be collected."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(5)
    world.run(world.at(4))


def collect_through(world: World, url: str | None = None, **limits: Any) -> RunResult:
    """Run `collect` over another way to the database, or with other limits."""
    now = world.at(MINUTE)
    world.fleet.present = now
    database = Database(url or world.database_url, **limits)
    return collect(replace(world.context(now), database=database))


def failure_of(world: World, work: Callable[[], object]) -> BillingError:
    """Do work that must fail with one clear line, and leave everything as it was."""
    before = facts(world)
    with pytest.raises(BillingError) as caught:
        work()
    assert facts(world) == before
    assert_is_one_clear_line(str(caught.value))
    return caught.value


def assert_is_one_clear_line(text: str) -> None:
    """It has a beginning that says what it is about, and nothing that is nobody's business."""
    assert text.startswith(("database: ", "DATABASE_URL: ", "the database"))
    assert text.isprintable()
    assert "postgresql://" not in text
    assert PASSWORD not in text


def assert_heals(world: World) -> None:
    """Once the fault is gone the next run brings everything up to date, each byte once."""
    eventually(lambda: world.rows(COUNT_SESSIONS) == [(0,)])
    world.run(world.at(MINUTE + 2))
    world.assert_all_is_billed()


def facts(world: World) -> dict[str, Any]:
    """Return every row but those of the run history."""
    return {name: rows for name, rows in world.tables().items() if name not in JOURNAL}


def with_parameters(url: str, **parameters: Any) -> str:
    """Return the connection string with other parameters; None takes one away."""
    given = conninfo_to_dict(url) | parameters
    return make_conninfo(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def blocked(world: World, work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Start work in the midst of whose transaction the block is; it goes on after the block."""
    with (
        ThreadPoolExecutor(1) as thread,
        psycopg.connect(world.connection.info.dsn) as other,
    ):
        other.execute("LOCK TABLE billing.charges IN ACCESS EXCLUSIVE MODE")
        running = thread.submit(work)
        try:
            wait_until_blocked(world, running)
            yield running
        finally:
            with_rollback(other)


def wait_until_blocked(world: World, running: Future[Any]) -> None:
    """Wait until a run waits for a lock; one that ends before fails the test."""
    eventually(lambda: running.done() or world.rows(COUNT_BLOCKED) == [(1,)])
    assert not running.done(), running.result()


def with_rollback(connection: psycopg.Connection[Any]) -> None:
    """Let go of all locks, unless the server has done so already."""
    if not connection.closed and not connection.broken:
        try:
            connection.rollback()
        except psycopg.OperationalError:
            return


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that is about to happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
