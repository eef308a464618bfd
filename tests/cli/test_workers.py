"""Several workers over one configuration, as on several hosts: real processes, started at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.shard import Shard
from tests.cli.command import MINUTES, ended

if TYPE_CHECKING:
    from tests.cli.command import Finished, Site

SOURCES = 60
WORKERS = 4
USERS = 20

JOBS = pytest.mark.parametrize("job", ["collect", "catch-up", "reconcile"])

COUNT_BUCKETS = "SELECT count(*) FROM public.traffic_minute_buckets"


def test_workers_in_shards_work_on_every_source_once(site: Site) -> None:
    """Nobody is busy, none is left out, and the minutes of all of them are all that flowed."""
    many_sources(site)
    finished = at_once(
        site, [("collect", "--shard", f"{one + 1}/{WORKERS}") for one in range(WORKERS)]
    )
    assert {one.code for one in finished} == {0}
    worked = Counter(source["source_id"] for one in finished for source in one.result["sources"])
    assert worked == Counter(site.world.fleet.nodes.keys())
    assert_all_is_done(site, finished)


def test_workers_without_shards_work_on_every_source_once(site: Site) -> None:
    """Whoever comes second to a source finds it busy, or nothing new: together they do it all."""
    many_sources(site)
    finished = at_once(site, [("catch-up",)] * WORKERS)
    assert {one.code for one in finished} <= {0, 75}
    moved = Counter(
        source["source_id"]
        for one in finished
        for source in one.result["sources"]
        if source["snapshots"]
    )
    assert moved == Counter(site.world.fleet.nodes.keys())
    assert_all_is_done(site, finished)


@JOBS
def test_a_shard_of_the_configuration_is_taken_where_none_is_given(site: Site, job: str) -> None:
    """BILLING_SHARD is for the timer; the command line goes before it."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    of_two = [Shard(number, 2) for number in (1, 2)]
    names = {str(one): [name for name in ("jp-1", "us-1") if one.holds(name)] for one in of_two}
    for shard, held in names.items():
        site.extra["BILLING_SHARD"] = shard
        assert sources_of(site.billing(job, "--json")) == held
    site.extra["BILLING_SHARD"] = "2/2"
    assert sources_of(site.billing(job, "--shard", "1/2", "--json")) == names["1/2"]


def test_a_source_that_is_named_is_worked_on_in_any_shard(site: Site) -> None:
    """An operator need not know where it belongs; both on one command line are refused."""
    site.has_two_nodes()
    site.world.run_unchecked(site.world.at(4))
    for shard in ("1/2", "2/2"):
        site.extra["BILLING_SHARD"] = shard
        assert sources_of(site.billing("collect", "--source", "us-1", "--json")) == ["us-1"]
    both = site.billing("collect", "--source", "us-1", "--shard", "1/2")
    assert both.code == 2
    assert both.stderr.splitlines()[-1] == (
        "Error: --shard conflicts with --source: a named source is worked on anyway"
    )


def test_a_shard_without_sources_has_nothing_to_do(site: Site) -> None:
    """There may be more hosts than sources; a note says why nothing happens."""
    site.has_two_nodes()
    taken = {next(n for n in range(1, 10) if Shard(n, 9).holds(one)) for one in ("jp-1", "us-1")}
    empty = f"{min(set(range(1, 10)) - taken)}/9"
    finished = site.billing("collect", "--shard", empty, "--json")
    assert (finished.code, finished.result["status"]) == (0, "ok")
    assert (finished.result["sources"], finished.result["notes"]) == (
        [],
        [f"no source is in shard {empty}"],
    )


def test_a_shard_that_can_t_be_is_refused(site: Site) -> None:
    """Wrong usage on the command line, wrong configuration elsewhere; both say how to write it."""
    site.has_two_nodes()
    said = site.billing("collect", "--shard", "3/2")
    assert (said.code, "there is no shard 3 of 2" in said.stderr) == (2, True)
    site.extra["BILLING_SHARD"] = "two of three"
    configured = site.billing("collect")
    assert configured.code == 78
    assert configured.stderr.splitlines()[-1] == (
        "Error: BILLING_SHARD (environment): must be a number of how many, such as 2/8"
    )


def many_sources(site: Site) -> None:
    """Let twenty users use sixty nodes, three on each."""
    users = site.world.add_users(USERS)
    for number in range(SOURCES):
        chosen = {number % USERS, (3 * number + 1) % USERS, (7 * number + 2) % USERS}
        site.world.add_node(f"node-{number:03}", [users[one] for one in sorted(chosen)])
    site.world.flow_until(MINUTES)


def at_once(site: Site, command_lines: list[tuple[str, ...]]) -> list[Finished]:
    """Start commands at the same moment, and wait for all of them."""
    return [ended(one) for one in [site.start(*line, "--json") for line in command_lines]]


def assert_all_is_done(site: Site, finished: list[Finished]) -> None:
    """Every byte is billed, in a minute that one of the workers counts as its own."""
    written = sum(one.result["written_minutes"] for one in finished)
    assert site.world.rows(COUNT_BUCKETS) == [(written,)]
    assert {one.result["replayed_minutes"] for one in finished} == {0}
    site.world.assert_all_is_billed()


def sources_of(finished: Finished) -> list[str]:
    """Return the sources that a run has worked on."""
    listed: list[dict[str, Any]] = finished.result["sources"]
    return [one["source_id"] for one in listed]
