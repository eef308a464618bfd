"""What agent-svc-plus relies on when it shells out to `billing reconcile --json`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.database.sources import add_sources, try_lock_sources
from tests.cli.command import Finished, ended, wait_until
from tests.integration.contracts.child import (
    minimal_environment,
    reconcile,
    spawn,
    start_below_a_parent,
    start_reconcile,
    start_without_streams,
    unprivileged_python,
)
from tests.integration.database.stage import eventually
from tests.integration.jobs.faults import refuse_some_times

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.integration.jobs.world import World

# The contracted keys, and what their values are.
KEYS: dict[str, Any] = {
    "job": str,
    "run_id": str,
    "status": str,
    "started_at": str,
    "finished_at": str,
    "processed_samples": int,
    "written_minutes": int,
    "replayed_minutes": int,
    "charged_bytes": int,
    "amount": str,
    "corrections": int,
    "error": (dict, type(None)),
    "sources": list,
}
SOURCE_KEYS: dict[str, Any] = {
    "source_id": str,
    "status": str,
    "node_id": str,
    "env": str,
    "snapshots": int,
    "last_completed_until": (str, type(None)),
    "lag_seconds": (float, type(None)),
    "resets": int,
    "gaps": int,
    "rejected_samples": int,
    "unresolved_streams": int,
    "held_deltas": int,
    "error": (str, type(None)),
}

COUNT_BLOCKED = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing reconcile'
   AND wait_event_type = 'Lock'
"""
COUNT_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing reconcile'
"""


def test_the_child_may_do_nothing_special(world: World) -> None:
    """It is not root's process, has no group, and stands in the root directory."""
    code = "import os; print(os.geteuid(), os.getgroups() if os.geteuid() else 0, os.getcwd())"
    finished = ended(spawn([unprivileged_python(), "-c", code], minimal_environment(world)))
    user, _, rest = finished.stdout.partition(" ")
    assert user != "0"
    assert rest.endswith(" /\n")
    assert os.geteuid() != 0 or rest.startswith("[]")


def test_0_where_all_is_compared_and_corrected(world: World) -> None:
    """Corrections are appended once; the next call finds nothing to do."""
    first = told(reconcile(world), 0, "ok")
    assert first["corrections"] > 0
    world.check()
    before = facts(world)
    second = told(reconcile(world), 0, "ok")
    assert second["corrections"] == 0
    assert facts(world) == before


def test_1_where_the_run_failed(world: World) -> None:
    """The database refuses to store it."""
    refuse_some_times(world, "XX000", times=9)
    before = facts(world)
    assert told(reconcile(world), 1, "error")["error"]["message"] == "database: simulated"
    assert facts(world) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--source", "nobody"), "unknown source nobody"),
        (("--sinse", "2026-04-08T12:00:00Z"), "No such option"),
    ],
    ids=["an unknown source", "no such option"],
)
def test_2_where_the_call_is_wrong(world: World, arguments: tuple[str, ...], reason: str) -> None:
    """Also where the command line can't even be read, there is one object."""
    assert reason in told(reconcile(world, *arguments), 2, "error")["error"]["message"]


def test_3_where_a_source_failed(world: World) -> None:
    """The other one is corrected."""
    world.running["us-1"].down = True
    result = told(reconcile(world), 3, "partial")
    assert {one["source_id"]: one["status"] for one in result["sources"]} == {
        "jp-1": "ok",
        "us-1": "error",
    }
    assert result["corrections"] > 0


def test_69_where_the_database_can_not_be_reached(world: World) -> None:
    """Nobody listens there."""
    elsewhere = {"DATABASE_URL": "postgresql://billing:s3cr3t@127.0.0.1:1/account"}
    finished = reconcile(world, environment=elsewhere)
    told(finished, 69, "error")
    assert "s3cr3t" not in finished.stdout + finished.stderr


def test_69_where_no_source_can_be_reached(world: World) -> None:
    """Every exporter is down."""
    for source_id in ("jp-1", "us-1"):
        world.running[source_id].down = True
    told(reconcile(world), 69, "error")


def test_75_where_another_run_is_at_it(world: World, database_url: str) -> None:
    """Both sources are locked by someone else's transaction."""
    with psycopg.connect(database_url) as other:
        add_sources(other, ["jp-1", "us-1"])
        other.commit()
        assert len(try_lock_sources(other, ["jp-1", "us-1"])) == 2
        told(reconcile(world), 75, "busy")


def test_78_where_the_configuration_is_wrong(world: World) -> None:
    """The key is named."""
    result = told(reconcile(world, environment={"PRICE_PER_BYTE": "much"}), 78, "error")
    assert "PRICE_PER_BYTE" in result["error"]["message"]


def test_78_where_the_schema_is_missing(world: World, empty_database_url: str) -> None:
    """Nobody has migrated that database yet."""
    finished = reconcile(world, environment={"DATABASE_URL": empty_database_url})
    assert "billing migrate" in told(finished, 78, "error")["error"]["message"]


def test_143_and_all_as_it_was_after_sigterm(world: World, database_url: str) -> None:
    """In mid-transaction: what was written is rolled back, the run history included."""
    before = world.tables()
    with psycopg.connect(database_url) as other:
        child = blocked(world, other, start_reconcile)
        child.send_signal(signal.SIGTERM)
        finished = ended(child)
        assert "SIGTERM" in told(finished, 143, "error")["error"]["message"]
        eventually(lambda: world.rows(COUNT_SESSIONS) == [(0,)])
    assert world.tables() == before
    assert told(reconcile(world), 0, "ok")["corrections"] > 0
    world.check()


def test_74_where_the_reader_is_gone(world: World, database_url: str) -> None:
    """Nobody reads the result any more; what was done is whole, and the exit code says so."""
    with psycopg.connect(database_url) as other:
        child = blocked(world, other, start_reconcile)
        assert child.stdout is not None
        child.stdout.close()
        other.rollback()
        assert child.stderr is not None
        log = child.stderr.read().decode()
        child.stderr.close()
    assert child.wait() == 74
    assert "Traceback" not in log
    assert_is_reconciled(world)


def test_a_parent_that_is_killed_leaves_a_whole_run(world: World, database_url: str) -> None:
    """The child comes to its end by itself: it neither hangs nor stops half-way."""
    with psycopg.connect(database_url) as other:
        parent = blocked(world, other, start_below_a_parent)
        parent.kill()
        parent.wait()
        other.rollback()
        # Both had this pipe, so that its end is the end of the child.
        finished = ended(parent)
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""
    assert_is_reconciled(world)


def test_closed_standard_streams_are_no_hindrance(world: World, database_url: str) -> None:
    """All three of them: no connection takes their numbers, and the work is done."""
    with psycopg.connect(database_url) as other:
        child = blocked(world, other, start_without_streams)
        opened = [Path(f"/proc/{child.pid}/fd/{number}").readlink() for number in range(3)]
        other.rollback()
        finished = ended(child)
    assert opened == [Path("/dev/null")] * 3
    assert (finished.code, finished.stdout, finished.stderr) == (0, "", "")
    assert_is_reconciled(world)


def told(finished: Finished, code: int, status: str) -> dict[str, Any]:
    """Return the one object that a child printed, which has all that it has to have."""
    assert finished.code == code, finished
    assert "Traceback" not in finished.stderr
    result = finished.result
    assert finished.stdout.count("\n") == 1
    for name, kind in KEYS.items():
        assert isinstance(result[name], kind), name
    for source in result["sources"]:
        for name, kind in SOURCE_KEYS.items():
            assert isinstance(source[name], kind), name
    assert (result["job"], result["status"]) == ("reconcile", status)
    return result


def blocked(
    world: World,
    other: psycopg.Connection[tuple[Any, ...]],
    start: Callable[[World], subprocess.Popen[bytes]],
) -> subprocess.Popen[bytes]:
    """Start a child and hold it up in mid-transaction, after its records and before its money."""
    other.execute("LOCK TABLE public.billing_ledger IN SHARE ROW EXCLUSIVE MODE")
    child = start(world)
    wait_until(lambda: world.rows(COUNT_BLOCKED) == [(1,)], child)
    return child


def assert_is_reconciled(world: World) -> None:
    """Everything is as it should be, so that another run finds nothing to do."""
    eventually(lambda: world.rows(COUNT_SESSIONS) == [(0,)])
    world.check()
    assert told(reconcile(world), 0, "ok")["corrections"] == 0


def facts(world: World) -> dict[str, Any]:
    """Return every row but those of the run history."""
    run_history = ("billing.runs", "billing.totals")
    return {name: rows for name, rows in world.tables().items() if name not in run_history}
