"""`billing suspend` as a process: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.forks import Ended, run_forked

if TYPE_CHECKING:
    from tests.integration.suspend.conftest import Arrears


def billing(url: str, *arguments: str) -> Ended:
    """Run `billing` to its end."""
    return run_forked(arguments, {**os.environ, "DATABASE_URL": url})


def test_the_command_suspends_and_says_whom(arrears: Arrears) -> None:
    """As one JSON object, and as text; both end with 0."""
    account = arrears.account(-2.5)
    arrears.set(account, arrears_since=arrears.now - timedelta(days=20))

    dry = billing(arrears.url, "suspend", "--dry-run")
    done = billing(arrears.url, "suspend", "--after", "36h", "--json")

    assert (dry.code, done.code) == (0, 0), (dry.stderr, done.stderr)
    assert "suspend: ok (dry run: nothing is stored) - 1 account suspended" in dry.stdout
    assert f"suspended: {account}, balance -2.5" in dry.stdout
    told = json.loads(done.stdout)
    assert (told["job"], told["status"], told["error"]) == ("suspend", "ok", None)
    assert [one["account_uuid"] for one in told["suspended"]] == [account]
    assert arrears.state(account)[2] == "suspended"


@pytest.mark.parametrize("duration", ["14", "two weeks", "-1d", "1.5d"])
def test_a_duration_has_a_unit(arrears: Arrears, duration: str) -> None:
    """A bare number could mean anything."""
    assert billing(arrears.url, "suspend", "--after", duration).code == 2


def test_the_role_of_the_jobs_is_refused(arrears: Arrears, job_url: str) -> None:
    """With one line, and nothing is written."""
    account = arrears.account(-1)

    done = billing(job_url, "suspend")

    assert done.code == 78
    assert "permission denied" in done.stderr
    assert "`billing migrate --grant-suspend-to ROLE`" in done.stderr
    assert arrears.state(account) == (False, "normal", "active")
