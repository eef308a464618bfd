from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from billing_cli.core.model import Snapshot, Totals
from billing_cli.simulator.oracle import BucketName, Bytes, Oracle, Unbilled, in_time
from billing_cli.simulator.traffic import Fleet, Node, Stream
from billing_cli.simulator.traffic import Snapshot as Taken

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def test_bytes_belong_to_the_minute_of_the_later_snapshot() -> None:
    """What flows between 12:00 and 12:01 is a bucket of 12:01, in the stored node's name."""
    fleet, node, stream = lone_stream()
    owner = fleet.users[0].uuid
    snap(node, 0)
    node.flow(stream, 10, 100)
    snap(node, 1)
    node.flow(stream, 1, 2)
    snap(node, 3)
    assert Oracle(fleet).bytes_by_bucket() == {
        BucketName(minute(fleet, 1), "prod:jp-1.svc.plus", owner, "xhttp"): Bytes(10, 100),
        BucketName(minute(fleet, 3), "prod:jp-1.svc.plus", owner, "xhttp"): Bytes(1, 2),
    }
    assert Oracle(fleet).bytes_by_account() == {owner: Bytes(11, 102)}
    assert Oracle(fleet).bytes_by_node() == {"prod:jp-1.svc.plus": Bytes(11, 102)}


def test_the_first_snapshot_is_a_baseline() -> None:
    """What flowed before a biller's first snapshot is not billed, unless it is asked to."""
    fleet, node, stream = lone_stream()
    node.flow(stream, 7, 7)
    snap(node, 0)
    node.flow(stream, 10, 100)
    snap(node, 1)
    assert billed(Oracle(fleet)) == Bytes(10, 100)
    assert reasons(Oracle(fleet)) == {"baseline": 14}
    assert billed(Oracle(fleet, charge_first_snapshot=True)) == Bytes(17, 107)
    assert billed(Oracle(fleet, since=minute(fleet, 1))) == Bytes()
    bounds = {"prod:jp-1.svc.plus": minute(fleet, 1)}
    assert reasons(Oracle(fleet, since=bounds)) == {"baseline": 124}


def test_the_end_is_exclusive() -> None:
    """A snapshot at `until` is not wanted; its bytes are still unseen."""
    fleet, node, stream = lone_stream()
    snap(node, 0)
    node.flow(stream, 10, 0)
    snap(node, 1)
    oracle = Oracle(fleet)
    assert billed(oracle, minute(fleet, 1)) == Bytes()
    assert reasons(oracle, minute(fleet, 1)) == {"unseen": 10}
    assert billed(oracle, minute(fleet, 1) + SECOND) == Bytes(10, 0)


def test_a_stream_that_appears_later_began_at_zero() -> None:
    """Its whole total is billable at its first snapshot."""
    fleet, node, _ = lone_stream()
    snap(node, 0)
    late = node.add_stream(fleet.users[0].uuid, "late")
    node.flow(late, 5, 6)
    snap(node, 1)
    assert billed(Oracle(fleet)) == Bytes(5, 6)


def test_bytes_before_a_restart_are_unknowable() -> None:
    """What flowed between the last snapshot and the restart is lost, the rest is billed."""
    fleet, node, stream = lone_stream()
    snap(node, 0)
    node.flow(stream, 100, 100)
    snap(node, 1)
    node.flow(stream, 7, 8)
    node.restart_xray(minute(fleet, 1) + 30 * SECOND)
    node.flow(stream, 3, 4)
    snap(node, 2)
    assert billed(Oracle(fleet)) == Bytes(103, 104)
    assert Oracle(fleet).unbilled() == [
        Unbilled(
            "reset",
            "prod:jp-1.svc.plus",
            stream.name,
            fleet.users[0].uuid,
            node.snapshots[-1].collected_at,
            Bytes(7, 8),
        )
    ]


def test_a_restart_that_nobody_can_notice_hides_the_old_totals() -> None:
    """Counters that have overtaken their old values look as if they had only grown."""
    fleet, node, stream = lone_stream()
    snap(node, 0)
    node.flow(stream, 100, 100)
    snap(node, 1)
    node.restart_xray(minute(fleet, 1) + SECOND)
    node.flow(stream, 150, 100)
    snap(node, 2)
    assert billed(Oracle(fleet)) == Bytes(150, 100)
    assert reasons(Oracle(fleet)) == {"hidden_reset": 200}


def test_a_restart_seen_at_zero_hides_nothing() -> None:
    """A snapshot right after the restart shows it, however far the counters get later."""
    fleet, node, stream = lone_stream()
    snap(node, 0)
    node.flow(stream, 100, 100)
    snap(node, 1)
    node.restart_xray(minute(fleet, 1) + SECOND)
    snap(node, 2)
    node.flow(stream, 150, 100)
    snap(node, 3)
    assert billed(Oracle(fleet)) == Bytes(250, 200)
    assert reasons(Oracle(fleet)) == {}


def test_missed_snapshots_move_bytes_to_the_next_that_is_seen() -> None:
    """Who misses late snapshots bills the same bytes in a later minute."""
    fleet, node, stream = lone_stream()
    for count in range(4):
        snap(node, count)
        node.flow(stream, 10, 0)
    node.withhold(minute(fleet, 1), minute(fleet, 3), minute(fleet, 60))
    punctual, patient = Oracle(fleet, seen=in_time), Oracle(fleet)
    assert [bucket.bucket_start for bucket in punctual.bytes_by_bucket()] == [minute(fleet, 3)]
    assert len(patient.bytes_by_bucket()) == 3
    assert billed(punctual) == billed(patient) == Bytes(30, 0)


def test_a_missed_snapshot_before_a_restart_costs_its_bytes() -> None:
    """A late snapshot recovers what a punctual biller can never know."""
    fleet, node, stream = lone_stream()
    snap(node, 0)
    node.flow(stream, 10, 0)
    snap(node, 1)
    node.restart_xray(minute(fleet, 2))
    node.flow(stream, 3, 0)
    snap(node, 3)
    node.withhold(minute(fleet, 1), minute(fleet, 2), minute(fleet, 60))
    assert billed(Oracle(fleet)) == Bytes(13, 0)
    assert reasons(Oracle(fleet, seen=in_time)) == {"reset": 10}
    assert billed(Oracle(fleet, seen=in_time)) == Bytes(3, 0)


def test_samples_are_resolved_by_uuid_then_by_proxy_uuid() -> None:
    """Proxy uuids stay the user's after a renewal; an unknown uuid is nobody's until added."""
    fleet, node, _ = lone_stream()
    user = fleet.users[0]
    old_proxy = node.add_stream(user.proxy_uuid, "xhttp")
    new_proxy = node.add_stream(fleet.renew_proxy(user), "xhttp")
    stranger = node.add_stream(fleet.new_uuid(), "xhttp")
    snap(node, 0)
    for stream in (old_proxy, new_proxy, stranger):
        node.flow(stream, 1, 1)
    snap(node, 1)
    assert Oracle(fleet).bytes_by_account() == {user.uuid: Bytes(2, 2)}
    assert reasons(Oracle(fleet)) == {"unresolved": 2}
    newcomer = fleet.add_user(stranger.name.sample_uuid)
    assert Oracle(fleet).bytes_by_account()[newcomer.uuid] == Bytes(1, 1)
    fleet.remove_user(newcomer)
    assert newcomer.uuid not in Oracle(fleet).bytes_by_account()
    fleet.add_user(proxy_uuid=new_proxy.name.sample_uuid)
    assert Oracle(fleet).bytes_by_account() == {user.uuid: Bytes(1, 1)}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_byte_is_either_billable_or_explained(data: st.DataObject) -> None:
    """Whatever happens to a node, billable and unbilled bytes make up what flowed."""
    fleet = chaotic_fleet(data)
    until = minute(fleet, data.draw(st.integers(0, 40)))
    for oracle in (Oracle(fleet), Oracle(fleet, seen=in_time)):
        total = billed(oracle, until)
        for share in oracle.unbilled(until):
            total = total.plus(share.bytes)
        assert total == oracle.flowed()
        assert all(min(share.bytes) >= 0 for share in oracle.unbilled(until))


@settings(deadline=None, max_examples=60)
def chaotic_fleet(data: st.DataObject) -> Fleet:
    """Return a node with three streams to which a drawn sequence of things has happened."""
    fleet, node, _ = lone_stream()
    node.add_stream(fleet.users[0].uuid, "grpc")
    node.add_stream(fleet.add_user().uuid, "xhttp")
    small = st.integers(0, 5)
    at = 0
    for action in data.draw(
        st.lists(
            st.sampled_from(["flow", "flow", "snap", "snap", "restart", "drop", "hide", "new"])
        )
    ):
        stream = data.draw(st.sampled_from(node.streams))
        if action == "flow":
            node.flow(stream, data.draw(small), data.draw(small))
        elif action == "snap":
            at += data.draw(st.sampled_from([1, 20, 60]))
            taken = fleet.start + at * SECOND
            node.snapshot(taken, taken + data.draw(st.sampled_from([0, 0, 0, 60])) * MINUTE)
        elif action == "hide":
            since = fleet.start + at * SECOND
            node.hide_stream(stream, since, since + MINUTE)
        elif action == "new":
            node.add_stream(fleet.users[0].uuid, f"tag-{len(node.streams)}")
        else:
            node.restart_xray(fleet.start + at * SECOND, drop_counters=action == "drop")
    return fleet


def as_core(node: Node, snapshot: Taken) -> Snapshot:
    """Return a snapshot as the core gets it from the wire."""
    totals = {
        stream.name: Totals(*snapshot.totals[2 * stream.index : 2 * stream.index + 2])
        for stream in node.streams
        if snapshot.holds(stream)
    }
    return Snapshot(snapshot.collected_at, node.identity, totals)


def lone_stream() -> tuple[Fleet, Node, Stream]:
    """Return a fleet of one node with one stream of one user."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    return fleet, node, node.add_stream(fleet.add_user().uuid, "xhttp")


def snap(node: Node, minutes: int) -> None:
    """Take a snapshot so many minutes after the start."""
    node.snapshot(node.start + minutes * MINUTE)


def minute(fleet: Fleet, count: int) -> datetime:
    """Return the moment so many minutes after the start."""
    return fleet.start + count * MINUTE


def billed(oracle: Oracle, until: datetime | None = None) -> Bytes:
    """Return all billable bytes."""
    total = Bytes()
    for moved in oracle.bytes_by_account(until).values():
        total = total.plus(moved)
    return total


def reasons(oracle: Oracle, until: datetime | None = None) -> dict[str, int]:
    """Return the unbilled bytes by reason."""
    counts: Counter[str] = Counter()
    for share in oracle.unbilled(until):
        counts[share.reason] += sum(share.bytes)
    return dict(counts)
