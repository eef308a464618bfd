"""Runs of several steps that fail at one of them: what the steps before did is told, and stands."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.command import ended, wait_until
from tests.integration.jobs.faults import accept_again, refuse_later

if TYPE_CHECKING:
    from tests.cli.command import Site

STEPS = 3
FIGURES = (
    "steps",
    "processed_samples",
    "written_minutes",
    "included_bytes",
    "charged_bytes",
    "amount",
    "corrections",
)

READ_RUN = "SELECT status, error, result FROM billing.runs ORDER BY finished_at DESC LIMIT 1"
READ_BILLED = """
SELECT count(*), coalesce(sum(included_bytes), 0)::bigint, coalesce(sum(rated_bytes), 0)::bigint
  FROM billing.charges
"""


@pytest.mark.parametrize(("sqlstate", "code"), [("XX000", 1), ("57P01", 69)])
def test_a_catch_up_that_fails_tells_what_its_steps_have_done(
    site: Site, sqlstate: str, code: int
) -> None:
    """The status is that of the failure, and so is the exit code; the figures are what stands."""
    in_small_steps(site)
    refuse_later(site.world, sqlstate, accepted=STEPS)
    finished = site.billing("catch-up", "--json")
    result = finished.result
    assert finished.code == code
    assert (result["status"], result["error"]["message"]) == ("error", "database: simulated")
    assert result["steps"] >= STEPS
    assert [one["source_id"] for one in result["sources"]] == ["jp-1", "us-1"]
    assert all(one["snapshots"] for one in result["sources"])
    assert billed(site) == [
        (result["written_minutes"], result["included_bytes"], result["charged_bytes"])
    ]
    if code == 1:
        assert_run_history_says_the_same(site, result)
    accept_again(site.world)
    assert site.billing("catch-up").code == 0
    site.world.assert_all_is_billed()


def test_a_terminal_shows_what_stands_beside_the_error(site: Site) -> None:
    """The table on stdout, the reason on stderr; a run of which nothing stands shows no table."""
    in_small_steps(site)
    refuse_later(site.world, "XX000", accepted=STEPS)
    finished = site.billing("catch-up")
    assert finished.code == 1
    assert finished.stdout.startswith("catch-up: error - ")
    assert "jp-1" in finished.stdout
    assert finished.stderr.splitlines()[-1] == "Error: database: simulated"
    again = site.billing("catch-up")
    assert (again.code, again.stdout) == (1, "")


def test_a_catch_up_that_is_interrupted_tells_what_its_steps_have_done(site: Site) -> None:
    """With the exit code of the signal; they stand, and the next call goes on."""
    in_small_steps(site)
    process = site.start("catch-up", "--json")
    wait_until(lambda: billed(site)[0][0] > 0, process)
    exporters = [site.world.running[source_id] for source_id in ("jp-1", "us-1")]
    for exporter in exporters:
        exporter.latency_seconds = 3600
        exporter.requests.clear()
    # The next step has begun, so that the one before is counted.
    wait_until(lambda: any(exporter.requests for exporter in exporters), process)
    process.send_signal(signal.SIGTERM)
    finished = ended(process)
    for exporter in exporters:
        exporter.latency_seconds = 0
    assert finished.code == 128 + signal.SIGTERM
    assert finished.result["status"] == "error"
    assert finished.result["error"] == {
        "code": "interrupted",
        "message": "ended by SIGTERM; what was not committed is rolled back",
    }
    assert finished.result["written_minutes"] == billed(site)[0][0]
    site.world.check()
    assert site.billing("catch-up").code == 0
    site.world.assert_all_is_billed()


def test_a_reconcile_that_fails_tells_what_its_steps_have_done(site: Site) -> None:
    """Corrections of the steps before are stored, counted and listed."""
    users = site.world.add_users(2)
    node = site.world.add_node("jp-1", users)
    site.world.flow_until(8)
    node.withhold(site.world.at(3), site.world.at(4), site.world.at(8.5))
    node.withhold(site.world.at(5), site.world.at(6), site.world.at(8.5))
    site.world.unknown_buckets = True
    site.world.collect_every_minute(1, 8)
    site.world.unknown_buckets = False
    site.extra |= {"BILLING_STEP_MAX_SAMPLES": "6", "BILLING_PAGE_LIMIT": "2"}
    refuse_later(site.world, "XX000", accepted=1)
    finished = site.billing("reconcile", "--json")
    result = finished.result
    assert (finished.code, result["status"]) == (1, "error")
    assert result["corrections"] > 0
    assert result["differences"]
    (stored,) = site.world.rows("SELECT count(*) FROM billing.usage_records WHERE revision > 0")
    assert stored == (result["corrections"],)
    assert_run_history_says_the_same(site, result)
    accept_again(site.world)
    assert site.billing("reconcile").code == 0
    site.world.check()


def in_small_steps(site: Site) -> None:
    """Let two users use two nodes, to be collected in steps of about a minute."""
    site.has_two_nodes()
    site.extra |= {"BILLING_STEP_MAX_SAMPLES": "4", "BILLING_PAGE_LIMIT": "2"}


def billed(site: Site) -> list[tuple[int, int, int]]:
    """Return how many entries there are, and the bytes that they include and rate."""
    return site.world.rows(READ_BILLED)


def assert_run_history_says_the_same(site: Site, said: dict[str, Any]) -> None:
    """The run's row has the failure, and the figures that were printed."""
    ((status, error, kept),) = site.world.rows(READ_RUN)
    assert (status, error) == (said["status"], said["error"]["message"])
    assert {name: kept[name] for name in FIGURES} == {name: said[name] for name in FIGURES}
