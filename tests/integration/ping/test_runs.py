"""Which runs call the dead-man switch, and what becomes of its address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from billing_cli.config.settings import load_settings
from billing_cli.database.connection import Session
from billing_cli.database.sources import try_lock_sources
from tests.integration.ping.test_pinger import KEY, paths
from tests.unit.config.support import error_of
from tests.unit.exporter.servers import Server, Visit, answering, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.story import Story

SECRET = f"https://ping.example/{KEY}"


@pytest.fixture
def switch() -> Iterator[Server]:
    """Return a dead-man switch."""
    with serving(answering(b"OK")) as running:
        yield running


@pytest.fixture
def ready(story: Story) -> Story:
    """Return a story with something to collect from."""
    story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.collect()
    return story


def ping_url(switch: Server) -> str:
    """Return the address that is a secret."""
    return f"{switch.url}/{KEY}"


def test_a_collect_tells_its_begin_and_its_exit_status(ready: Story, switch: Server) -> None:
    """Once each."""
    done = ready.billing("collect", BILLING_PING_URL=ping_url(switch))
    assert done.exit_code == 0
    assert paths(switch) == [f"/{KEY}/start", f"/{KEY}/0"]


def test_a_partial_run_tells_success(ready: Story, switch: Server) -> None:
    """Or else a node that is down would hide that the timer is gone."""
    ready.add_node("us-1")
    ready.minute()
    ready.running["us-1"].refused = True
    done = ready.billing("collect", BILLING_PING_URL=ping_url(switch))
    assert done.exit_code == 3
    assert paths(switch) == [f"/{KEY}/start", f"/{KEY}/0"]


def test_a_run_that_fails_tells_its_exit_status(ready: Story, switch: Server) -> None:
    """The service takes it as a failure."""
    nowhere = "postgresql://127.0.0.1:1/account"
    done = ready.billing("collect", BILLING_PING_URL=ping_url(switch), DATABASE_URL=nowhere)
    assert done.exit_code == 69
    assert paths(switch) == [f"/{KEY}/start", f"/{KEY}/69"]


def test_a_busy_run_tells_no_end(ready: Story, switch: Server) -> None:
    """It is neither a failure nor a success: whoever is at it will tell, or be missed."""
    with Session(ready.context().database) as session:

        def hold(connection: object) -> None:
            try_lock_sources(connection, ["jp-1"])  # type: ignore[arg-type]
            done = ready.billing("collect", BILLING_PING_URL=ping_url(switch))
            assert done.exit_code == 75

        session.transaction(hold)
    assert paths(switch) == [f"/{KEY}/start"]


def test_a_run_that_is_ended_by_a_signal_tells_it(story: Story, switch: Server) -> None:
    """Its exit status is 128 and the signal."""
    hanging = threading.Event()

    def hang(visit: Visit) -> None:
        hanging.set()
        visit.hang()

    with serving(hang) as exporter:
        environment = {
            **os.environ,
            "DATABASE_URL": story.job_url,
            "PRICE_PER_BYTE": "1e-9",
            "EXPORTER_BASE_URL": exporter.url,
            "BILLING_PING_URL": ping_url(switch),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "billing_cli", "collect"],
            env=environment,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert hanging.wait(60)
            process.send_signal(signal.SIGTERM)
            process.wait()
    assert paths(switch) == [f"/{KEY}/start", f"/{KEY}/143"]


@pytest.mark.parametrize(
    "arguments", [("collect", "--dry-run"), ("catch-up",), ("reconcile",), ("status",)]
)
def test_only_collect_pings(ready: Story, switch: Server, arguments: tuple[str, ...]) -> None:
    """What an operator does by hand must not look like the timer."""
    ready.billing(*arguments, BILLING_PING_URL=ping_url(switch))
    assert switch.heads == []


def test_a_switch_that_hangs_changes_nothing_about_the_run(ready: Story) -> None:
    """The run ends as it would without it, and says so in the log, without the address."""
    with serving(Visit.hang) as switch:
        done = ready.billing(
            "--log-level", "debug", "collect", "--json", BILLING_PING_URL=ping_url(switch)
        )
    assert (done.exit_code, done.json["status"]) == (0, "ok")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    failed = [line for line in lines if line["event"] == "ping failed"]
    assert failed
    assert {line["level"] for line in failed} == {"warning"}
    assert all("no answer in time" in line["error"] for line in failed)
    assert KEY not in done.stdout + done.stderr


def test_the_address_may_be_a_credential(ready: Story, switch: Server, tmp_path: Path) -> None:
    """So that it need not stand in the unit or in the configuration."""
    (tmp_path / "ping-url").write_text(f"{ping_url(switch)}\n", encoding="utf-8")
    done = ready.billing(
        "collect",
        BILLING_PING_URL_REF="credential:ping-url",
        CREDENTIALS_DIRECTORY=str(tmp_path),
    )
    assert done.exit_code == 0
    assert len(switch.heads) == 2


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://ping.example/0b5f4e8a", "http is for loopback hosts only (use https)"),
        ("ping.example/0b5f4e8a", "must begin with https:// (or http://)"),
        ("https://me:0b5f4e8a@ping.example", "must not hold a user name or password"),
        ("https://ping.example/?key=0b5f4e8a", "must not hold a query or a fragment"),
        ("https://ping.example/0b5f4e8a\x7f", "must be a URL in ASCII, without white space"),
    ],
)
def test_a_wrong_address_is_an_error_that_does_not_repeat_it(url: str, reason: str) -> None:
    """The error names the key."""
    text = error_of(None, {"BILLING_PING_URL": url})
    assert text.startswith(f"BILLING_PING_URL (environment): {reason}")
    assert "0b5f4e8a" not in text


def test_loopback_needs_no_encryption() -> None:
    """A relay on the same machine may carry the call on."""
    settings = load_settings(None, {"BILLING_PING_URL": "http://127.0.0.1:8000/x/"})
    assert settings.ping_url is not None
    assert settings.ping_url.get_secret_value() == "http://127.0.0.1:8000/x"
