"""Several writers at the same moment, on the same database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult
    from tests.integration.jobs.world import Job, World

WRITERS = 3


@pytest.mark.parametrize("job", [collect, catch_up], ids=lambda job: job.__name__)
def test_three_writers_at_once_bill_every_byte_once(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each minute three runs start together: together they do what one would have done."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    users = world.add_users(3)
    for source_id in ("jp-1", "us-1"):
        world.add_node(source_id, users)
    world.flow_until(8, poll_seconds=30)
    for minute in range(1, 11):
        results = at_once(world, minute, [(job, {})] * WRITERS)
        assert {result.status for result in results} <= {"ok", "busy"}
        world.check()
    world.assert_all_is_billed()


def test_writers_of_different_sources_share_accounts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same users on each node: balances and quotas are handed on, none is overwritten."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    users = world.add_users(4)
    world.quota = 8_000_000
    sources = ("jp-1", "us-1", "de-1")
    for source_id in sources:
        world.add_node(source_id, users)
    world.flow_until(8)
    for minute in range(1, 11):
        work = [(collect, {"source_ids": [source_id]}) for source_id in sources]
        results = at_once(world, minute, work)
        assert [result.status for result in results] == ["ok"] * len(sources)
        world.check()
    world.assert_all_is_billed()


def at_once(world: World, minute: int, work: list[tuple[Job, dict[str, Any]]]) -> list[RunResult]:
    """Run jobs side by side, started at the same moment."""
    start = threading.Barrier(len(work))
    now = world.at(minute + 0.7)
    world.fleet.present = now

    def run(job: Job, options: dict[str, Any]) -> RunResult:
        context = world.context(now)
        start.wait()
        return job(context, **options)

    with ThreadPoolExecutor(len(work)) as threads:
        return [one.result() for one in [threads.submit(run, *each) for each in work]]
