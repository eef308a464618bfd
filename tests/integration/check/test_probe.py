"""What asking an exporter shows, over real connections."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.model import NodeIdentity
from billing_cli.core.source_facts import Failure, SourceFacts
from billing_cli.exporter.credentials import SecretToken
from tests.integration.check.exporters import (
    NEWEST,
    NOW,
    OLDEST,
    exporter,
    probed,
    windowed,
)
from tests.unit.exporter.answers import encoded, page, snapshot
from tests.unit.exporter.servers import http, serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.authority import Authority

GOOD = exporter(window=windowed(OLDEST, NEWEST), latest=encoded(snapshot(NEWEST)), date=NOW)
MARKER = "m4rk3r-s3cr3t-t0k3n"


def test_a_windowed_exporter_shows_oldest_and_newest_snapshot() -> None:
    """It is asked for one snapshot of each, and its node is told, not judged."""
    with serving(GOOD) as server:
        facts = probed(server.url, expected_node_id="another")
    assert (facts.contract, facts.identity) == ("window", NodeIdentity("prod", "jp-1"))
    assert (facts.oldest_at, facts.newest_at) == (whole(OLDEST), whole(NEWEST))
    assert (facts.has_answered, facts.is_accepted, facts.failure) == (True, True, None)
    assert (facts.protocol, facts.is_exposed, facts.shown) == (None, False, ())
    assert len(server.heads) == 2
    assert "limit=1" in server.heads[0]


def test_an_exporter_without_window_speaks_the_other_contract() -> None:
    """A 404 at the windowed address is what tells."""
    with serving(exporter(latest=encoded(snapshot(NEWEST)))) as server:
        facts = probed(server.url)
    assert (facts.contract, facts.oldest_at) == ("latest", None)
    assert (facts.newest_at, facts.failure) == (whole(NEWEST), None)


def test_a_source_of_mode_latest_is_not_asked_for_its_window() -> None:
    """What is not used is not looked at."""
    with serving(GOOD) as server:
        assert probed(server.url, mode="latest").contract == "latest"
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    ("mode", "why"),
    [("window", 'set mode = "auto" or "latest"'), ("auto", "base_url leads elsewhere")],
)
def test_an_address_with_nothing_behind_it_is_a_failure(mode: Any, why: str) -> None:
    """404 wherever one asks."""
    with serving(exporter()) as server:
        facts = probed(server.url, mode=mode)
    assert facts.failure is not None
    assert facts.failure.stage == "answer"
    assert why in facts.failure.reason
    assert facts.contract is None


def test_a_window_alone_is_searched_for_its_newest_snapshot() -> None:
    """Page after page of the last minutes, where there is no latest snapshot to ask for."""
    stamps = [NOW - timedelta(seconds=5 * number) for number in reversed(range(150))]
    with serving(exporter(window=windowed(*stamps))) as server:
        facts = probed(server.url)
    assert (facts.oldest_at, facts.newest_at) == (whole(stamps[0]), whole(NOW))
    assert facts.failure is None


@pytest.mark.parametrize("stamps", [(), (OLDEST,)])
def test_a_window_without_recent_snapshots_tells_since_when(stamps: tuple[datetime, ...]) -> None:
    """The newest one is not made up."""
    with serving(exporter(window=windowed(*stamps))) as server:
        facts = probed(server.url)
    assert (facts.contract, facts.newest_at, facts.failure) == ("window", None, None)
    assert facts.searched_since is not None
    assert (facts.oldest_at is None) == (not stamps)


@pytest.mark.parametrize(
    ("window", "why"),
    [
        (b"<html>", "a web page, not JSON"),
        (encoded(page(has_more=True)), "has_more without a next_cursor"),
        (encoded(page(has_more=True, next_cursor="c")), "repeats a cursor"),
        (encoded(page([snapshot(OLDEST, node_id="jp-9")])), "its snapshots of"),
        (encoded(page([snapshot(NOW + timedelta(minutes=6))])), "more than 5 minutes ahead"),
    ],
)
def test_an_answer_that_no_run_would_use_is_a_failure(window: bytes, why: str) -> None:
    """The same decoding judges it."""
    with serving(exporter(window=window)) as server:
        facts = probed(server.url)
    assert facts.failure is not None
    assert facts.failure.stage == "answer"
    assert why in facts.failure.reason


def test_an_exporter_that_speaks_for_two_nodes_is_a_failure() -> None:
    """Its oldest snapshot is of another node than its newest."""
    latest = encoded(snapshot(NEWEST, node_id="jp-2"))
    with serving(exporter(window=windowed(OLDEST), latest=latest)) as server:
        facts = probed(server.url)
    assert facts.failure is not None
    assert "different nodes" in facts.failure.reason


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_refused_credentials_are_told_from_other_failures(status: str) -> None:
    """The connection is all right then."""
    with serving(lambda visit: visit.send(http(status=status))) as server:
        facts = probed(server.url, default_token=SecretToken(MARKER), auth_mode="bearer")
    assert facts.failure is not None
    assert facts.failure.stage == "authentication"
    assert (facts.has_answered, facts.is_accepted, facts.shown) == (True, False, ("shared token",))


def test_an_exporter_that_is_down_is_a_failed_connection() -> None:
    """Nothing answers there."""
    facts = probed("http://127.0.0.1:1")
    assert facts.failure is not None
    assert facts.failure.stage == "connection"
    assert not facts.has_answered


def test_credentials_that_cannot_be_read_are_a_failure(tmp_path: Path) -> None:
    """Nobody is connected to for that."""
    (tmp_path / "token").write_bytes(b"\xff")
    facts = probed("https://127.0.0.1:1", credential_ref=f"file:{tmp_path}/token")
    reason = f"credential_ref file:{tmp_path}/token: {tmp_path}/token: not UTF-8 text"
    assert facts == SourceFacts(failure=Failure("credentials", reason))


@pytest.mark.parametrize("seconds", [-400, -7, 0, 7, 400])
def test_the_clock_is_compared_by_the_date_of_the_answer(seconds: int) -> None:
    """Positive is ahead of us."""
    date = NOW + timedelta(seconds=seconds)
    with serving(exporter(latest=encoded(snapshot(NEWEST)), date=date)) as server:
        facts = probed(server.url)
    assert facts.clock_difference_seconds is not None
    # The answer takes a while on a busy machine, and a Date is cut to seconds.
    assert seconds - 15 < facts.clock_difference_seconds <= seconds + 0.5


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 08 Apr 2026 12:30:00 +0200", "\x80" * 90])
def test_a_date_that_is_none_tells_nothing(date: str) -> None:
    """Nor does it fail anything."""
    answer = http(encoded(snapshot(NEWEST)), headers={"Date": date})
    with serving(lambda visit: visit.send(answer)) as server:
        facts = probed(server.url, mode="latest")
    assert (facts.clock_difference_seconds, facts.failure) == (None, None)


def test_a_verified_certificate_shows_when_it_expires(authority: Authority) -> None:
    """So do the protocol, our own certificate and the authorities."""
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
    later = soon + timedelta(days=1)
    context = authority.server_context("127.0.0.1", not_after=soon)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    certificate, key = authority.client_files("soon", not_after=later)
    with serving(GOOD, context) as server:
        facts = probed(
            server.url,
            ca_bundle=authority.bundle,
            auth_mode="mtls",
            client_cert=str(certificate),
            client_key=str(key),
        )
    assert facts.failure is None
    assert (facts.protocol, facts.shown) == ("TLSv1.3", ("client certificate",))
    assert facts.certificate_expires_at == soon
    assert facts.client_certificate_expires_at == later
    assert facts.authorities_expire_at is not None
    assert facts.authorities_expire_at > later


def test_our_own_expiry_is_told_although_the_exporter_refuses(authority: Authority) -> None:
    """It is the likely reason."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    certificate, key = authority.client_files("late", not_after=past)
    context = authority.server_context("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    with serving(GOOD, context) as server:
        facts = probed(
            server.url,
            ca_bundle=authority.bundle,
            auth_mode="mtls",
            client_cert=str(certificate),
            client_key=str(key),
        )
    assert facts.client_certificate_expires_at == past
    assert facts.failure is not None
    assert not facts.is_accepted


def whole(moment: datetime) -> datetime:
    """Return a stamp as it comes back: exporters write nine digits, six are kept."""
    return moment.replace(microsecond=0)
