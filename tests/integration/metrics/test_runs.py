"""What runs leave in the metrics file, whichever way they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from billing_cli import logs
from billing_cli.cli import observers, textfile
from billing_cli.cli.root import Options
from billing_cli.cli.running import run_job
from billing_cli.core.result import RunResult
from billing_cli.database.connection import Session
from billing_cli.database.sources import try_lock_sources
from billing_cli.errors import InterruptedBySignalError
from billing_cli.jobs import metrics
from billing_cli.jobs.run_history import record_run
from tests.integration.metrics.support import read, samples_of
from tests.support.story import START
from tests.unit.exporter.servers import serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.story import Story

NOWHERE = "postgresql://127.0.0.1:1/account"
DATABASE_METRICS = ("billing_source_up", "billing_runs_total", "billing_samples_total")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the metrics go."""
    return tmp_path / "billing.prom"


def billed(story: Story) -> None:
    """Bill two minutes of one stream: 300 bytes, of which 100 are included."""
    story.quota = 100
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 100, 50))
    story.minute((stream, 100, 50))
    story.collect()


def test_a_run_leaves_what_the_database_knows(story: Story, path: Path) -> None:
    """Totals of all runs, whoever ran them, and the state of each source."""
    billed(story)
    before = time.time()
    done = story.billing("collect", BILLING_METRICS_FILE=str(path))
    found = read(path)
    assert (done.exit_code, found["billing_database_up",]) == (0, 1)
    expected = {
        "billing_runs_total": 2,
        "billing_failed_runs_total": 0,
        "billing_samples_total": 3,
        "billing_minute_buckets_total": 2,
        "billing_included_bytes_total": 100,
        "billing_charged_bytes_total": 200,
        "billing_charged_amount_total": 0.2,
        "billing_returned_amount_total": 0,
        "billing_run_success": 1,
    }
    assert {name: found[name, "collect"] for name in expected} == expected
    assert before <= found["billing_run_end_timestamp_seconds", "collect"] <= time.time()
    assert found["billing_run_status", "collect", "ok"] == 1
    assert found["billing_run_status", "collect", "error"] == 0
    watermark = found["billing_source_watermark_timestamp_seconds", "jp-1"]
    assert watermark == (START + timedelta(minutes=2)).timestamp()
    lag = found["billing_source_lag_seconds", "jp-1"]
    assert before <= watermark + lag <= time.time()
    assert found["billing_source_up", "jp-1"] == 1
    assert found["billing_source_gaps", "history_lost", "jp-1"] == 0
    assert found["billing_source_info", "window", "prod", "jp-1.svc.plus", "jp-1"] == 1


def test_every_job_that_writes_leaves_the_whole_file(story: Story, path: Path) -> None:
    """The file of a reconcile also tells of the last collect, and the other way round."""
    billed(story)
    for job in ("reconcile", "catch-up", "collect"):
        assert story.billing(job, BILLING_METRICS_FILE=str(path)).exit_code == 0
    found = read(path)
    assert {key[1] for key in found if key[0] == "billing_run_success"} == {
        "collect",
        "catch-up",
        "reconcile",
    }


def test_a_source_that_fails_is_seen(story: Story, path: Path) -> None:
    """With no other source left, the run failed; when one last succeeded is still known."""
    billed(story)
    gone = json.dumps([{"source_id": "jp-1", "base_url": "http://127.0.0.1:1"}])
    done = story.billing("collect", BILLING_METRICS_FILE=str(path), EXPORTER_SOURCES_JSON=gone)
    found = read(path)
    assert done.exit_code == 69
    assert found["billing_database_up",] == 1
    assert found["billing_source_up", "jp-1"] == 0
    assert found["billing_run_success", "collect"] == 0
    assert found["billing_run_status", "collect", "error"] == 1
    assert found["billing_failed_runs_total", "collect"] == 1
    assert ("billing_run_last_success_timestamp_seconds", "collect") in found


def test_without_the_database_only_the_run_itself_is_told_of(story: Story, path: Path) -> None:
    """What can't be known is absent; that the run failed, and why, is known."""
    billed(story)
    done = story.billing("collect", BILLING_METRICS_FILE=str(path), DATABASE_URL=NOWHERE)
    found = read(path)
    assert done.exit_code == 69
    assert found["billing_run_success", "collect"] == 0
    assert found["billing_database_up",] == 0
    assert {name for name, *_ in found}.isdisjoint(DATABASE_METRICS)
    assert ("billing_run_last_success_timestamp_seconds", "collect") not in found


def test_without_the_database_the_failure_of_another_job_stays(story: Story, path: Path) -> None:
    """A reconcile that fails too does not end the alert about collect."""
    billed(story)
    for job in ("collect", "reconcile"):
        story.billing(job, BILLING_METRICS_FILE=str(path), DATABASE_URL=NOWHERE)
    found = read(path)
    assert found["billing_run_success", "collect"] == 0
    assert found["billing_run_success", "reconcile"] == 0


def test_a_busy_run_is_no_failure(story: Story, path: Path) -> None:
    """Its status says what it was."""
    billed(story)
    with Session(story.context().database) as session:

        def hold(connection: object) -> None:
            try_lock_sources(connection, ["jp-1"])  # type: ignore[arg-type]
            done = story.billing("collect", BILLING_METRICS_FILE=str(path))
            assert done.exit_code == 75

        session.transaction(hold)
    found = read(path)
    assert found["billing_run_success", "collect"] == 1
    assert found["billing_run_status", "collect", "busy"] == 1


def test_an_audit_of_all_accounts_is_told_of(story: Story, path: Path) -> None:
    """What it found stays in the file when the next run leaves it anew."""
    billed(story)
    damage = "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + %s"
    story.connection.execute(damage, [1])
    found = story.billing("audit", BILLING_METRICS_FILE=str(path))
    assert found.exit_code == 3
    story.billing("collect", BILLING_METRICS_FILE=str(path))
    told = read(path)
    assert (told["billing_audit_violations",], told["billing_audit_notices",]) == (2, 0)
    assert told["billing_run_status", "audit", "partial"] == 1
    story.connection.execute(damage, [-1])


def test_an_audit_of_one_account_is_not(story: Story, path: Path) -> None:
    """It says nothing about the others."""
    billed(story)
    (account,) = (user.uuid for user in story.fleet.users)
    done = story.billing("audit", "--account", account, BILLING_METRICS_FILE=str(path))
    assert done.exit_code == 0
    assert not path.exists()
    assert story.rows("SELECT FROM billing.runs WHERE job = 'audit'") == []


def test_an_audit_that_may_not_write_is_an_audit_all_the_same(story: Story, path: Path) -> None:
    """An auditor's role may only read; that nothing is noted then is a warning."""
    billed(story)
    role = conninfo_to_dict(story.job_url)["user"]
    revoke = sql.SQL("REVOKE INSERT ON billing.totals FROM {}").format(sql.Identifier(str(role)))
    story.connection.execute(revoke)
    done = story.billing("audit", "--json", BILLING_METRICS_FILE=str(path))
    assert (done.exit_code, done.json["status"]) == (0, "ok")
    assert "audit not recorded" in done.stderr
    assert read(path)["billing_run_success", "audit"] == 1


@pytest.mark.parametrize("arguments", [("--dry-run",), ("--source", "mars-1")])
def test_what_is_no_run_leaves_nothing(
    story: Story, path: Path, arguments: tuple[str, ...]
) -> None:
    """Trying things out, or a typing error, must not look like a run of the timer."""
    billed(story)
    story.billing("collect", *arguments, BILLING_METRICS_FILE=str(path))
    assert not path.exists()


@pytest.mark.parametrize("place", ["nowhere/billing.prom", "."])
def test_a_file_that_can_not_be_written_is_a_warning(
    story: Story, tmp_path: Path, place: str
) -> None:
    """The run is what it was without it, and its output too."""
    billed(story)
    place = str(tmp_path / place)
    done = story.billing("collect", "--json", BILLING_METRICS_FILE=place)
    assert (done.exit_code, done.json["status"]) == (0, "ok")
    (line,) = [line for line in done.stderr.splitlines() if "metrics not written" in line]
    assert '"warning"' in line
    assert place in line


def test_a_run_that_is_ended_by_a_signal_says_so(story: Story, path: Path) -> None:
    """It does not ask the database any more, which may be what it was waiting for."""
    hanging = threading.Event()

    def hang(visit: object) -> None:
        hanging.set()
        visit.hang()  # type: ignore[attr-defined]

    with serving(hang) as exporter:
        environment = {
            **os.environ,
            "DATABASE_URL": story.job_url,
            "PRICE_PER_BYTE": "1e-9",
            "EXPORTER_BASE_URL": exporter.url,
            "BILLING_METRICS_FILE": str(path),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "billing_cli", "collect"],
            env=environment,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert hanging.wait(60)
            process.send_signal(signal.SIGTERM)
            process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    found = read(path)
    assert found["billing_run_success", "collect"] == 0
    assert "billing_database_up" not in {name for name, *_ in found}


def test_a_run_that_crashes_is_a_failed_one(
    story: Story, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was, the metrics file has it."""
    monkeypatch.setenv("DATABASE_URL", story.job_url)
    monkeypatch.setenv("BILLING_METRICS_FILE", str(path))
    monkeypatch.setattr(logs, "configure", lambda *_: None)

    def crash(_: object) -> NoReturn:
        raise ZeroDivisionError

    with pytest.raises(SystemExit):
        run_job(Options(None, None, None), "collect", as_json=False, work=crash)
    found = read(path)
    assert found["billing_run_status", "collect", "error"] == 1
    assert found["billing_database_up",] == 1


def test_a_database_that_does_not_answer_in_time_is_not_waited_for(
    story: Story, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the run itself knows is told without it."""
    monkeypatch.setattr(metrics, "MAX_STATEMENT_SECONDS", 0.05)
    context = story.context()
    with psycopg.connect(story.database_url) as other, other.transaction():
        other.execute("LOCK TABLE billing.totals")
        observers._write_metrics(path, context, RunResult("collect", "", "ok", START, START), None)
    found = read(path)
    assert found["billing_run_success", "collect"] == 1
    assert {name for name, *_ in found}.isdisjoint(DATABASE_METRICS)


def test_a_signal_at_the_end_does_not_change_how_the_run_ended(
    story: Story, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is committed and printed by then: only the telling stops."""

    def interrupted(*_: object) -> None:
        raise InterruptedBySignalError(signal.SIGTERM)

    monkeypatch.setattr(textfile, "replace_file", interrupted)
    watching = observers.Observers()
    watching._context, watching._metrics_file = story.context(), path
    watching.end(RunResult("collect", "", "ok", START, START), 0)
    assert not path.exists()


def test_counters_never_fall_when_runs_end_at_the_same_time(
    story: Story, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run can't overwrite what a later one has read with what it has read earlier."""
    written: list[float] = []

    def note(_: Path, content: bytes) -> None:
        written.append(samples_of(content.decode())["billing_runs_total", "collect"])

    monkeypatch.setattr(textfile, "replace_file", note)

    def many() -> None:
        for _ in range(8):
            context = story.context()
            result = RunResult("collect", context.run_id, "ok", START, START)
            with Session(context.database) as session:
                session.transaction(
                    lambda connection: record_run(context, connection, result)  # noqa: B023
                )
            observers._write_metrics(path, context, result, None)

    runs = [threading.Thread(target=many) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(written) == 24
    assert written == sorted(written)
    assert written[-1] == 24
