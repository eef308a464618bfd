"""With --json, stdout holds one object with all contracted keys; all else goes to stderr."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from billing_cli.cli.root import Options
from billing_cli.cli.running import run_job
from billing_cli.core.times import parse_rfc3339
from billing_cli.database.sources import add_sources, try_lock_sources
from billing_cli.errors import EXIT_CODES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from billing_cli.core.result import RunResult
    from billing_cli.jobs.context import JobContext
    from tests.cli.command import Finished, Site

RUN_KEYS = {
    "job", "run_id", "status", "started_at", "finished_at", "processed_samples",
    "written_minutes", "replayed_minutes", "charged_bytes", "amount", "corrections", "error",
    "sources",
}  # fmt: skip
SOURCE_KEYS = {
    "source_id", "status", "node_id", "env", "snapshots", "last_completed_until", "lag_seconds",
    "resets", "gaps", "rejected_samples", "unresolved_streams", "held_deltas", "error",
}  # fmt: skip
COUNTS = ("processed_samples", "written_minutes", "replayed_minutes", "charged_bytes")

JOBS = pytest.mark.parametrize("job", ["collect", "catch-up", "reconcile"])


@JOBS
def test_a_good_run_is_one_object_with_all_keys(site: Site, job: str) -> None:
    """Each of the kind that the contract says; the log carries the same run id, as JSON."""
    site.has_two_nodes()
    site.world.quota = 0
    site.world.run_unchecked(site.world.at(2))
    finished = site.billing(job, "--json")
    result = finished.result
    assert_contracted(result, job)
    assert (finished.code, result["status"], result["error"]) == (0, "ok", None)
    assert [one["source_id"] for one in result["sources"]] == ["jp-1", "us-1"]
    assert result["sources"][0]["node_id"] == "jp-1.svc.plus"
    assert result["sources"][0]["env"] == "prod"
    assert finished.log[-1]["event"] == "run finished"
    assert {(line["job"], line["run_id"]) for line in finished.log} == {(job, result["run_id"])}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("migrate --sql --json", "--json and --sql exclude each other"),
        ("collect --json=1", "--json"),
        ("seal --json keygen --out {}/key", "options of `billing seal keygen` after its name"),
        ("statement a@b.c --month 2026-04 --json --format csv", "--json and --format csv exclude"),
    ],
)
def test_json_with_what_prints_no_object_is_a_usage_error(
    site: Site, tmp_path: Path, command: str, reason: str
) -> None:
    """That error is the one object; nothing is written."""
    finished = site.billing(*command.format(tmp_path).split())
    assert finished.code == 2
    assert reason in finished.result["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_the_result_is_what_the_run_history_keeps(site: Site) -> None:
    """Under the same run id, word for word."""
    site.has_two_nodes()
    result = site.billing("collect", "--json").result
    (kept,) = site.world.rows("SELECT run_id::text, result FROM billing.runs")
    assert kept[0] == result["run_id"]
    assert {**kept[1], "finished_at": ""} == {**result, "finished_at": ""}


def test_the_figures_are_those_of_the_ledger(site: Site) -> None:
    """Minutes, bytes and money of a run are what it wrote."""
    site.has_two_nodes()
    result = site.billing("collect", "--json").result
    minutes, charged, amount = site.world.rows(
        "SELECT count(*), sum(rated_bytes)::bigint, -sum(amount_delta) FROM billing.charges"
    )[0]
    assert result["written_minutes"] == minutes > 0
    assert result["charged_bytes"] == charged > 0
    assert Decimal(result["amount"]) == amount > 0


def no_database(site: Site) -> int:
    """Nobody listens."""
    site.extra["DATABASE_URL"] = "postgresql://postgres@127.0.0.1:1/account"
    return 69


def no_configuration(site: Site) -> int:
    """A key has a wrong value."""
    site.extra["PRICE_PER_BYTE"] = "cheap"
    return 78


def no_source(site: Site) -> int:
    """None is configured."""
    site.extra["EXPORTER_SOURCES_JSON"] = "[]"
    return 78


def all_refused(site: Site) -> int:
    """All exporters are down."""
    for source_id in ("jp-1", "us-1"):
        site.world.running[source_id].refused = True
    return 69


def all_wrong(site: Site) -> int:
    """All exporters answer nonsense."""
    for source_id in ("jp-1", "us-1"):
        site.world.running[source_id].body = b"nonsense"
    return 1


def one_wrong(site: Site) -> int:
    """One exporter answers nonsense."""
    site.world.running["us-1"].body = b"nonsense"
    return 3


@pytest.mark.parametrize(
    ("job", "failure"),
    [
        ("collect", no_database),
        ("collect", no_configuration),
        ("collect", no_source),
        ("collect", all_refused),
        ("collect", all_wrong),
        ("collect", one_wrong),
        ("catch-up", no_database),
        ("catch-up", one_wrong),
        ("reconcile", no_database),
        ("reconcile", one_wrong),
    ],
)
def test_a_failed_run_is_one_object_with_all_keys(
    site: Site, job: str, failure: Callable[[Site], int]
) -> None:
    """The reason is in it, as one line."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    code = failure(site)
    finished = site.billing(job, "--json")
    assert finished.code == code
    assert_contracted(finished.result, job)
    sources = finished.result["sources"]
    error = finished.result["error"] or {"message": None}
    reasons = [error["message"], *(source["error"] for source in sources)]
    assert all((source["error"] is None) == (source["error_code"] is None) for source in sources)
    assert any(reasons)
    assert all("\n" not in (reason or "") for reason in reasons)
    assert "Traceback" not in finished.stderr


def test_a_busy_run_is_one_object_with_all_keys(site: Site) -> None:
    """Each source says that it is busy."""
    site.has_two_nodes()
    with psycopg.connect(site.world.database_url) as other:
        add_sources(other, ["jp-1", "us-1"])
        other.commit()
        try_lock_sources(other, ["jp-1", "us-1"])
        finished = site.billing("collect", "--json")
    assert finished.code == 75
    assert_contracted(finished.result, "collect")
    assert [one["status"] for one in finished.result["sources"]] == ["busy", "busy"]


def test_an_error_that_nobody_thought_of_is_one_object_as_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, job_url: str
) -> None:
    """It is a bug, and reported as one line on stderr; whoever reads stdout is told even so."""
    monkeypatch.setenv("DATABASE_URL", job_url)

    def work(_context: JobContext) -> RunResult:
        raise ZeroDivisionError

    with pytest.raises(SystemExit) as ended:
        run_job(Options(None, "error", "json"), "collect", as_json=True, work=work)
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert "this is a bug in billing" in captured.err
    result = json.loads(captured.out)
    assert_contracted(result, "collect")
    assert result["error"] == {
        "code": "unexpected",
        "message": "unexpected ZeroDivisionError",
    }


def test_an_unknown_source_is_one_object_with_all_keys(site: Site) -> None:
    """Wrong usage that only the configuration tells."""
    site.has_two_nodes()
    finished = site.billing("collect", "--source", "x", "--json")
    assert finished.code == 2
    assert_contracted(finished.result, "collect")


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_other_commands_print_one_object_as_well(site: Site, command: str) -> None:
    """Where all is well, and where the database is not there."""
    site.has_two_nodes()
    assert_one_object(site.billing(command, "--json"), command)
    site.extra["DATABASE_URL"] = "postgresql://postgres@127.0.0.1:1/account"
    finished = site.billing(command, "--json")
    assert finished.code == 69
    assert_one_object(finished, command)
    assert finished.result["error"]["code"] == "database_unavailable"


def assert_one_object(finished: Finished, command: str) -> None:
    """There is one object, about that command."""
    assert finished.result["job"] == command
    assert "error" in finished.result


def assert_contracted(result: dict[str, Any], job: str) -> None:
    """Every key is there, with a value of its kind."""
    assert result.keys() >= RUN_KEYS
    assert result["job"] == job
    assert str(UUID(result["run_id"])) == result["run_id"]
    assert result["status"] in {"ok", "partial", "error", "busy"}
    assert parse_rfc3339(result["started_at"]) <= parse_rfc3339(result["finished_at"])
    assert all(type(result[key]) is int for key in COUNTS)
    assert type(result["amount"]) is str
    Decimal(result["amount"])
    if result["error"] is not None:
        assert result["error"].keys() == {"code", "message"}
        assert result["error"]["code"] in EXIT_CODES
        assert "\n" not in result["error"]["message"]
    for source in result["sources"]:
        assert source.keys() >= SOURCE_KEYS
        assert source["last_completed_until"] is None or parse_rfc3339(
            source["last_completed_until"]
        )
        assert source["lag_seconds"] is None or source["lag_seconds"] >= 0
