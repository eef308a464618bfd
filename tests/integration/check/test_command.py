"""`billing check` as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.simulator.server import Endpoint, serve
from billing_cli.simulator.traffic import Fleet
from tests.support.forks import Ended, run_forked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from billing_cli.simulator.server import RunningFleet
    from tests.support.authority import Authority

CHECKOUT = Path(__file__).parents[3]
TOKEN = "m4rk3r-s3cr3t-t0k3n"


def test_a_fleet_that_is_all_right_ends_with_0(job_url: str, authority: Authority) -> None:
    """Over TLS and with a token; every source has its findings."""
    with fleet(authority) as running:
        done = billing("check", "--json", **settings(running, job_url))
    assert done.code == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["job"], report["status"], report["error"]) == ("check", "ok", None)
    # A machine that stalls looks like a clock that differs; that is a warning at most.
    assert {one["state"] for one in report["findings"] if one["name"] != "clock"} == {"ok"}
    told = {(one["source_id"], one["name"]) for one in report["findings"]}
    assert {("jp-1", "certificate"), ("us-1", "certificate"), (None, "schema")} <= told
    assert TOKEN not in done.stdout + done.stderr


def test_a_source_that_needs_a_look_ends_with_3(job_url: str, authority: Authority) -> None:
    """The others are told of as well, and only those that are asked for."""
    with fleet(authority) as running:
        running["us-1"].down = True
        variables = settings(running, job_url)
        everything = billing("check", "--json", **variables)
        one = billing("check", "--json", "--source", "jp-1", **variables)
    assert (everything.code, one.code) == (3, 0)
    report = json.loads(everything.stdout)
    assert report["status"] == "attention"
    failed = [one["source_id"] for one in report["findings"] if one["state"] == "failed"]
    assert failed == ["us-1"]
    asked = {load["source_id"] for load in json.loads(one.stdout)["findings"]}
    assert asked == {None, "jp-1"}


def test_each_source_s_limits_are_shown(job_url: str, authority: Authority) -> None:
    """Those in effect: its own, else those of all."""
    with fleet(authority) as running:
        own = {"line_rate_bits_per_second": 1_000_000_000, "max_daily_charge": "7.5"}
        variables = settings(running, job_url, **own)
        done = billing("check", "--json", BILLING_MAX_STREAMS_PER_ACCOUNT="300", **variables)
    shown = [load for load in json.loads(done.stdout)["findings"] if load["name"] == "limits"]
    assert [one["source_id"] for one in shown] == ["jp-1", "us-1"]
    for text in (
        "line_rate_bits_per_second 1000000000 (its own)",
        "max_daily_charge 7.5 (its own)",
        "account_rate_bits_per_second 2000000000,",
        "max_streams_per_account 300,",
    ):
        assert text in shown[0]["text"]


@pytest.mark.parametrize(
    ("arguments", "variables", "exit_code"),
    [
        (["--source", "mars"], {}, 2),
        ([], {"DATABASE_URL": "postgresql://billing@127.0.0.1:1/account"}, 69),
        ([], {"BILLING_PAGE_LIMIT": "many"}, 78),
        ([], {"EXPORTER_SOURCES_JSON": '[{"source_id": "a", "base_url": "ftp://a"}]'}, 78),
        ([], {"EXPORTER_BASE_URL": ""}, 78),
    ],
)
def test_what_stands_in_the_way_has_its_exit_code(
    job_url: str, arguments: list[str], variables: dict[str, str], exit_code: int
) -> None:
    """One JSON object each time, whose error says what it is; without --json, a line."""
    world = {"DATABASE_URL": job_url, "EXPORTER_BASE_URL": "http://127.0.0.1:1"} | variables
    done = billing("check", "--json", *arguments, **world)
    report = json.loads(done.stdout)
    assert (done.code, report["status"]) == (exit_code, "error")
    assert report["error"]
    plain = billing("check", *arguments, **world)
    assert plain.code == exit_code
    assert report["error"]["message"] in plain.stdout + plain.stderr


def test_a_missing_file_stops_the_sources_and_not_the_rest(
    job_url: str, authority: Authority, tmp_path: Path
) -> None:
    """A run would end with 3 for it: the other sources and the database are fine."""
    with fleet(authority) as running:
        variables = settings(running, job_url, ca_bundle=str(tmp_path / "missing.pem"))
        done = billing("check", "--json", **variables)
    assert done.code == 3
    findings = json.loads(done.stdout)["findings"]
    failed = [finding["text"] for finding in findings if finding["state"] == "failed"]
    assert failed
    assert all("missing.pem" in text for text in failed)


def test_a_database_that_is_behind_ends_with_78(
    empty_database_url: str, authority: Authority
) -> None:
    """And says what to do."""
    with fleet(authority) as running:
        done = billing("check", "--json", **settings(running, empty_database_url))
    assert done.code == 78
    assert "run `billing migrate`" in json.loads(done.stdout)["error"]["message"]


@contextmanager
def fleet(authority: Authority) -> Iterator[RunningFleet]:
    """Serve two nodes over TLS, one of which wants a token; both have a history up to now."""
    start = datetime.now(UTC) - timedelta(minutes=5)
    told = Fleet(seed=3, start=start)
    for source_id in ("jp-1", "us-1"):
        told.add_node(source_id).run(datetime.now(UTC), poll_seconds=5)
    with serve(
        told,
        ssl_context=authority.server_context("127.0.0.1"),
        ca_bundle=authority.bundle,
        endpoints={"jp-1": Endpoint(token=TOKEN)},
    ) as running:
        yield running


def test_a_misspelt_variable_is_a_warning(job_url: str, authority: Authority) -> None:
    """On stderr, as for every command, and among the findings."""
    with fleet(authority) as running:
        done = billing("check", "--json", **settings(running, job_url), SOURCE_REVISON="v2")
    assert done.code == 0, done.stdout + done.stderr
    line = "SOURCE_REVISON (environment): ignored (did you mean SOURCE_REVISION?)"
    findings = json.loads(done.stdout)["findings"]
    assert ("warning", line) in [(finding["state"], finding["text"]) for finding in findings]
    assert line in done.stderr


def settings(running: RunningFleet, database_url: str, **extra: Any) -> dict[str, str]:
    """Return the environment in which the fleet is billed; `extra` are keys of every source."""
    return {
        "DATABASE_URL": database_url,
        "PRICE_PER_BYTE": "1e-9",
        "EXPORTER_SOURCES_JSON": json.dumps(running.sources(**extra)),
        **running.credentials(),
    }


def billing(*arguments: str, **variables: str) -> Ended:
    """Run a command to its end, without a terminal."""
    return run_forked(arguments, environment(variables))


def on_terminal(*arguments: str, **variables: str) -> str:
    """Run a command whose output is a terminal, and return what it showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "billing_cli", *arguments]
    with subprocess.Popen(  # noqa: S603 - our own program
        command,
        env=environment(variables),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ):
        os.close(theirs)
        shown = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            while True:
                try:
                    piece = terminal.read(65536)
                except OSError:  # The other end was closed.
                    break
                if not piece:
                    break
                shown += piece
    return shown.decode()


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with these variables and none that is about colours or billing."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BILLING_", "NO_COLOR", "FORCE_COLOR"))
    }
    return kept | {"PYTHONPATH": str(CHECKOUT)} | variables
