"""Several sources in one reconcile: settled together, but one that is refused fails alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from billing_cli.jobs.reconcile import reconcile
from tests.integration.jobs.faults import accept_again, refuse
from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.core.result import RunResult
    from tests.integration.jobs.world import World

READ_ADJUSTMENTS = """
SELECT entry.account_uuid::text, entry.bucket_start, charge.stored_node_id
  FROM public.billing_ledger AS entry
  JOIN billing.charges AS charge ON charge.ledger_id = entry.id
 WHERE charge.run_id = %s::uuid
 ORDER BY entry.created_at
"""


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return two nodes with the same users, collected while some snapshots were not published."""
    with serving_world(database_url, job_url) as made:
        users = made.add_users(2)
        for source_id in ("jp-1", "us-1"):
            made.add_node(source_id, users)
        made.flow_until(20)
        for node in made.fleet.nodes.values():
            node.withhold(made.at(4), made.at(7), made.at(18.5))
            node.withhold(made.at(11), made.at(13), made.at(18.5))
        made.unknown_buckets = True
        made.run(made.at(2))
        made.run(made.at(18))
        yield made


def test_an_accounts_corrections_rise_in_bucket_order_over_all_sources(world: World) -> None:
    """By the time of their creation they are in the order of their minutes, not of their nodes."""
    result = world.run(world.at(21), reconcile)
    rows = world.rows(READ_ADJUSTMENTS, result.run_id)
    for account in {row[0] for row in rows}:
        buckets = [row[1:] for row in rows if row[0] == account]
        assert len({node for _, node in buckets}) == 2
        assert buckets == sorted(buckets)
    world.unknown_buckets = False
    world.check()


@pytest.mark.parametrize("is_deferred", [False, True], ids=["at once", "at COMMIT"])
def test_a_source_whose_corrections_are_refused_fails_alone(
    world: World, *, is_deferred: bool
) -> None:
    """The others are corrected; the next reconcile puts right what is left."""
    when = "NEW.node_id = 'prod:jp-1.svc.plus'"
    refuse(world, "traffic_minute_buckets", when, is_deferred=is_deferred)
    result = world.run(world.at(21), reconcile)
    assert [(source.source_id, source.status, source.error) for source in result.sources] == [
        ("jp-1", "error", "database: simulated"),
        ("us-1", "ok", None),
    ]
    assert result.status == "partial"
    assert result.corrections == result.sources[1].corrections > 0
    assert recorded(world, result) == ("partial", ["error", "ok"])
    accept_again(world)
    assert world.run(world.at(21), reconcile).status == "ok"
    world.unknown_buckets = False
    world.check()


@pytest.mark.parametrize("is_refused", [True, False], ids=["refused", "unreachable"])
def test_a_reconcile_of_which_all_sources_fail_is_recorded_as_failed(
    world: World, *, is_refused: bool
) -> None:
    """So metrics and `status` say so, and it is no success."""
    if is_refused:
        refuse(world, "traffic_minute_buckets", "true")
    else:
        for source_id in world.fleet.nodes:
            world.running[source_id].down = True
    result = world.run_unchecked(world.at(21), reconcile)
    assert result.status == "error"
    assert recorded(world, result) == ("error", ["error", "error"])
    query = "SELECT last_success_at, failed_runs FROM billing.totals WHERE job = 'reconcile'"
    assert world.rows(query) == [(None, 1)]


def test_a_reconcile_that_fails_after_its_first_step_is_no_success(world: World) -> None:
    """The last one before it counts, as `BillingNotReconciled` asks for."""
    first = world.run(world.at(21), reconcile)
    world.fetching = replace(world.fetching, step_max_samples=10)

    def go_down(*_progress: object) -> None:
        for source_id in world.fleet.nodes:
            world.running[source_id].down = True

    result = world.run_unchecked(world.at(22), partial(reconcile, on_step=go_down))
    assert (result.status, result.steps) == ("error", 1)
    query = "SELECT last_success_at, last_status FROM billing.totals WHERE job = 'reconcile'"
    assert world.rows(query) == [(first.finished_at, "error")]


def recorded(world: World, result: RunResult) -> tuple[str, list[str]]:
    """Return the status of a run in the run history, and those of its sources."""
    query = "SELECT status, result -> 'sources' FROM billing.runs WHERE run_id = %s::uuid"
    ((status, sources),) = world.rows(query, result.run_id)
    return status, [source["status"] for source in sources]
