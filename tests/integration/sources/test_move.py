"""Sources that get another id, or another node id: nothing is billed twice, nothing is skipped."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.database.source_status import read_source_status
from billing_cli.database.sources import try_lock_sources
from billing_cli.errors import BillingError, UsageError
from billing_cli.features.held.job import list_held, release_held, select_held
from billing_cli.features.sources.job import MoveResult, move_source
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.invariants import violations
from tests.integration.jobs.world import FIRES_AT, only_source

if TYPE_CHECKING:
    from billing_cli.config.source import Source
    from billing_cli.simulator.traffic import Node
    from tests.integration.jobs.world import World

READ_SYNC_STATE = """
SELECT source_id, last_completed_until FROM public.billing_source_sync_state ORDER BY source_id
"""
READ_STATES = """
SELECT stored_node_id, state, count(*) FROM billing.streams GROUP BY 1, 2 ORDER BY 1, 2
"""


class Moving:
    """A world with one node whose source, and whose own id, may change."""

    def __init__(self, world: World, minutes: int = 5) -> None:
        self.world = world
        self.users = world.add_users(3)
        self.node: Node = world.add_node("jp-1", self.users)
        self.stored = self.node.identity.stored
        self.flowed = minutes
        self.source: dict[str, Any] = {}
        world.flow_until(minutes)

    def sources(self) -> tuple[Source, ...]:
        """Return the one source as it is configured now."""
        (one,) = self.world.sources()
        return (replace(one, **self.source),)

    def flow(self, minutes: int) -> None:
        """Let traffic flow up to a minute."""
        self.flowed = minutes
        self.world.flow_until(minutes)

    def run(self, minute: float, job: Any = catch_up, **options: Any) -> Any:
        """Run a job when that minute is closed, and check the books."""
        now = self.world.at(minute + 1) + FIRES_AT
        self.world.fleet.present = now
        result = job(replace(self.world.context(now), sources=self.sources()), **options)
        assert violations(self.world.connection, self.world.opening()) == []
        return result

    def move(self, old: str, new: str, **options: Any) -> MoveResult:
        """Move a source as if it were the minute up to which traffic flowed."""
        result = self.run(self.flowed, lambda context: move_source(context, old, new, **options))
        assert isinstance(result, MoveResult)
        return result

    def assert_all_is_billed(self, *, apart_from: int = 0) -> None:
        """Every byte that flowed since the baseline is billed once."""
        flowed = sum(sum(stream.flowed()) for stream in self.node.streams) - apart_from
        assert self.world.billed_bytes() == (flowed, flowed)


@pytest.fixture
def moving(world: World) -> Moving:
    """Return a node with three users that was collected up to now."""
    made = Moving(world)
    made.run(5)
    return made


def test_a_source_goes_on_under_another_id(moving: Moving) -> None:
    """Same watermark, same counters: the minutes before and after are billed once."""
    watermark = moving.world.rows("SELECT watermark FROM billing.sources")[0][0]
    moving.source = {"source_id": "tokyo-1"}
    result = moving.move("jp-1", "tokyo-1")
    assert (result.status, result.watermark, result.streams) == ("ok", watermark, 0)
    assert moving.world.rows(READ_SYNC_STATE) == [("jp-1", watermark), ("tokyo-1", watermark)]
    moving.flow(9)
    assert only_source(moving.run(9)).error is None
    moving.assert_all_is_billed()
    assert moving.world.rows("SELECT kind FROM billing.gaps") == []


def test_gaps_move_along_and_a_stall_ends_under_the_new_id(moving: Moving) -> None:
    """They are what is known of the source's history."""
    assert only_source(moving.run(15)).gaps == 1
    moving.source = {"source_id": "tokyo-1"}
    moving.move("jp-1", "tokyo-1")
    moving.flow(17)
    moving.run(18)
    found = moving.world.rows(
        "SELECT source_id, kind, resolved_at IS NOT NULL FROM billing.gaps WHERE kind = 'stalled'"
    )
    assert found == [("tokyo-1", "stalled", True)]
    moving.assert_all_is_billed()


def test_the_former_source_id_starts_nothing_of_its_own(moving: Moving) -> None:
    """Where it is still configured its node belongs to the new one; for another node it is new."""
    moving.source = {"source_id": "tokyo-1"}
    moving.move("jp-1", "tokyo-1")
    moving.flow(8)
    moving.run(8)
    moving.source = {}
    error = only_source(moving.run(8)).error or ""
    assert "is claimed by the sources 'jp-1' and 'tokyo-1'" in error
    assert "billing sources move tokyo-1 jp-1" in error
    other = moving.world.add_node("other", moving.users)
    moving.flow(12)
    moving.source = {
        "base_url": moving.world.running.base_url("other"),
        "expected_node_id": other.identity.node_id,
    }
    moving.sources = lambda: (  # type: ignore[method-assign]
        replace(moving.world.sources()[0], **moving.source),
    )
    moving.run(12)
    origins = moving.world.rows(
        "SELECT DISTINCT origin FROM billing.streams WHERE stored_node_id = %s",
        other.identity.stored,
    )
    assert origins == [("baseline",)]


def test_a_move_can_be_taken_back(moving: Moving) -> None:
    """As long as the former id was not collected since."""
    for old, new in (("jp-1", "tokyo-1"), ("tokyo-1", "jp-1")):
        moving.source = {"source_id": new}
        moving.move(old, new)
        moving.flow(moving.flowed + 3)
        moving.run(moving.flowed)
    moving.assert_all_is_billed()


def test_a_dry_run_moves_nothing(moving: Moving) -> None:
    """It says what would go on where."""
    moving.source = {"source_id": "tokyo-1"}
    before = moving.world.tables()
    result = moving.move("jp-1", "tokyo-1", dry_run=True)
    assert (result.status, result.new_source_id) == ("ok", "tokyo-1")
    assert moving.world.tables() == before
    moving.source = {}
    result = moving.move("jp-1", "prod:other", is_same_counters=True, dry_run=True)
    assert result.streams == 3
    assert moving.world.tables() == before


def test_sources_that_a_run_holds_are_busy(moving: Moving) -> None:
    """Nothing is moved under it."""
    moving.source = {"source_id": "tokyo-1"}
    with psycopg.connect(moving.world.database_url) as other:
        try_lock_sources(other, ["jp-1"])
        result = moving.move("jp-1", "tokyo-1")
    assert (result.status, result.error) == ("busy", "another run holds the source jp-1")
    assert moving.move("jp-1", "tokyo-1").status == "ok"


def test_what_can_not_be_meant_is_refused(moving: Moving) -> None:
    """The message says what is known, and what to do."""

    def refused(old: str, new: str, text: str, **options: Any) -> None:
        with pytest.raises(BillingError, match=text):
            moving.move(old, new, **options)

    refused("unknown", "jp-1", "nothing has been collected from source 'unknown'")
    refused("jp-1", "tokyo-1", "unknown source tokyo-1; configured: jp-1")
    refused("jp-1", "jp-1", "both are the same source")
    refused("jp-1", "jp-1", "has the id 'prod:jp-1.svc.plus' already", is_same_counters=True)
    moving.source = {"expected_node_id": None}
    refused("jp-1", "jp-1", "set its expected_node_id", is_same_counters=True)
    moving.source = {"source_id": "tokyo-1", "expected_node_id": "tokyo"}
    refused("jp-1", "tokyo-1", "expects node 'prod:tokyo'.*add --same-counters")
    with pytest.raises(UsageError):
        moving.move("jp-1", "nowhere")


def test_a_source_that_was_collected_is_no_place_to_move_to(world: World) -> None:
    """It has a watermark and a node of its own."""
    users = world.add_users(1)
    for source_id in ("jp-1", "us-1"):
        world.add_node(source_id, users)
    world.flow_until(5)
    world.run(world.at(5) + FIRES_AT)
    context = world.context(world.at(6))
    with pytest.raises(BillingError, match="'us-1' has been collected already"):
        move_source(context, "jp-1", "us-1")
    taken = world.fleet.nodes["us-1"].identity.stored
    with pytest.raises(BillingError, match="has been collected already by source 'us-1'"):
        move_source(context, "jp-1", taken, is_same_counters=True)


@pytest.mark.parametrize(
    ("outage", "is_restarted"),
    [(0, False), (0, True), (90, False), (3, True)],
    ids=["at once", "with a restart", "after an outage", "after an outage with a restart"],
)
def test_the_counters_of_a_renamed_node_go_on(
    moving: Moving, outage: int, *, is_restarted: bool
) -> None:
    """Charged is what flowed, to the byte, and the books are clean."""
    world, node = moving.world, moving.node
    moving.flow(7)  # Under the old id, and not collected before the move.
    if is_restarted:
        node.restart_xray(world.at(7))
    renamed_at = 7 + outage
    if outage:
        node.hide(world.at(7) + timedelta(seconds=1), world.at(renamed_at))
    node.rename("tokyo-1.svc.plus")
    moving.source = {"expected_node_id": "jp-1.svc.plus"}
    moving.flow(renamed_at + 4)
    error = only_source(moving.run(renamed_at + 4)).error or ""
    assert "billing sources move jp-1 ENV:NODE_ID --same-counters" in error
    moving.source = {}
    result = moving.move("jp-1", "jp-1", is_same_counters=True)
    assert (result.streams, result.new_node_id) == (3, "prod:tokyo-1.svc.plus")
    assert only_source(moving.run(renamed_at + 4)).error is None
    moving.flow(renamed_at + 8)
    moving.run(renamed_at + 8)
    moving.assert_all_is_billed()
    assert world.rows(READ_STATES) == [
        (moving.stored, "continued", 3),
        ("prod:tokyo-1.svc.plus", "active", 3),
    ]
    corrected = moving.run(renamed_at + 8, reconcile, since=world.at(0))
    assert (corrected.corrections, corrected.status) == (0, "ok")
    moving.assert_all_is_billed()


def test_a_node_may_be_renamed_again_and_back(moving: Moving) -> None:
    """Each of its streams goes on where the one before ended."""
    for minute, name in ((7, "b"), (10, "c"), (13, "jp-1.svc.plus"), (16, "b")):
        moving.node.rename(name)
        moving.flow(minute)
        moving.move("jp-1", f"prod:{name}", is_same_counters=True)
        moving.run(minute + 1)
    moving.assert_all_is_billed()


def test_absent_streams_go_on_as_well(moving: Moving) -> None:
    """A counter that is not published for a while returns under the new id with its old total."""
    world, node = moving.world, moving.node
    node.hide_stream(node.streams[0], world.at(5) + timedelta(seconds=30), world.at(12))
    moving.flow(8)
    moving.run(8)
    node.rename("b")
    moving.flow(10)
    moving.move("jp-1", "prod:b", is_same_counters=True)
    moving.flow(15)
    moving.run(15)
    moving.assert_all_is_billed()


def test_usage_that_waits_under_the_old_id_is_charged_when_its_account_appears(
    moving: Moving,
) -> None:
    """In its own minutes, on the node as it was called then."""
    world, node = moving.world, moving.node
    user = world.fleet.add_user()
    node.add_stream(user.uuid, "xhttp")
    moving.flow(8)
    moving.run(8)
    node.rename("b")
    moving.flow(10)
    moving.move("jp-1", "prod:b", is_same_counters=True)
    moving.run(11)
    world.save_users()
    moving.flow(13)
    moving.run(14)
    moving.assert_all_is_billed()
    nodes = world.rows(
        "SELECT DISTINCT node_id FROM public.traffic_minute_buckets WHERE account_uuid = %s "
        "ORDER BY 1",
        user.uuid,
    )
    assert nodes == [("prod:b",), (moving.stored,)]


def test_source_and_node_may_change_at_once(moving: Moving) -> None:
    """NEW is then a source that expects the new id."""
    moving.node.rename("b")
    moving.flow(8)
    moving.source = {"source_id": "tokyo-1"}
    result = moving.move("jp-1", "tokyo-1", is_same_counters=True)
    assert (result.new_source_id, result.new_node_id) == ("tokyo-1", "prod:b")
    moving.run(9)
    moving.assert_all_is_billed()
    checkpoints = moving.world.rows(
        "SELECT node_id, account_uuid::text, (last_uplink_total, last_downlink_total)::text "
        "FROM public.traffic_stat_checkpoints WHERE node_id = 'prod:b' ORDER BY 2"
    )
    assert [account for _, account, _ in checkpoints] == sorted(user.uuid for user in moving.users)


def test_held_deltas_of_the_old_id_can_still_be_decided(moving: Moving) -> None:
    """They are listed under the source, and released in its newest minute."""
    world, node = moving.world, moving.node
    node.flow(node.streams[0], 10**12, 10**12)
    moving.flow(8)
    moving.run(8)
    ((held_id,),) = world.rows("SELECT held_id FROM billing.held_deltas LIMIT 1")
    node.rename("b")
    moving.flow(10)
    moving.move("jp-1", "prod:b", is_same_counters=True)
    moving.run(11)
    (listed, *_) = moving.run(11, lambda context: list_held(context, ["jp-1"])).deltas
    assert (listed.held_id, listed.source_id) == (held_id, "jp-1")
    held = [one for (one,) in world.rows("SELECT held_id FROM billing.held_deltas")]
    released = moving.run(11, lambda context: release_held(context, held, "it was right"))
    assert released.status == "ok"
    moving.assert_all_is_billed()


def test_held_deltas_of_the_old_id_are_selected_by_source(moving: Moving) -> None:
    """`held release` and `held reject` with --source decide what `held list` shows."""
    moving.node.flow(moving.node.streams[0], 10**12, 10**12)
    moving.flow(8)
    moving.run(8)
    moving.node.rename("b")
    moving.move("jp-1", "prod:b", is_same_counters=True)
    listed = moving.run(9, lambda context: list_held(context, ["jp-1"])).deltas
    selected = moving.run(9, lambda context: select_held(context, "jp-1", moving.world.at(0)))
    assert selected == [delta.held_id for delta in listed] != []


def test_what_a_former_id_held_is_counted_under_the_source(moving: Moving) -> None:
    """In `status`, metrics and alerts; successions found under that id as well."""
    world, node = moving.world, moving.node
    node.flow(node.streams[0], 10**12, 10**12)
    moving.flow(8)
    moving.run(8)
    world.connection.execute(
        "INSERT INTO billing.successions (source_id, stored_node_id, at, kind, uncertain_bytes,"
        " run_id) VALUES ('jp-1', %s, now(), 'renamed', 7, gen_random_uuid())",
        (moving.stored,),
    )
    (before,) = read_source_status(world.connection, ["jp-1"])
    assert before.held_bytes >= 2 * 10**12
    node.rename("b")
    moved = moving.move("jp-1", "prod:b", is_same_counters=True)

    (after,) = read_source_status(world.connection, ["jp-1"])
    assert (after.held_deltas, after.held_bytes) == (before.held_deltas, before.held_bytes)
    assert (after.successions, after.succession_uncertain_bytes) == (1 + moved.streams, 7)


def test_another_node_does_not_inherit_the_former_ids(moving: Moving) -> None:
    """Where the operator says that another node is behind the source, that one is new.

    The first run says so, with what comes first where the counters are the same after all.
    """
    world = moving.world
    moving.node.rename("b")
    moving.flow(8)
    moving.move("jp-1", "prod:b", is_same_counters=True)
    moving.run(8)
    other = world.add_node("other", moving.users)
    moving.flow(12)
    moving.sources = lambda: (  # type: ignore[method-assign]
        replace(
            world.sources()[0],
            base_url=world.running.base_url("other"),
            expected_node_id=other.identity.node_id,
        ),
    )
    result = only_source(moving.run(12))
    assert result.node_id == other.identity.node_id
    (note,) = result.notes
    assert "another one than 'prod:b'" in note
    assert "billing sources move jp-1 prod:other.svc.plus --same-counters comes first" in note
    moving.flow(13)
    assert only_source(moving.run(13)).notes == ()
    assert world.rows("SELECT former_nodes FROM billing.sources") == [([],)]


def test_ignored_streams_stay_ignored(moving: Moving) -> None:
    """Under the new id, and when the node gets its old id back."""
    moving.world.connection.execute(
        "UPDATE billing.streams SET state = 'ignored' WHERE stream_id = "
        "(SELECT min(stream_id) FROM billing.streams)"
    )
    for name in ("b", "jp-1.svc.plus"):
        moving.node.rename(name)
        moving.flow(moving.flowed + 3)
        moving.move("jp-1", f"prod:{name}", is_same_counters=True)
    states = moving.world.rows(READ_STATES)
    assert states == [
        ("prod:b", "continued", 2),
        ("prod:b", "ignored", 1),
        (moving.stored, "active", 2),
        (moving.stored, "ignored", 1),
    ]
