from __future__ import annotations

from datetime import timedelta

from billing_cli.simulator.oracle import Bytes, Oracle
from billing_cli.simulator.traffic import Fleet, Node, Stream

MINUTE = timedelta(minutes=1)


def test_a_spliced_connection_is_counted_when_it_closes() -> None:
    """Its bytes flow at once, and are in no snapshot before the one after it closed."""
    fleet, node, stream = lone_stream()
    node.snapshot(fleet.start)
    node.process.splice(stream, 3, 40)
    open_still = node.snapshot(fleet.start + MINUTE)
    assert list(open_still.totals) == [0, 0]
    assert Oracle(fleet).flowed() == Bytes(3, 40)
    assert [one.reason for one in Oracle(fleet).unbilled()] == ["unseen"]
    node.process.close_splices(stream)
    closed = node.snapshot(fleet.start + 2 * MINUTE)
    assert list(closed.totals) == [3, 40]
    (bucket, moved), *others = Oracle(fleet).bytes_by_bucket().items()
    assert (bucket.bucket_start, moved, others) == (fleet.start + 2 * MINUTE, Bytes(3, 40), [])
    assert Oracle(fleet).unbilled() == []


def test_a_restart_cuts_spliced_connections() -> None:
    """What they carried is never counted, like everything since the last snapshot."""
    fleet, node, stream = lone_stream()
    node.snapshot(fleet.start)
    node.process.splice(stream, 3, 40)
    node.snapshot(fleet.start + MINUTE)
    node.restart_xray(fleet.start + MINUTE)
    node.flow(stream, 1, 1)
    node.snapshot(fleet.start + 2 * MINUTE)
    assert reasons(fleet) == {"reset": Bytes(3, 40)}
    assert sum(Oracle(fleet).flowed()) == 45


def test_one_counter_of_a_pair_may_start_again() -> None:
    """Of the direction that was reset, what flowed since the last snapshot is lost; no more."""
    fleet, node, stream = lone_stream()
    node.flow(stream, 100, 1000)
    node.snapshot(fleet.start)
    node.flow(stream, 5, 50)
    node.process.reset_counter(stream, "uplink")
    node.flow(stream, 7, 70)
    taken = node.snapshot(fleet.start + MINUTE)
    assert list(taken.totals) == [7, 1120]
    assert billed(fleet) == Bytes(7, 120)
    assert reasons(fleet) == {"baseline": Bytes(100, 1000), "reset": Bytes(5, 0)}


def test_a_counter_that_has_passed_its_old_total_hides_its_reset() -> None:
    """Nothing shows that it began again, so that as many bytes as it had are missing."""
    fleet, node, stream = lone_stream()
    node.snapshot(fleet.start)
    node.flow(stream, 5, 50)
    node.snapshot(fleet.start + MINUTE)
    node.process.reset_counter(stream, "downlink")
    node.flow(stream, 1, 60)
    node.snapshot(fleet.start + 2 * MINUTE)
    assert billed(fleet) == Bytes(6, 60)
    assert reasons(fleet) == {"hidden_reset": Bytes(0, 50)}


def test_a_restart_that_one_stream_shows_is_one_of_all_streams_of_the_node() -> None:
    """Decision 6: a counter that has passed its old total began at zero as well."""
    fleet, node, fast = lone_stream()
    slow = node.add_stream(fleet.users[0].uuid, "slow")
    node.snapshot(fleet.start)
    node.flow(fast, 10, 10)
    node.flow(slow, 10, 10)
    node.snapshot(fleet.start + MINUTE)
    node.restart_xray(fleet.start + MINUTE)
    node.flow(fast, 30, 30)
    node.snapshot(fleet.start + 2 * MINUTE)
    node.snapshot(fleet.start + 3 * MINUTE)
    assert sum(billed(fleet)) == 40 + 40
    everything = Oracle(fleet, node_restarts=True).bytes_by_account()
    assert everything == {fleet.users[0].uuid: Bytes(50, 50)}


def lone_stream() -> tuple[Fleet, Node, Stream]:
    """Return a fleet of one node with one stream of one user."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    return fleet, node, node.add_stream(fleet.add_user().uuid, "xhttp")


def billed(fleet: Fleet) -> Bytes:
    """Return what is billable of the only account."""
    return Oracle(fleet).bytes_by_account()[fleet.users[0].uuid]


def reasons(fleet: Fleet) -> dict[str, Bytes]:
    """Return the unbilled bytes by reason."""
    return {one.reason: one.bytes for one in Oracle(fleet).unbilled()}
