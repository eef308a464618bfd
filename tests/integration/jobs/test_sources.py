"""Sources beside each other: who is busy, whose node it is, what is asked when, what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.core.model import NodeIdentity
from billing_cli.database.sources import add_sources, try_lock_sources
from billing_cli.errors import ConfigurationError, UsageError
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.fetching import NOT_BEFORE_UNTIL
from billing_cli.simulator.invariants import violations
from tests.integration.jobs.world import only_source

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.result import RunResult
    from billing_cli.jobs.context import JobContext
    from tests.integration.jobs.world import World

# Enough for several pages of thousands of samples, with a wide margin.
DEADLINE_SECONDS = 6.0
MANY_STREAMS = 2_000

JOBS = pytest.mark.parametrize("job", [collect, catch_up], ids=lambda job: job.__name__)

READ_ATTEMPTS = "SELECT source_id, last_attempted_at FROM public.billing_source_sync_state"


def test_sources_that_another_run_holds_are_busy(world: World) -> None:
    """Nothing is done about them, and nothing is noted."""
    two_nodes(world)
    with psycopg.connect(world.database_url) as other:
        add_sources(world.connection, ["jp-1", "us-1"])
        assert try_lock_sources(other, ["jp-1", "us-1"]) == {"jp-1", "us-1"}
        result = world.run(world.at(4))
        assert statuses(result) == {"jp-1": "busy", "us-1": "busy"}
        assert result.status == "busy"
        assert world.rows(READ_ATTEMPTS) == []
    assert world.run(world.at(4)).status == "ok"


def test_the_other_sources_of_a_run_go_on_beside_a_busy_one(world: World) -> None:
    """What is free is collected, and that is all that is to be done now."""
    two_nodes(world)
    with psycopg.connect(world.database_url) as other:
        add_sources(world.connection, ["us-1"])
        try_lock_sources(other, ["us-1"])
        result = world.run(world.at(4))
    assert statuses(result) == {"jp-1": "ok", "us-1": "busy"}
    assert result.status == "ok"
    assert world.watermarks.keys() == {"jp-1"}


def test_a_source_that_is_down_is_recorded_and_the_others_commit(world: World) -> None:
    """Its watermark stays, and goes on from there when it is back."""
    two_nodes(world)
    world.run(world.at(3))
    reached = dict(world.watermarks)
    world.running["us-1"].refused = True
    result = world.run(world.at(6))
    assert result.status == "partial"
    assert result.sources[1].unreachable
    assert "connect to 127.0.0.1" in (result.sources[1].error or "")
    assert world.watermarks["us-1"] == reached["us-1"]
    assert world.watermarks["jp-1"] > reached["jp-1"]
    world.running["us-1"].refused = False
    world.run(world.at(12))
    world.assert_all_is_billed()


def test_a_source_that_hangs_does_not_keep_a_large_node_from_being_charged(world: World) -> None:
    """The run goes on at its deadline, with all that the others have answered."""
    users = world.add_users(MANY_STREAMS)
    world.add_node("jp-1", users)
    world.add_node("us-1", users[:1])
    world.flow_until(3)
    world.running["us-1"].latency_seconds = 3600
    world.fetching = replace(world.fetching, deadline_seconds=DEADLINE_SECONDS)
    result = world.run_unchecked(world.at(4))
    assert statuses(result) == {"jp-1": "ok", "us-1": "error"}
    assert result.sources[1].unreachable
    assert result.processed_samples == 3 * MANY_STREAMS
    assert result.written_minutes > MANY_STREAMS
    assert len(world.running["jp-1"].requests) > 1
    world.running["us-1"].latency_seconds = 0


def test_a_latest_snapshot_after_until_is_not_applied(world: World) -> None:
    """A note says so, and the source is not stalled; with a later --until it is applied."""
    world.add_node("jp-1", world.add_users(2))
    world.running["jp-1"].windowed = False
    world.overrides["jp-1"] = {"mode": "latest"}
    world.unknown_buckets = True
    world.flow_until(60)
    world.collect_every_minute(0, 2)
    reached = dict(world.watermarks)
    result = world.run(world.at(60), catch_up, until=world.at(50))
    assert reached.keys() == {"jp-1"}
    assert world.watermarks == reached
    source = only_source(result)
    assert (result.status, source.snapshots, source.gaps) == ("ok", 0, 0)
    assert source.notes == (NOT_BEFORE_UNTIL,)
    world.run(world.at(61), catch_up, until=world.at(62))
    assert world.watermarks["jp-1"] == world.at(60)
    world.assert_all_is_billed()


def test_two_sources_that_claim_one_node_are_both_refused(world: World) -> None:
    """Nobody can know which is the right one; the error names both."""
    two_nodes(world)
    world.overrides["jp-1"] = {"expected_node_id": None}
    world.overrides["us-1"] = {"base_url": world.running.base_url("jp-1"), "expected_node_id": None}
    result = world.run(world.at(4))
    errors = [source.error or "" for source in result.sources]
    assert statuses(result) == {"jp-1": "error", "us-1": "error"}
    assert all("'jp-1'" in error and "'us-1'" in error for error in errors)
    assert world.watermarks == {}


def test_a_node_stays_with_the_source_that_it_belongs_to(world: World) -> None:
    """A second one that claims it later is refused alone."""
    two_nodes(world)
    world.run(world.at(4), source_ids=["jp-1"])
    world.overrides["us-1"] = {"base_url": world.running.base_url("jp-1"), "expected_node_id": None}
    result = world.run(world.at(6))
    assert statuses(result) == {"jp-1": "ok", "us-1": "error"}
    assert "is claimed by the sources 'us-1' and 'jp-1'" in (result.sources[1].error or "")


def test_another_node_behind_a_source_is_refused(world: World) -> None:
    """Where no node is expected by name, the one that was met first is."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.overrides["jp-1"] = {"expected_node_id": None, "expected_env": None}
    world.flow_until(8)
    world.run(world.at(4))
    world.running["jp-1"].identity = NodeIdentity("prod", "jp-2")
    result = world.run(world.at(6))
    assert only_source(result).error == (
        "answers as node 'prod:jp-2', but was 'prod:jp-1.svc.plus' so far; where the node has "
        "another id now: billing sources move jp-1 prod:jp-2 --same-counters; where this is "
        "another node: set expected_node_id"
    )
    world.running["jp-1"].identity = None
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_another_node_behind_a_source_is_a_new_beginning_where_it_is_meant(world: World) -> None:
    """Its first snapshot is a baseline; what the old one had is left as it is."""
    users = world.add_users(2)
    old = world.add_node("old", users)
    new = world.add_node("new", users)
    world.flow_until(12)
    world.run(world.at(4), source_ids=["old"])
    world.overrides["old"] = {
        "base_url": world.running.base_url("new"),
        "expected_node_id": new.identity.node_id,
    }
    result = world.run_unchecked(world.at(8), source_ids=["old"])
    assert only_source(result).node_id == new.identity.node_id
    begun = world.rows(
        "SELECT DISTINCT stored_node_id, origin, first_seen_at FROM billing.streams "
        "ORDER BY stored_node_id DESC"
    )
    baseline = next(
        snapshot for snapshot in new.snapshots if snapshot.collected_at > world.watermarks["old"]
    )
    assert begun == [
        (old.identity.stored, "baseline", old.snapshots[0].collected_at),
        (new.identity.stored, "baseline", baseline.collected_at),
    ]
    assert violations(world.connection, world.opening()) == []


def test_unknown_and_disabled_sources_are_usage_errors(world: World) -> None:
    """The text names the known ones."""
    two_nodes(world)
    world.overrides["us-1"] = {"enabled": False}
    with pytest.raises(UsageError, match="unknown source x; configured: jp-1, us-1"):
        world.run(world.at(4), source_ids=["x"])
    with pytest.raises(UsageError, match="us-1 is disabled"):
        world.run(world.at(4), source_ids=["us-1"])
    assert statuses(world.run(world.at(4))) == {"jp-1": "ok"}


def test_a_run_without_sources_is_a_configuration_error(world: World) -> None:
    """It says which variables would list them."""
    with pytest.raises(ConfigurationError, match="EXPORTER_SOURCES_JSON"):
        world.run(world.at(4))


def test_a_source_is_left_alone_until_its_interval_is_over(world: World) -> None:
    """Runs come every minute, it wants to be asked every three; a timer may be a second early."""
    two_nodes(world)
    world.overrides["us-1"] = {"collect_interval_seconds": 180}
    seen = [statuses(world.run(world.at(minute)))["us-1"] for minute in (2, 3, 4)]
    assert seen == ["ok", "skipped", "skipped"]
    assert len(world.running["us-1"].requests) == 1
    assert world.run(world.at(4)).status == "ok"
    early = world.at(5) - timedelta(seconds=0.9)
    assert statuses(world.run(early)) == {"jp-1": "ok", "us-1": "ok"}


def test_an_attempt_in_the_future_keeps_no_source_waiting(world: World) -> None:
    """A run whose clock was ten days ahead has noted it."""
    two_nodes(world)
    world.overrides["us-1"] = {"collect_interval_seconds": 180}
    world.run(world.at(2))
    world.connection.execute(
        "UPDATE billing_source_sync_state SET last_attempted_at = %s", (world.at(14_400),)
    )
    assert statuses(world.run(world.at(3)))["us-1"] == "ok"


@pytest.mark.parametrize("mode", ["auto", "window", "latest"])
def test_a_legacy_watermark_in_the_future_is_an_error_of_its_source(
    world: World, mode: str
) -> None:
    """Nothing would be charged until then, and nobody would see why."""
    two_nodes(world)
    world.overrides["us-1"] = {"mode": mode}
    world.connection.execute(
        "INSERT INTO billing_source_sync_state (source_id, last_completed_until) VALUES (%s, %s)",
        ("us-1", world.at(14_400)),
    )
    result = world.run(world.at(3))
    assert statuses(result) == {"jp-1": "ok", "us-1": "error"}
    assert "correct last_completed_until" in str(result.sources[1].error)
    world.connection.execute(
        "UPDATE billing_source_sync_state SET last_completed_until = NULL WHERE source_id = 'us-1'"
    )
    assert world.run_unchecked(world.at(5)).status == "ok"


def test_an_interval_counts_from_the_start_of_a_run(world: World) -> None:
    """A fetch of 4 s does not turn every minute into every second one."""
    two_nodes(world)
    world.overrides["us-1"] = {"collect_interval_seconds": 60}
    for minute in (2, 3, 4):
        assert statuses(collect(taking_seconds(world, world.at(minute), 4)))["us-1"] == "ok"


def test_a_source_that_is_named_is_asked_whatever_its_interval(world: World) -> None:
    """An operator asks because it is wanted now; catch-up does not wait either."""
    two_nodes(world)
    world.overrides["us-1"] = {"collect_interval_seconds": 180}
    world.run(world.at(2))
    assert statuses(world.run(world.at(3), source_ids=["us-1"])) == {"us-1": "ok"}
    assert statuses(world.run(world.at(4), catch_up))["us-1"] == "ok"


def test_the_region_is_the_source_s_own_or_the_default_or_none(world: World) -> None:
    """It is part of each bucket's key, and of the ledger ids."""
    users = world.add_users(1)
    for source_id in ("own", "default"):
        world.add_node(source_id, users)
    world.flow_until(8)
    world.overrides["own"] = {"region": "jp"}
    world.run(world.at(2))
    world.run(world.at(5))
    world.tariff = replace(world.tariff, default_region="eu")
    world.run(world.at(10))
    found = world.rows(
        "SELECT DISTINCT node_id, region, bucket_start > %s "
        "FROM public.traffic_minute_buckets ORDER BY 1, 3",
        world.at(3),
    )
    assert found == [
        ("prod:default.svc.plus", "", False),
        ("prod:default.svc.plus", "eu", True),
        ("prod:own.svc.plus", "jp", False),
        ("prod:own.svc.plus", "jp", True),
    ]
    world.assert_all_is_billed()


def test_the_pricing_rule_version_stands_beside_everything_it_priced(world: World) -> None:
    """Buckets, ledger and evidence each say under which version."""
    two_nodes(world)
    world.run(world.at(4))
    world.tariff = replace(world.tariff, pricing_rule_version="v2")
    world.run(world.at(8))
    found = world.rows(
        "SELECT source_revision, entry.pricing_rule_version, charge.pricing_rule_version "
        "FROM public.billing_ledger AS entry "
        "JOIN billing.charges AS charge ON charge.ledger_id = entry.id "
        "JOIN public.traffic_minute_buckets AS bucket "
        "  ON (bucket.bucket_start, node_id, bucket.account_uuid, bucket.line_code) "
        "   = (charge.bucket_start, stored_node_id, charge.account_uuid, charge.line_code) "
        "GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert found == [("v1", "v1", "v1"), ("v2", "v2", "v2")]


def test_a_source_that_answers_and_has_nothing_new_is_stalled(world: World) -> None:
    """After five minutes that is a gap, found once, which ends with the next snapshot."""
    node = world.add_node("jp-1", world.add_users(1))
    world.flow_until(2)
    world.run(world.at(4))
    gaps = [only_source(world.run(world.at(minute))).gaps for minute in (7, 9, 10)]
    assert gaps == [0, 1, 0]
    (gap,) = world.rows("SELECT kind, from_at, to_at FROM billing.gaps")
    assert gap == ("stalled", world.watermarks["jp-1"], None)
    world.flow_until(12)
    world.run(world.at(14))
    (gap,) = world.rows("SELECT to_at, resolution FROM billing.gaps WHERE kind = 'stalled'")
    assert gap == (node.snapshots[3].collected_at, "snapshots came again")


def test_snapshots_without_samples_are_a_stall_as_well(world: World) -> None:
    """The watermark goes on; the gap is found once, and ends when there are samples again."""
    node = world.add_node("jp-1", world.add_users(1))
    world.flow_until(3)
    world.run(world.at(4))
    (last_with_samples,) = world.watermarks.values()
    node.has_statistics = False
    world.flow_until(13)
    gaps = [only_source(world.run(world.at(minute))).gaps for minute in (6, 8, 10, 12)]
    assert gaps == [0, 0, 1, 0]
    assert world.watermarks["jp-1"] > last_with_samples
    found = world.rows("SELECT kind, from_at, to_at FROM billing.gaps")
    assert [kind for kind, *_ in found] == ["stalled"]
    assert found[0][2] is None
    node.has_statistics = True
    world.flow_until(15)
    world.run(world.at(17))
    (ended,) = world.rows("SELECT resolution FROM billing.gaps WHERE kind = 'stalled'")
    assert ended == ("snapshots came again",)
    world.assert_all_is_billed()


def test_a_404_is_a_failure_of_a_source_that_had_snapshots(world: World) -> None:
    """Before the first one it only says that there is none yet."""
    two_nodes(world)
    world.running["us-1"].status = 404
    result = world.run(world.at(4))
    assert statuses(result) == {"jp-1": "ok", "us-1": "ok"}
    world.running["us-1"].status = None
    world.run(world.at(6))
    world.running["us-1"].status = 404
    result = world.run(world.at(8))
    assert statuses(result) == {"jp-1": "ok", "us-1": "error"}
    assert "HTTP 404" in (result.sources[1].error or "")


def test_history_that_is_gone_is_a_gap(world: World) -> None:
    """The bytes are kept, because counters are cumulative; that the minutes blur is on record."""
    node = world.add_node("jp-1", world.add_users(2))
    world.flow_until(9)
    world.run(world.at(4))
    node.forget_before(world.at(7))
    world.unknown_buckets = True
    assert only_source(world.run_unchecked(world.at(11))).gaps == 1
    kinds = world.rows("SELECT kind, from_at FROM billing.gaps")
    assert kinds == [("history_lost", node.snapshots[2].collected_at)]
    world.assert_all_is_billed()


def two_nodes(world: World) -> None:
    """Let two users use two nodes."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(10)


def taking_seconds(world: World, now: datetime, seconds: float) -> JobContext:
    """Return a context whose clock goes on by so much once the sources were asked."""
    asked = [len(world.running[name].requests) for name in world.fleet.nodes]
    world.fleet.present = now

    def clock() -> datetime:
        is_answered = asked != [len(world.running[name].requests) for name in world.fleet.nodes]
        return now + timedelta(seconds=seconds if is_answered else 0)

    return replace(world.context(now), clock=clock)


def statuses(result: RunResult) -> dict[str, str]:
    """Return each source's status."""
    return {source.source_id: source.status for source in result.sources}


def test_a_node_that_a_source_comes_back_to_goes_on_where_it_was(world: World) -> None:
    """Its streams are known: what flowed while another one was behind the source is billed."""
    users = world.add_users(2)
    old = world.add_node("old", users)
    new = world.add_node("new", users)
    world.flow_until(16)
    world.run(world.at(4), source_ids=["old"])
    for node, until in ((new, 8), (old, 12), (old, 14), (new, 16)):
        world.overrides["old"] = {
            "base_url": world.running.base_url(node.source_id),
            "expected_node_id": node.identity.node_id,
        }
        result = world.run_unchecked(world.at(until), source_ids=["old"])
        assert only_source(result).error is None
        assert only_source(result).node_id == node.identity.node_id
    assert violations(world.connection, world.opening()) == []
    told_of = {node.identity.stored: node.snapshots for node in (old, new)}
    moved = world.rows(
        "SELECT stored_node_id, max(seen_at),"
        "       sum(uplink_total - first_uplink_total)::bigint, ("
        "SELECT sum(uplink_bytes)::bigint FROM public.traffic_minute_buckets"
        " WHERE node_id = stored_node_id)"
        "  FROM billing.streams GROUP BY stored_node_id"
    )
    assert len(moved) == 2
    for node, seen_at, by_counters, billed in moved:
        assert by_counters == billed > 0
        assert seen_at > told_of[node][10].collected_at
