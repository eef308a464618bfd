"""No secret in any output, however much is logged."""

from __future__ import annotations

import os
from itertools import cycle
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.postgres import URL_VARIABLE

if TYPE_CHECKING:
    from tests.cli.command import Finished, Site

TOKEN = "marker-token-0123456789abcdef"
OWN_TOKEN = "marker-own-token-0123456789"
PASSWORD = "marker-password-0123456789"

COMMANDS = (
    ("collect",),
    ("collect", "--json"),
    ("collect", "--dry-run"),
    ("catch-up",),
    ("reconcile", "--json"),
    ("status",),
    ("status", "--json"),
    ("migrate", "--check"),
    ("collect", "--source", "nobody"),
)


@pytest.fixture
def guarded(site: Site) -> Site:
    """Return a site whose sources demand tokens, and whose database a password."""
    site.has_two_nodes()
    site.world.running["us-1"].token = OWN_TOKEN
    site.world.overrides["jp-1"] = {"auth_mode": "bearer"}
    site.extra["INTERNAL_SERVICE_TOKEN"] = TOKEN
    site.extra["BILLING_LOG_LEVEL"] = "debug"
    if URL_VARIABLE not in os.environ:
        # The embedded server trusts everyone, whatever the password.
        parts = urlsplit(site.world.database_url)
        netloc = f"{parts.username}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"
        site.extra["DATABASE_URL"] = parts._replace(netloc=netloc).geturl()
    return site


def test_no_command_shows_a_secret(guarded: Site) -> None:
    """Whether it succeeds or not, at debug level, in either format."""
    for command, log_format in zip(COMMANDS, cycle(["console", "json"]), strict=False):
        finished = guarded.billing("--log-format", log_format, *command)
        assert finished.code in {0, 2, 3}, finished
        assert_no_secret(guarded, finished)


def test_an_exporter_that_sends_the_token_back_shows_no_secret(guarded: Site) -> None:
    """In a node's name, a cursor, a stamp or a status line."""
    body = b'{"node_id":"%b","env":"prod","snapshots":[{"collected_at":"%b"}]}'
    guarded.world.running["jp-1"].body = body.replace(b"%b", TOKEN.encode())
    guarded.world.running["us-1"].body = b"Bearer " + OWN_TOKEN.encode()
    finished = guarded.billing("collect")
    assert finished.code == 1
    assert_no_secret(guarded, finished)


def test_refused_credentials_show_no_secret(guarded: Site) -> None:
    """Neither the one that was sent nor the one that was wanted."""
    guarded.world.running["us-1"].token = "marker-another"
    guarded.extra["SIMULATOR_TOKEN_US_1"] = OWN_TOKEN
    finished = guarded.billing("collect", "--json")
    assert finished.source("us-1")["error"] == "HTTP 401: the exporter refuses the credentials"
    assert_no_secret(guarded, finished)


@pytest.mark.parametrize(
    ("command", "url"),
    [
        (("collect",), f"postgresql://postgres:{PASSWORD}@127.0.0.1:1/account"),
        (("collect", "--json"), f"postgresql://postgres:{PASSWORD}@127.0.0.1:port/account"),
        (("migrate",), f"host=127.0.0.1 port=1 password={PASSWORD}"),
        (("status", "--json"), f"host=127.0.0.1 port=1 pass={PASSWORD}"),
        (("catch-up",), f"mysql://user:{PASSWORD}@db/account"),
    ],
)
def test_a_wrong_database_url_shows_no_secret(
    guarded: Site, command: tuple[str, ...], url: str
) -> None:
    """Not even where it can't be understood."""
    guarded.extra["DATABASE_URL"] = url
    finished = guarded.billing(*command)
    assert finished.code in {69, 78}, finished
    assert_no_secret(guarded, finished)


def assert_no_secret(site: Site, finished: Finished) -> None:
    """Neither what was written nor what was stored holds one."""
    stored: list[Any] = site.world.rows("SELECT runs::text FROM billing.runs AS runs")
    stored += site.world.rows("SELECT state::text FROM public.billing_source_sync_state AS state")
    everything = f"{finished.stdout}{finished.stderr}{stored}"
    assert "marker" not in everything
