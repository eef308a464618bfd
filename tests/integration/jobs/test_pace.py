"""Dense and sparse nodes in one catch-up: all of them come equally far with each step."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.core.times import minute_of
from billing_cli.database.sources import try_lock_sources
from billing_cli.jobs.catch_up import catch_up
from tests.integration.jobs.faults import refuse_node

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.result import RunResult
    from tests.integration.jobs.world import World

HISTORY_MINUTES = 24
END = HISTORY_MINUTES + 2

READ_LEDGER = """
SELECT entry.account_uuid::text, entry.bucket_start, charge.stored_node_id, charge.region,
       charge.line_code
  FROM public.billing_ledger AS entry
  JOIN billing.charges AS charge ON charge.ledger_id = entry.id
 WHERE entry.bucket_start >= %s AND (%s::uuid IS NULL OR charge.run_id = %s::uuid)
 ORDER BY entry.created_at
"""


def test_an_accounts_entries_rise_in_bucket_order_over_all_steps(world: World) -> None:
    """Three nodes of very different density: by creation they are in the order of their buckets."""
    dense_and_sparse(world)
    result = catch_up_in_small_steps(world, 30)
    assert result.steps > 2
    assert inversions(world) == 0
    world.assert_all_is_billed()


def test_a_source_with_the_latest_snapshot_alone_waits_for_the_others(world: World) -> None:
    """What it shows is later than all that the others have yet to tell."""
    dense_and_sparse(world)
    world.running["sparse"].windowed = False
    world.run(world.at(1), source_ids=["sparse"])
    world.unknown_buckets = True
    assert catch_up_in_small_steps(world, 30).steps > 2
    assert inversions(world) == 0
    world.assert_all_is_billed()


def test_a_source_that_is_further_is_not_asked_before_the_others_are_there(world: World) -> None:
    """The samples of the steps until then are the others' alone."""
    dense_and_sparse(world)
    world.run(world.at(20), source_ids=["sparse"])
    seen: list[dict[str, datetime | None]] = []
    requests = world.running["sparse"].requests
    requests.clear()

    def look(results: object, _goal: datetime) -> None:
        assert isinstance(results, dict)
        seen.append({result: results[result].last_completed_until for result in results})

    result = catch_up_in_small_steps(world, 100, on_step=look)
    assert len(requests) < result.steps / 2
    assert inversions(world, since=world.at(20)) == 0
    for reached in seen[:-1]:
        dense, sparse = reached["dense"], reached["sparse"]
        assert dense is not None
        assert sparse is not None
        assert minute_of(sparse) <= max(minute_of(dense), world.at(19))
    world.assert_all_is_billed()


def test_sources_that_wait_do_not_count_as_stalled(world: World) -> None:
    """Nothing before the horizon is not nothing new; history that pauses is late, no more."""
    dense_and_sparse(world)
    world.fleet.nodes["sparse"].withhold(world.at(3), world.at(14), world.at(10_000))
    world.unknown_buckets = True
    catch_up_in_small_steps(world, 30)
    assert world.rows("SELECT DISTINCT source_id, kind FROM billing.gaps") == [("sparse", "late")]


@pytest.mark.parametrize("fault", ["down", "refused", "busy"])
def test_a_source_that_fails_holds_nobody_back(world: World, fault: str) -> None:
    """Whether it does not answer, can't be written or is held by another run: the others arrive."""
    dense_and_sparse(world)
    world.run(world.at(3))
    with psycopg.connect(world.database_url) as other:
        if fault == "down":
            world.running["dense"].down = True
        elif fault == "refused":
            refuse_node(world, "dense", "22003")
        else:
            try_lock_sources(other, ["dense"])
        result = catch_up_in_small_steps(world, 30)
    ends = {source.source_id: source.status for source in result.sources}
    assert ends == {
        "dense": "busy" if fault == "busy" else "error",
        "medium": "ok",
        "sparse": "ok",
    }
    for source_id in ("medium", "sparse"):
        last = world.fleet.nodes[source_id].snapshots[-1].collected_at
        assert world.watermarks[source_id] == last


def test_a_catch_up_goes_on_where_another_run_has_moved_a_source(world: World) -> None:
    """It is behind as long as there is more on offer, whoever brought it how far."""
    dense_and_sparse(world)
    moved: list[bool] = []

    def move(_results: object, _goal: datetime) -> None:
        if not moved:
            moved.append(True)
            world.fetching = replace(world.fetching, step_max_samples=10_000)
            world.run_unchecked(world.at(9), source_ids=["dense"])
            world.fleet.present = world.at(END)

    catch_up_in_small_steps(world, 30, on_step=move)
    world.assert_all_is_billed()


def test_steps_take_about_as_many_samples_as_they_may(world: World) -> None:
    """However the sources differ: no step reads much more, and there are not many more steps."""
    dense_and_sparse(world)
    most = 400
    samples = []

    def count(results: object, _goal: datetime) -> None:
        assert isinstance(results, dict)
        samples.append(sum(result.samples for result in results.values()))

    result = catch_up_in_small_steps(world, most, on_step=count)
    taken = [after - before for before, after in zip([0, *samples], samples, strict=False)]
    assert max(taken) <= most
    # The first step knows nothing of densities, and the last one has what is left.
    assert result.steps <= samples[-1] / most + 3


@pytest.mark.parametrize("most", [40, 100, 10_000])
def test_earlier_readings_of_a_backlog_are_no_restart_wherever_a_step_ends(
    world: World, most: int
) -> None:
    """A clock was set back: by their stamps, readings of before come after larger ones."""
    node = world.add_node("jp-1", world.add_users(3))
    world.flow_until(2)
    world.run(world.at(3))
    node.run(world.at(12), 20, 1e5)
    node.takes_older_stamps, node.clock_error = True, timedelta(minutes=-4)
    node.run(world.at(24), 20, 1e5)
    node.snapshot(world.at(24))
    world.unknown_buckets = True
    result = catch_up_in_small_steps(world, most)
    assert (result.steps > 2) == (most < 10_000)
    world.assert_all_is_billed()
    kinds = world.rows("SELECT DISTINCT kind FROM billing.gaps WHERE kind <> 'stalled'")
    assert kinds == [("disorder",)]


def test_a_wrong_reading_right_before_until_is_left_to_the_next_run(world: World) -> None:
    """What follows it is on offer, but not part of this run."""
    node = world.add_node("jp-1", world.add_users(1))
    world.flow_until(5)
    world.run(world.at(5) + timedelta(seconds=40))
    world.flow_until(6)
    wrong = node.snapshots[-1].totals
    wrong[0], wrong[1] = wrong[0] // 2, wrong[1] // 2
    node.run(world.at(20), 60, 1e5)
    node.snapshot(world.at(20))
    world.unknown_buckets = True
    world.run(world.at(END), catch_up, until=world.at(7))
    world.run(world.at(END), catch_up)
    world.assert_all_is_billed()


@pytest.mark.parametrize("seed", range(2))
def test_any_fleet_is_caught_up_with_in_bucket_order(world: World, seed: int) -> None:
    """Nodes polled often and seldom, with outages, by both contracts, begun before or not."""
    rng = random.Random(seed)  # noqa: S311 - reproducible, no secret
    random_fleet(world, rng)
    world.fetching = replace(
        world.fetching,
        step_max_samples=rng.choice([1, 7, 30, 100, 1000]),
        page_limit=rng.choice([1, 4, 60]),
    )
    result = world.run(world.at(END), catch_up)
    assert inversions(world, run=result.run_id) == 0
    for node in world.fleet.nodes.values():
        assert world.watermarks[node.source_id] == node.snapshots[-1].collected_at


def test_each_collect_by_itself_creates_entries_in_bucket_order(world: World) -> None:
    """Also where one source is far behind; its older minutes come with the runs after this one."""
    dense_and_sparse(world)
    world.fetching = replace(world.fetching, step_max_samples=300, page_limit=7)
    runs = [world.run(world.at(END + minute)) for minute in range(3)]
    assert world.watermarks["dense"] < world.at(8) < world.watermarks["sparse"]
    assert [inversions(world, run=run.run_id) for run in runs] == [0, 0, 0]
    assert inversions(world) > 0


def dense_and_sparse(world: World) -> None:
    """Let six users use a node polled every 5 s, one polled every 20 s, and one every 3 minutes."""
    users = world.add_users(6)
    for source_id, poll_seconds, count in (("dense", 5, 6), ("medium", 20, 4), ("sparse", 180, 2)):
        node = world.add_node(source_id, users[:count])
        node.run(world.at(HISTORY_MINUTES), poll_seconds, 1e5)
        node.snapshot(world.at(HISTORY_MINUTES))


def random_fleet(world: World, rng: random.Random) -> None:
    """Let five users use some nodes, of which some were collected before."""
    users = world.add_users(5)
    world.unknown_buckets = True
    for number in range(rng.randint(2, 5)):
        source_id = f"node-{number}"
        node = world.add_node(source_id, rng.sample(users, rng.randint(1, 5)))
        if rng.random() < 0.5:
            begin = rng.uniform(1, 15)
            node.hide(world.at(begin), world.at(begin + rng.uniform(1, 8)))
        node.run(world.at(HISTORY_MINUTES), rng.choice([5, 15, 60, 200]), 1e5)
        node.outages.clear()
        node.snapshot(world.at(HISTORY_MINUTES))
        world.running[source_id].max_page = rng.choice([1, 3, 50])
    for source_id in world.fleet.nodes:
        if rng.random() < 0.2:
            world.running[source_id].windowed = False
            # What an exporter without history shows first is where it begins.
            world.run(world.at(0.05), source_ids=[source_id])
        elif rng.random() < 0.4:
            world.run(world.at(rng.choice([2, 5, 12])), source_ids=[source_id])


def catch_up_in_small_steps(
    world: World, step_max_samples: int, *, at: float = END, **options: object
) -> RunResult:
    """Run `catch-up` in steps of so many samples."""
    world.fetching = replace(world.fetching, step_max_samples=step_max_samples, page_limit=7)
    return world.run(world.at(at) + timedelta(seconds=40), catch_up, **options)


def inversions(world: World, *, since: datetime | None = None, run: str | None = None) -> int:
    """Count the ledger entries that were created after one of a later bucket of their account."""
    count = 0
    latest: dict[str, tuple[object, ...]] = {}
    rows = world.rows(READ_LEDGER, since or world.at(0), run, run)
    assert len(rows) > 5
    for account, *bucket in rows:
        count += tuple(bucket) < latest.get(account, ())
        latest[account] = max(tuple(bucket), latest.get(account, ()))
    return count


def test_a_catch_up_whose_source_fails_after_its_first_step_is_partial(world: World) -> None:
    """It has moved, though nothing was to be charged: a failed run says that nothing is stored."""
    node = world.add_node("jp-1", world.add_users(2))
    node.streams[0].idle = node.streams[1].idle = True
    world.flow_until(12)
    world.fetching = replace(world.fetching, step_max_samples=4, page_limit=2)

    def fail(*_: object) -> None:
        world.running["jp-1"].down = True

    result = world.run_unchecked(world.at(14), catch_up, on_step=fail)

    assert (result.status, result.written_minutes, result.error) == ("partial", 0, None)
    assert [source.status for source in result.sources] == ["error"]
    again = world.run_unchecked(world.at(14), catch_up)
    assert (again.status, again.error_code) == ("error", "sources_unreachable")
