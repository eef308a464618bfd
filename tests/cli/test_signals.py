"""Signals that end a run: the open transaction is rolled back, the exit code tells which it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.database.schema import WAIT_FOR_OTHER_MIGRATIONS
from tests.cli.command import PYTHON_PATH, ended, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.command import Site

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP

COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%%'
   AND wait_event_type = 'Lock'
"""
COUNT_SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%%'
"""


@pytest.fixture(autouse=True)
def _nothing_ignored() -> Iterator[None]:
    """Tests that are run by `nohup` would hand on that hangups are ignored."""
    before = signal.signal(HUP, signal.SIG_DFL)
    yield
    signal.signal(HUP, before)


@pytest.mark.parametrize(
    ("job", "number"), [("collect", TERM), ("collect", INT), ("catch-up", TERM), ("reconcile", HUP)]
)
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


@pytest.mark.parametrize(("job", "number"), [("collect", TERM), ("catch-up", INT)])
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


@pytest.mark.parametrize(("command", "number"), [("status", INT), ("migrate", TERM)])
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


# Ctrl-C in the middle of the imports.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from billing_cli.__main__ import main
main()
"""


def test_a_signal_during_the_imports_is_told_in_one_line() -> None:
    """Whoever changes their mind at once sees no traceback."""
    finished = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", INTERRUPTED, "status"],
        env=PYTHON_PATH,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (128 + INT, "")
    assert finished.stderr == "Error: ended by SIGINT; nothing was done\n"


def wait_for_sessions_to_end(site: Site) -> None:
    """Wait until the server has noticed that the command is gone."""
    while site.world.rows(COUNT_SESSIONS) != [(0,)]:
        time.sleep(0.01)
