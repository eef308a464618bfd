"""From facts to findings: which state, and what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing_cli.core.model import NodeIdentity
from billing_cli.core.source_facts import Failure, SourceFacts
from billing_cli.features.check.database_findings import (
    RoleFacts,
    ServerFacts,
    role_findings,
    server_findings,
)
from billing_cli.features.check.findings import CheckReport, Finding, check_object
from billing_cli.features.check.source_findings import (
    Expectations,
    rivals_of,
    source_findings,
)

NOW = datetime(2026, 4, 8, 12, 30, tzinfo=UTC)
JP = NodeIdentity("prod", "jp-1")
US = NodeIdentity("prod", "us-1")

FACTS = SourceFacts(
    endpoint="jp-1.example:443",
    protocol="TLSv1.3",
    shown=("client certificate", "token"),
    has_answered=True,
    is_accepted=True,
    certificate_expires_at=NOW + timedelta(days=90),
    contract="window",
    identity=JP,
    oldest_at=NOW - timedelta(hours=71.5),
    newest_at=NOW - timedelta(seconds=20),
    asked_at=NOW,
    clock_difference_seconds=0.2,
)
EXPECTED = Expectations(node_id="jp-1", env="prod")

SERVER = ServerFacts(
    version="16.2",
    major_version=16,
    database="account",
    role="billing",
    place="db.example:5432",
    is_local=False,
    is_encrypted=True,
    is_verified=True,
    is_standby=False,
    clock_difference_seconds=0.0,
    powers=(),
)
ROLE = RoleFacts(missing=(), needless=(), owned_tables=(), is_superuser=False)


def test_a_good_source_is_good_in_all() -> None:
    """One finding for each question."""
    found = {finding.name: (finding.state, finding.text) for finding in findings()}
    assert found == {
        "connection": ("ok", "jp-1.example:443 answers over TLSv1.3, chain and name verified"),
        "certificate": ("ok", "expires in 90 days, on 2026-07-07"),
        "authentication": ("ok", "client certificate and token accepted"),
        "contract": ("ok", "window"),
        "identity": ("ok", "prod:jp-1, as expected"),
        "history": ("ok", "reaches back 71.5 h, to 2026-04-05T13:00:00Z"),
        "newest snapshot": ("ok", "20 s old, from 2026-04-08T12:29:40Z"),
        "clock": ("ok", "no difference to this machine's clock"),
    }


@pytest.mark.parametrize(
    ("days", "state", "text"),
    [
        (21, "ok", "expires in 21 days"),
        (20.9, "warning", "expires in 20 days"),
        (0.1, "warning", "expires in 0 days"),
        (0, "failed", "expired on 2026-04-08"),
        (-1, "failed", "expired on 2026-04-07"),
    ],
)
@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("certificate_expires_at", "certificate"),
        ("client_certificate_expires_at", "client certificate"),
        ("authorities_expire_at", "ca_bundle"),
    ],
)
def test_a_certificate_is_to_be_renewed_in_time(
    field: str, name: str, days: float, state: str, text: str
) -> None:
    """Three weeks before it expires, whosever it is."""
    expiry: Any = {field: NOW + timedelta(days=days)}
    found = finding(name, replace(FACTS, **expiry))
    assert found.state == state
    assert found.text.startswith(text)


@pytest.mark.parametrize(
    ("expected", "state", "text"),
    [
        ({"node_id": "us-1"}, "failed", "speaks for 'prod:jp-1', but expected_node_id is 'us-1'"),
        ({"env": "test"}, "failed", "speaks for 'prod:jp-1', but expected_env is 'test'"),
        ({"stored_identity": JP}, "ok", "prod:jp-1, as stored"),
        ({"stored_identity": US, "node_id": None}, "failed", "'prod:us-1' was collected from it"),
        ({"stored_identity": US}, "warning", "'prod:us-1' was collected from it"),
        ({"rival": "jp-old"}, "failed", "belongs to source 'jp-old': it would be billed twice"),
        ({"node_id": None}, "warning", "without expected_node_id whoever answers first"),
    ],
)
def test_a_source_is_who_it_should_be(expected: Any, state: str, text: str) -> None:
    """As configured and as stored; only the operator's word moves a source to another node."""
    found = finding("identity", expected=replace(EXPECTED, **expected))
    assert (found.state, text in found.text) == (state, True), found


def test_a_node_belongs_to_one_source() -> None:
    """To the one that has it, or else each claimant is told of another."""
    claims = {"a": JP, "b": JP, "c": US, "d": NodeIdentity("", "alone")}
    assert rivals_of(claims, {}) == {"a": "b", "b": "a"}
    assert rivals_of(claims, {"prod:jp-1": "b", "prod:us-1": "gone"}) == {"a": "b", "c": "gone"}


@pytest.mark.parametrize(
    ("facts", "name", "state", "text"),
    [
        ({"protocol": None}, "connection", "ok", "over plain HTTP, within this machine"),
        ({"protocol": None, "is_exposed": True}, "connection", "warning", "can change it"),
        ({"shown": ()}, "authentication", "ok", "none is configured"),
        ({"contract": "latest"}, "history", "ok", "the latest snapshot is all there is"),
        ({"newest_at": NOW - timedelta(seconds=300)}, "newest snapshot", "ok", "5 min old"),
        ({"newest_at": NOW - timedelta(seconds=301)}, "newest snapshot", "failed", "5 min old"),
        ({"newest_at": NOW - timedelta(hours=3)}, "newest snapshot", "failed", "3.0 h old"),
        (
            {"newest_at": None, "oldest_at": None, "searched_since": NOW},
            "newest snapshot",
            "warning",
            "there is no snapshot yet",
        ),
        (
            {"newest_at": None, "searched_since": NOW},
            "newest snapshot",
            "failed",
            "none since 2026-04-08T12:30:00Z",
        ),
        ({"clock_difference_seconds": 5.1}, "clock", "warning", "5.1 s ahead of this machine"),
        ({"clock_difference_seconds": -5.1}, "clock", "warning", "5.1 s behind this machine"),
        ({"clock_difference_seconds": -301.0}, "clock", "failed", "301.0 s behind"),
        ({"clock_difference_seconds": None}, "clock", "ok", "no Date in the answers"),
        ({"newest_at": NOW + timedelta(seconds=9)}, "clock", "warning", "9.0 s ahead"),
        ({"notes": ("the key file k can be read by other users",)}, "secrecy", "warning", "key"),
        ({"failure": Failure("answer", "not JSON")}, "answer", "failed", "not JSON"),
    ],
)
def test_what_needs_a_look_is_told(facts: Any, name: str, state: str, text: str) -> None:
    """In a word, and in a line."""
    found = finding(name, replace(FACTS, **facts))
    assert (found.state, text in found.text) == (state, True), found


@pytest.mark.parametrize(
    ("expected", "name", "text"),
    [
        ({"stored_contract": "latest"}, "contract", "window, but it was latest"),
        ({"watermark": NOW - timedelta(hours=72)}, "history", "not as far as what was last"),
    ],
)
def test_what_does_not_fit_to_earlier_runs_is_a_warning(
    expected: Any, name: str, text: str
) -> None:
    """Something happened to the exporter in between."""
    found = finding(name, expected=replace(EXPECTED, **expected))
    assert (found.state, text in found.text) == ("warning", True)


def test_a_source_that_is_down_has_one_finding() -> None:
    """Nothing is said of what was not seen."""
    (only,) = source_findings(
        "jp-1",
        SourceFacts(failure=Failure("connection", "connect to jp-1 failed")),
        EXPECTED,
        now=NOW,
        stalled_after=timedelta(seconds=300),
    )
    assert only == Finding("source", "connection", "failed", "connect to jp-1 failed", "jp-1")


@pytest.mark.parametrize(
    ("facts", "name", "state", "text"),
    [
        ({}, "connection", "ok", "PostgreSQL 16.2 at db.example:5432, database account as billing"),
        ({}, "encryption", "ok", "TLS, and the server proved its name"),
        ({"is_verified": False}, "encryption", "warning", "set sslmode=verify-full"),
        ({"is_encrypted": False, "is_verified": False}, "encryption", "warning", "in the clear"),
        ({"is_encrypted": False, "is_local": True, "is_verified": False}, "encryption", "ok", ""),
        ({"is_standby": True}, "server", "failed", "a standby"),
        ({"clock_difference_seconds": 6.0}, "clock", "warning", "6.0 s ahead"),
    ],
)
def test_a_server_is_reached_safely_and_can_be_written_to(
    facts: Any, name: str, state: str, text: str
) -> None:
    """Encryption matters where the connection leaves this machine."""
    found = {finding.name: finding for finding in server_findings(replace(SERVER, **facts))}[name]
    assert (found.state, text in found.text) == (state, True), found


@pytest.mark.parametrize(
    ("facts", "powers", "expected"),
    [
        ({}, (), ["ok", "ok"]),
        ({"missing": ("SELECT on a",)}, (), ["failed missing: SELECT on a", "ok"]),
        ({"needless": ("DELETE on a",)}, (), ["ok", "warning may do more than the jobs need: D"]),
        ({"needless": tuple("abcdefg")}, (), ["ok", "a; b; c; d; e; and 2 more"]),
        ({"owned_tables": ("a",), "needless": ("b",)}, (), ["ok", "warning owns a: grants can't"]),
        ({"is_superuser": True, "owned_tables": ("a",)}, ("x",), ["ok", "warning a superuser"]),
        ({}, ("create roles",), ["ok", "warning may do more than any job needs: create roles"]),
    ],
)
def test_a_role_may_do_enough_and_not_more(
    facts: Any, powers: tuple[str, ...], expected: list[str]
) -> None:
    """Too little fails, too much is a warning; what follows from the worst is not listed."""
    found = [
        f"{finding.state} {finding.text}"
        for finding in role_findings(replace(ROLE, **facts), powers)
    ]
    assert len(found) == len(expected)
    assert all(text in one for one, text in zip(found, expected, strict=True)), found


@pytest.mark.parametrize(
    ("failed", "outcome", "status"),
    [
        ([], "ok", "ok"),
        ([("source", "connection")], "attention", "attention"),
        ([("database", "clock"), ("source", "identity")], "attention", "attention"),
        ([("database", "schema"), ("source", "identity")], "configuration", "error"),
        ([("database", "privileges")], "configuration", "error"),
        ([("database", "connection"), ("source", "connection")], "unreachable", "error"),
        ([("database", "server"), ("database", "privileges")], "unreachable", "error"),
        ([("configuration", "settings"), ("database", "connection")], "configuration", "error"),
    ],
)
def test_the_gravest_failure_counts(failed: list[Any], outcome: str, status: str) -> None:
    """As a run would end with it; the error is that of the first failure that decides."""
    fine = [Finding("database", "connection", "ok", ""), Finding("source", "x", "warning", "w")]
    failures = [Finding(area, name, "failed", "why") for area, name in failed]
    if status == "error":
        failures.insert(0, Finding("database", "clock", "failed", "another reason"))
    report = CheckReport(NOW, (*fine, *failures))
    assert report.outcome == outcome
    told = check_object(report)
    assert told["status"] == status
    assert (told["error"] or {"message": None})["message"] == ("why" if status == "error" else None)
    assert len(told["findings"]) == len(report.findings)


def findings(facts: SourceFacts = FACTS, expected: Expectations = EXPECTED) -> tuple[Finding, ...]:
    """Return all findings about a source."""
    return source_findings("jp-1", facts, expected, now=NOW, stalled_after=timedelta(seconds=300))


def finding(name: str, facts: SourceFacts = FACTS, expected: Expectations = EXPECTED) -> Finding:
    """Return the one finding of that name."""
    (only,) = [finding for finding in findings(facts, expected) if finding.name == name]
    return only
