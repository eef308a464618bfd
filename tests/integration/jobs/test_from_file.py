"""Snapshots from a file: the same facts as over HTTP, without a network."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.errors import BillingError
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.fetching import FromFile
from billing_cli.jobs.reconcile import reconcile
from billing_cli.jobs.written import NOTES_SHOWN
from billing_cli.simulator.wire import encode_snapshot
from tests.integration.jobs.world import only_source, serving_world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.jobs.world import Job, World
    from tests.support.postgres import Databases

FACTS = {
    "buckets": "SELECT bucket_start, node_id, account_uuid, line_code, uplink_bytes, downlink_bytes"
    " FROM public.traffic_minute_buckets",
    "ledger": "SELECT id, account_uuid, bucket_start, rated_bytes, amount_delta, balance_after"
    " FROM public.billing_ledger",
    "quotas": "SELECT account_uuid, remaining_included_quota, current_balance"
    " FROM public.account_quota_states",
    "checkpoints": "SELECT node_id, account_uuid, last_uplink_total, last_downlink_total,"
    " last_seen_at, reset_epoch FROM public.traffic_stat_checkpoints",
    "records": "SELECT bucket_start, from_at, to_at, uplink_start, uplink_end, account_uuid"
    " FROM billing.usage_records",
    "streams": "SELECT stored_node_id, inbound_tag, sample_uuid, account_uuid, origin, seen_at,"
    " uplink_total, downlink_total, reset_epoch, absent_since, state FROM billing.streams",
    "sources": "SELECT source_id, stored_node_id, watermark, samples_at, contract"
    " FROM billing.sources",
    "gaps": "SELECT source_id, kind, from_at, to_at FROM billing.gaps",
}


def a_history(world: World) -> None:
    """Let users use two nodes; one of the processes restarts."""
    users = world.add_users(3)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(5)
    world.fleet.nodes["us-1"].restart_xray(world.at(5))
    world.flow_until(10)


def snapshots(world: World, *source_ids: str) -> list[bytes]:
    """Return the snapshots of nodes as JSON, mixed as they were taken."""
    nodes = [world.fleet.nodes[name] for name in source_ids or world.fleet.nodes]
    taken = [(snapshot.collected_at, encode_snapshot(node, snapshot)) for node in nodes
             for snapshot in node.snapshots]  # fmt: skip
    return [encoded for _, encoded in sorted(taken)]


def as_list(encoded: list[bytes]) -> bytes:
    """Return a list of snapshots, as exporters store them."""
    return b"[" + b",".join(encoded) + b"]"


def as_lines(encoded: list[bytes]) -> bytes:
    """Return one snapshot a line, as log shippers write them."""
    return b"\n".join(encoded) + b"\n"


def as_pages(encoded: list[bytes]) -> bytes:
    """Return a page of each node, as exporters answer."""
    pages: dict[str, list[Any]] = {}
    for one in map(json.loads, encoded):
        pages.setdefault(one["node_id"], []).append(one)
    return "\n".join(
        json.dumps({"node_id": node, "env": "prod", "snapshots": taken, "has_more": False})
        for node, taken in pages.items()
    ).encode()


def as_gzip(encoded: list[bytes]) -> bytes:
    """Return a compressed list."""
    return gzip.compress(as_list(encoded))


def facts(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Return what is stored, apart from when it was written and by which run."""
    return {name: sorted(world.rows(query), key=repr) for name, query in FACTS.items()}


def written(path: Path, content: bytes) -> FromFile:
    """Write a file of snapshots."""
    path.write_bytes(content)
    return FromFile(str(path))


def without_network(world: World) -> None:
    """Let no exporter be reached."""
    for source_id in world.fleet.nodes:
        world.running[source_id].refused = True


@pytest.mark.parametrize(
    ("job", "layouts"),
    [(collect, (as_list, as_lines, as_pages, as_gzip)), (catch_up, (as_list,))],
    ids=["collect", "catch_up"],
)
def test_a_file_gives_the_database_that_http_gives(
    databases: Databases,
    tmp_path: Path,
    job: Job,
    layouts: tuple[Callable[[list[bytes]], bytes], ...],
) -> None:
    """Whatever its layout: facts, checkpoints and watermarks are equal; a second time is none."""
    stored = []
    for layout in (None, *layouts):
        with (
            databases.database(migrated=True) as url,
            serving_world(url, databases.job_url(url)) as world,
        ):
            a_history(world)
            run = partial(world.run, world.at(12), job)
            if layout is not None:
                without_network(world)
                file = written(tmp_path / "snapshots", layout(snapshots(world)))
                assert run(file=file).status == "ok"
                again = run(file=file)
                assert (again.status, again.written_minutes) == ("ok", 0)
                world.assert_all_is_billed()
            else:
                assert run().status == "ok"
            stored.append(facts(world))
    assert all(found == stored[0] for found in stored)
    assert stored[0]["ledger"] != []


def test_a_file_in_steps_of_whole_minutes_gives_the_same(world: World, tmp_path: Path) -> None:
    """A step is bounded as over HTTP, and told to whoever watches."""
    a_history(world)
    without_network(world)
    world.fetching = replace(world.fetching, step_max_samples=8)
    steps: list[Any] = []
    result = world.run(
        world.at(12),
        catch_up,
        file=written(tmp_path / "snapshots", as_lines(snapshots(world))),
        on_step=lambda results, _: steps.append(dict(results)),
    )
    assert result.steps == len(steps) > 3
    world.assert_all_is_billed()


def test_a_file_fills_what_a_dead_node_had_not_yet_reported(world: World, tmp_path: Path) -> None:
    """It goes on from the watermark; sources that the file has nothing of are left alone."""
    a_history(world)
    world.run(world.at(4))
    reached = dict(world.watermarks)
    without_network(world)
    file = written(tmp_path / "disk.json", as_list(snapshots(world, "us-1")))
    result = world.run(world.at(12), catch_up, file=file)
    assert only_source(result).source_id == "us-1"
    assert world.watermarks["jp-1"] == reached["jp-1"]
    assert world.watermarks["us-1"] > reached["us-1"]
    named = world.run(world.at(12), catch_up, file=file, source_ids=["jp-1"])
    assert only_source(named).notes == ("the file has no snapshot of this source",)


@pytest.mark.parametrize("job", [collect, catch_up])
def test_a_source_without_a_watermark_begins_where_its_file_begins(
    world: World, tmp_path: Path, job: Job
) -> None:
    """Days before the time that an exporter is asked for first; with --since, it begins there."""
    a_history(world)
    without_network(world)
    file = written(tmp_path / "disk.json", as_list(snapshots(world)))
    if job is catch_up:
        late = world.run(world.at(8_000), job, file=file, since=world.at(7_000), dry_run=True)
        assert sum(source.snapshots for source in late.sources) == 0
    assert world.run(world.at(8_000), job, file=file).status == "ok"
    world.assert_all_is_billed()


@pytest.mark.parametrize("job", [collect, catch_up, reconcile])
def test_a_node_that_no_selected_source_takes_is_noted(
    world: World, tmp_path: Path, job: Job
) -> None:
    """It is left out because its source is disabled, not named, or carries another environment."""
    a_history(world)
    world.run(world.at(4))
    without_network(world)
    world.overrides["jp-1"] = {"expected_env": None}
    world.overrides["us-1"] = {"enabled": False}
    other = json.loads(snapshots(world, "jp-1")[0]) | {"env": "test"}
    content = as_lines([*snapshots(world), json.dumps(other).encode()])
    file = written(tmp_path / "disk.json", content)
    result = world.run_unchecked(world.at(12), job, file=file)
    assert (result.status, only_source(result).source_id) == ("ok", "jp-1")
    assert result.notes[0] == (
        "nodes of the file that were left out: 'prod:us-1.svc.plus' (source us-1 is disabled), "
        "'test:jp-1.svc.plus' (source jp-1 carries 'prod:jp-1.svc.plus')"
    )
    world.overrides["us-1"] = {}
    named = world.run_unchecked(world.at(12), job, file=file, source_ids=["jp-1"])
    assert "(source us-1 is not selected)" in named.notes[0]


def test_reconcile_compares_with_a_file(world: World, tmp_path: Path) -> None:
    """A run that missed snapshots is corrected from the disk of the node."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(10)
    node.withhold(world.at(4), world.at(7), world.at(20))
    world.unknown_buckets = True
    world.run_unchecked(world.at(9))
    world.run_unchecked(world.at(12))
    without_network(world)
    file = written(tmp_path / "disk.json", as_list(snapshots(world)))
    result = world.run_unchecked(world.at(12), reconcile, file=file, since=world.at(0))
    assert result.corrections > 0
    world.unknown_buckets = False
    world.assert_all_is_billed()
    again = world.run_unchecked(world.at(12), reconcile, file=file, since=world.at(0))
    assert (again.status, again.corrections) == ("ok", 0)


@pytest.mark.parametrize("step_max_samples", [4, 1000])
def test_reconcile_counts_each_rejected_sample_once(
    world: World, tmp_path: Path, step_max_samples: int
) -> None:
    """Also where a step begins with snapshots that the step before it ended with."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(10)
    world.run(world.at(12))
    without_network(world)
    world.fetching = replace(world.fetching, step_max_samples=step_max_samples)
    taken = [json.loads(encoded) for encoded in snapshots(world)]
    for snapshot in taken:
        snapshot["samples"].append(snapshot["samples"][0] | {"uuid": "no uuid"})
    file = written(tmp_path / "disk.json", json.dumps(taken).encode())
    result = world.run(world.at(12), reconcile, file=file, since=world.at(0))
    source = only_source(result)
    assert (result.steps > 1) == (step_max_samples == 4)
    assert (result.status, source.status) == ("partial", "partial")
    assert source.rejected_samples == len(taken)
    assert source.notes == (
        "sample 3: uuid 'no uuid' is not a UUID",
        f"and {len(taken) - NOTES_SHOWN} more samples that can't be used",
    )


def test_files_that_hold_only_what_is_new_lose_no_history(world: World, tmp_path: Path) -> None:
    """As log shippers deliver them: the snapshot at the watermark was in the file before."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(10)
    without_network(world)
    for number, line in enumerate(snapshots(world)):
        file = written(tmp_path / f"line-{number}", line + b"\n")
        assert only_source(world.run(world.at(number + 2), file=file)).gaps == 0
    assert world.rows("SELECT kind FROM billing.gaps") == []
    world.assert_all_is_billed()


def test_a_restart_does_not_stop_files_that_hold_only_what_is_new(
    world: World, tmp_path: Path
) -> None:
    """No file holds the snapshot after the restart together with its successor."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(10)
    world.fleet.nodes["jp-1"].restart_xray(world.at(10))
    world.flow_until(15)
    without_network(world)
    for number, line in enumerate(snapshots(world)):
        file = written(tmp_path / f"line-{number}", line + b"\n")
        assert only_source(world.run(world.at(number + 2), file=file)).snapshots == 1
    assert world.rows("SELECT kind FROM billing.gaps") == [("reset",)]
    world.assert_all_is_billed()


def test_a_file_that_begins_late_after_the_watermark_leaves_a_late_gap(
    world: World, tmp_path: Path
) -> None:
    """As where an exporter took no snapshot meanwhile; a file with the missing ones closes it."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(10)
    without_network(world)
    lines = snapshots(world)
    world.run(world.at(12), file=written(tmp_path / "first", as_lines(lines[:3])))
    world.unknown_buckets = True
    late = world.run_unchecked(world.at(12), file=written(tmp_path / "second", as_lines(lines[6:])))
    assert only_source(late).gaps == 1
    stamps = [snapshot.collected_at for snapshot in node.snapshots]
    assert world.rows("SELECT kind, from_at, to_at, resolved_at FROM billing.gaps") == [
        ("late", stamps[2], stamps[6], None)
    ]
    world.unknown_buckets = False
    file = written(tmp_path / "all", as_lines(lines))
    assert world.run(world.at(12), reconcile, file=file, since=world.at(0)).corrections > 0
    assert world.rows("SELECT resolved_at IS NULL FROM billing.gaps") == [(False,)]
    world.assert_all_is_billed()


def test_a_node_that_no_source_claims_is_named_and_nothing_is_written(
    world: World, tmp_path: Path
) -> None:
    """Not even of the nodes that are known."""
    a_history(world)
    stray = json.loads(snapshots(world, "jp-1")[0]) | {"node_id": "stray"}
    before = world.tables("public.billing_ledger", "billing.sources", "billing.streams")
    content = as_lines([*snapshots(world), json.dumps(stray).encode()])
    with pytest.raises(BillingError, match="no source claims the node 'prod:stray'"):
        world.run(world.at(12), catch_up, file=written(tmp_path / "file", content))
    assert world.tables(*before) == before


def test_a_broken_line_fails_the_run_and_names_its_place(world: World, tmp_path: Path) -> None:
    """A file that was cut short is not used in part."""
    a_history(world)
    content = as_lines(snapshots(world)[:3]) + snapshots(world)[3][:-9]
    with pytest.raises(BillingError, match="file: ends within value 4"):
        world.run(world.at(12), file=written(tmp_path / "file", content))
    with pytest.raises(BillingError, match="nowhere: No such file"):
        world.run(world.at(12), file=FromFile(str(tmp_path / "nowhere")))
    assert world.rows("SELECT count(*) FROM billing.streams") == [(0,)]
