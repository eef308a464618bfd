"""SIGTERM and SIGINT: the open transaction is rolled back, and the exit code tells which it was."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.database.schema import WAIT_FOR_OTHER_MIGRATIONS
from tests.cli.command import ended, wait_until

if TYPE_CHECKING:
    from tests.cli.command import Site

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
JOBS = pytest.mark.parametrize("job", ["collect", "catch-up", "reconcile"])

COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%%'
   AND wait_event_type = 'Lock'
"""
COUNT_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%%'
"""


@SIGNALS
@JOBS
def test_a_run_that_waits_for_an_exporter_ends_at_once(
    site: Site, job: str, number: signal.Signals
) -> None:
    """Nothing is open yet, and nothing is stored."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    before = site.world.tables()
    exporter = site.world.running["us-1"]
    exporter.requests.clear()
    exporter.latency_seconds = 3600
    process = site.start(job, "--json")
    wait_until(lambda: exporter.requests, process)
    process.send_signal(number)
    finished = ended(process)
    assert finished.code == 128 + number
    assert finished.result["status"] == "error"
    assert finished.result["error"]
    assert "Traceback" not in finished.stderr
    assert site.world.tables() == before


@SIGNALS
@pytest.mark.parametrize("job", ["collect", "catch-up"])
def test_a_run_in_the_middle_of_its_transaction_is_rolled_back(
    site: Site, database_url: str, job: str, number: signal.Signals
) -> None:
    """Usage is written, the ledger is not; then nothing is there, and the next run does it all."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    before = site.world.tables()
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE public.billing_ledger IN SHARE ROW EXCLUSIVE MODE")
        process = site.start(job)
        wait_until(lambda: site.world.rows(COUNT_WAITING) != [(0,)], process)
        process.send_signal(number)
        finished = ended(process)
    assert finished.code == 128 + number
    assert "Traceback" not in finished.stderr
    wait_for_sessions_to_end(site)
    assert site.world.tables() == before
    assert site.billing("collect").code == 0
    site.world.assert_all_is_billed()


@SIGNALS
@pytest.mark.parametrize("command", ["status", "migrate"])
def test_other_commands_end_as_well(
    site: Site, database_url: str, command: str, number: signal.Signals
) -> None:
    """Also where they wait for a lock."""
    site.has_two_nodes()
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE billing.alembic_version, billing.sources")
        other.execute(WAIT_FOR_OTHER_MIGRATIONS)
        process = site.start(command)
        wait_until(lambda: site.world.rows(COUNT_WAITING) != [(0,)], process)
        process.send_signal(number)
        finished = ended(process)
    assert finished.code == 128 + number
    assert "Traceback" not in finished.stderr


def test_the_steps_that_a_catch_up_has_done_stand(site: Site) -> None:
    """One transaction each: those before the signal are there, and the next call goes on."""
    site.has_two_nodes()
    site.extra["BILLING_STEP_MAX_SAMPLES"] = "4"
    site.extra["BILLING_PAGE_LIMIT"] = "2"
    process = site.start("catch-up", "--json")
    wait_until(lambda: site.world.billed_bytes()[0] > 0, process)
    for source_id in ("jp-1", "us-1"):
        site.world.running[source_id].latency_seconds = 3600
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 143
    site.world.check()
    part, _ = site.world.billed_bytes()
    for source_id in ("jp-1", "us-1"):
        site.world.running[source_id].latency_seconds = 0
    assert site.billing("catch-up").code == 0
    assert site.world.billed_bytes()[0] > part > 0
    site.world.assert_all_is_billed()


def wait_for_sessions_to_end(site: Site) -> None:
    """Wait until the server has noticed that the command is gone."""
    while site.world.rows(COUNT_SESSIONS) != [(0,)]:
        time.sleep(0.01)
