"""Locks: no role without privileges of ours can hold up billing, and who does is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from billing_cli.cli.running import exit_code_of
from billing_cli.database.schema import WAIT_FOR_OTHER_MIGRATIONS
from billing_cli.database.source_status import read_source_status
from billing_cli.errors import BillingError
from billing_cli.features.migrate import job as migrate_job
from billing_cli.features.status.findings import findings_of
from billing_cli.jobs.catch_up import catch_up

if TYPE_CHECKING:
    from tests.integration.jobs.world import World
    from tests.support.postgres import Databases

LOCK_SOURCES = "SELECT FROM billing.sources FOR UPDATE"

ADVISORY_KEYS = (27700462113877607, 27700462113877608)


def test_a_role_without_privileges_holds_up_no_run(
    world: World, database_url: str, databases: Databases
) -> None:
    """It takes every advisory lock there may be; the locks of runs are on rows of ours."""
    role = f"{databases.job_role}_stranger"
    world.add_node("jp-1", world.add_users(1))
    world.flow_until(5)
    world.connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        with psycopg.connect(make_conninfo(database_url, user=role)) as stranger:
            for key in ADVISORY_KEYS:
                stranger.execute("SELECT pg_advisory_lock(%s)", (key,))
            for table in ("billing.sources", "billing.charges", "billing.busy_sources"):
                for way in ("SELECT FROM {} FOR KEY SHARE", "LOCK TABLE {} IN SHARE MODE"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        stranger.execute(way.format(table).encode())
                    stranger.rollback()
            for name in partitions(world):
                world.connection.execute(f"DROP TABLE {name}".encode())
            result = world.run_unchecked(world.at(6))
        assert (result.status, result.written_minutes > 0) == ("ok", True)
        # The last month ahead is looked for in every run, and the others are made with it.
        assert len(partitions(world)) == 4
    finally:
        world.connection.execute(f"DROP ROLE {role}".encode())


def test_a_source_that_stays_locked_is_a_failure_that_names_the_holder(
    world: World, database_url: str
) -> None:
    """After ten minutes, in the result, the exit code and `status`; before, the run is busy."""
    world.add_node("jp-1", world.add_users(1))
    world.flow_until(40)
    world.run_unchecked(world.at(2))
    with psycopg.connect(database_url) as holder:
        holder.execute(LOCK_SOURCES)
        role, pid = holder.info.user, holder.info.backend_pid
        for minute in (3, 8, 13):
            result = world.run_unchecked(world.at(minute))
            assert (result.status, exit_code_of(result)) == ("busy", 75)
        for job in (None, catch_up):
            options = {} if job is None else {"job": job}
            result = world.run_unchecked(world.at(14), **options)
            assert (exit_code_of(result), result.error_code) == (1, "locked")
            assert result.error == (
                f"source jp-1 is locked for 11 minutes, by role {role} (pid {pid})"
            )
        assert attention(world) == [f"locked for 11 min, by role {role} (pid {pid})"]
    result = world.run(world.at(15))
    assert (result.status, attention(world)) == ("ok", [])


def test_what_was_busy_long_ago_does_not_count(world: World, database_url: str) -> None:
    """Where runs got through since, or where none came for an hour."""
    world.add_node("jp-1", world.add_users(1))
    world.flow_until(200)
    world.run_unchecked(world.at(1))

    def found_busy(minute: float) -> int:
        with psycopg.connect(database_url) as holder:
            holder.execute(LOCK_SOURCES)
            return exit_code_of(world.run_unchecked(world.at(minute)))

    assert found_busy(2) == 75
    assert world.run_unchecked(world.at(3)).status == "ok"
    assert found_busy(20) == 75
    assert found_busy(100) == 75
    assert found_busy(111) == 1


def test_other_sources_go_on_while_one_stays_locked(world: World, database_url: str) -> None:
    """The run is partial then."""
    users = world.add_users(1)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(20)
    world.run_unchecked(world.at(2))
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT FROM billing.sources WHERE source_id = 'jp-1' FOR UPDATE")
        world.run_unchecked(world.at(3))
        result = world.run_unchecked(world.at(14))
    assert {source.source_id: source.status for source in result.sources} == {
        "jp-1": "error",
        "us-1": "ok",
    }
    assert exit_code_of(result) == 3


@pytest.mark.parametrize("lock", [WAIT_FOR_OTHER_MIGRATIONS, "LOCK TABLE billing.alembic_version"])
def test_a_migration_waits_no_longer_than_its_timeout(
    monkeypatch: pytest.MonkeyPatch, database_url: str, lock: str
) -> None:
    """Whoever holds the lock, which any role can take, is named."""
    monkeypatch.setattr(migrate_job, "LOCK_TIMEOUT_SECONDS", 0.05)
    with psycopg.connect(database_url) as holder:
        holder.execute(lock.encode())
        expected = rf"lock timeout; tables are locked by role \w+ \(pid {holder.info.backend_pid}\)"
        with pytest.raises(BillingError, match=expected) as refused:
            migrate_job.migrate(database_url)
    assert refused.value.exit_code == 1


def partitions(world: World) -> list[str]:
    """Return the months' partitions of the charges."""
    query = (
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1"
    )
    rows: list[Any] = world.connection.execute(query, ("billing.charges",)).fetchall()
    return [name for (name,) in rows if not name.endswith("default")]


def attention(world: World) -> list[str]:
    """Return why `status` says that the source needs a look."""
    found = findings_of(read_source_status(world.connection, ["jp-1"]), (), 1e9)
    return [one.text for one in found if "locked" in one.text]
