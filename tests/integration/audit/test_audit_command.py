"""`billing audit` as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.simulator.traffic import User
    from tests.support.story import Story

HARM = "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + %s"


@pytest.fixture
def told(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story without nodes or users yet; afterwards its books are checked."""
    with told_story(database_url, job_url) as begun:
        yield begun


@pytest.fixture
def user(told: Story) -> User:
    """Return a user with two charged minutes."""
    made = told.add_user()
    stream = told.add_node("jp-1").add_stream(made.uuid, "xhttp")
    told.minute()
    told.minute((stream, 10, 20))
    told.minute((stream, 1, 2))
    told.collect()
    return made


def test_a_clean_audit_ends_with_0(told: Story, user: User) -> None:
    """The verdict comes first, then the accounts and what was read."""
    done = told.billing("audit")

    assert done.exit_code == 0
    assert done.stdout.startswith("audit: clean\n")
    assert user.uuid in done.stdout
    assert "bytes: 33 in records, 33 in buckets, 0 included + 33 rated = 33 charged" in done.stdout
    assert "money: -0.033000000" in done.stdout


def test_a_violation_ends_with_3_and_is_named_with_its_row(told: Story, user: User) -> None:
    """As text and as one JSON object."""
    told.connection.execute(HARM, (1,))

    plain = told.billing("audit")
    as_json = told.billing("audit", "--json", "--limit", "1")

    assert plain.exit_code == as_json.exit_code == 3
    assert plain.stdout.startswith("audit: 2 violations\n")
    assert "VIOLATION bucket_differs: a bucket shows other bytes" in plain.stdout
    assert f"account {user.uuid}, bucket start 2026-04-08T12:01:00Z" in plain.stdout
    assert "total bytes 31, expected 30" in plain.stdout
    told_object = as_json.json
    assert (told_object["status"], told_object["totals"]["violations"]) == ("violations", 2)
    (violation,) = told_object["violations"]
    assert violation["keys"]["bucket_start"] == "2026-04-08T12:01:00Z"
    assert (violation["expected"], violation["found"]) == ({"total_bytes": 30}, {"total_bytes": 31})
    told.connection.execute(HARM, (-1,))


def test_violations_are_logged_and_status_warns(told: Story, user: User) -> None:
    """A line for each kind: units discard stdout. `status` warns until an audit is clean again."""
    told.connection.execute(HARM, (1,))

    for options in (("--full",), ("--account", user.uuid), ()):
        *logged, last = told.billing("audit", *options).stderr.splitlines()
        lines = [json.loads(line) for line in logged]
        found = [(line["level"], line["kind"], line["count"]) for line in lines]
        assert found == [("error", "bucket_differs", 2)]
        assert "`billing audit" in lines[0]["advice"]
        # What the notification of a failed unit repeats.
        assert last == "Error: audit found violations: bucket_differs 2"
    warned = told.billing("status", "--max-lag", "1e12")
    told.connection.execute(HARM, (-1,))

    assert warned.exit_code == 3
    assert warned.stdout.startswith("status: warning: 0 failed, 1 warning\n")
    assert "warning: the last audit found 2 violations\n" in warned.stdout
    clean = told.billing("audit")
    assert (clean.exit_code, clean.stderr) == (0, "")
    assert told.billing("status", "--max-lag", "1e12").exit_code == 0


@pytest.mark.usefixtures("user")
def test_a_quick_audit_does_not_hide_what_the_full_one_found(told: Story) -> None:
    """It began before that one ended, and ended after it."""
    told.connection.execute(
        "INSERT INTO billing.audits (run_id, at, is_full, violations, notices)"
        " VALUES (gen_random_uuid(), now(), true, 7, 0), (gen_random_uuid(), now(), false, 0, 0)"
    )
    warned = told.billing("status", "--max-lag", "1e12")
    assert "warning: the last audit found 7 violations\n" in warned.stdout


def test_a_notice_is_no_violation(told: Story, user: User) -> None:
    """A top-up is told with its amount, and the audit ends with 0."""
    told.top_up(user, Decimal("12.5"))

    done = told.billing("audit", "--account", user.proxy_uuid)

    assert done.exit_code == 0
    assert done.stdout.startswith(f"audit of account {user.uuid}: clean, 1 notice\n")
    assert "NOTICE balance_outside" in done.stdout
    assert "difference 12.500000000" in done.stdout


def test_progress_is_for_terminals(told: Story, user: User) -> None:
    """Where standard error is none, nothing is said there."""
    done = told.billing("audit", "--account", user.uuid)

    assert done.stderr == ""


def test_an_unknown_account_ends_with_2(told: Story, user: User) -> None:
    """One clear line; with --json it is in the object."""
    nobody = told.fleet.new_uuid()

    plain = told.billing("audit", "--account", nobody)
    as_json = told.billing("audit", "--account", nobody, "--json")

    assert nobody != user.uuid
    assert (plain.exit_code, plain.stdout, as_json.exit_code) == (2, "", 2)
    assert plain.stderr.startswith(f"Error: unknown account {nobody}")
    assert as_json.json["status"] == "error"
