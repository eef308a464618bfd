from __future__ import annotations

from datetime import timedelta

from billing_cli.simulator.publication import merged
from billing_cli.simulator.traffic import Fleet, Node, Snapshot, Stream

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def test_the_same_seed_gives_the_same_history() -> None:
    """A failure seen once can be played again from its seed."""
    assert history(busy_fleet(seed=3)) == history(busy_fleet(seed=3))
    assert history(busy_fleet(seed=3)) != history(busy_fleet(seed=4))


def test_a_node_is_independent_of_its_neighbours() -> None:
    """Adding a node to a fleet changes nothing about the traffic of the others."""
    alone, accompanied = busy_fleet(seed=3), busy_fleet(seed=3)
    accompanied.add_node("us-1")
    accompanied.run(accompanied.start + 20 * MINUTE)
    alone.run(alone.start + 20 * MINUTE)
    assert history(alone) == history(accompanied)


def test_runs_chain_without_a_seam() -> None:
    """Polls stand on one grid, each once, wherever one run ends and the next begins."""
    node = busy_fleet(seed=1).nodes["jp-1"]
    for minutes in (12.5, 13, 14):
        node.run(node.start + minutes * MINUTE)
    minutes_seen = [
        snapshot.collected_at.replace(second=0, microsecond=0) for snapshot in node.snapshots
    ]
    assert minutes_seen == [node.start + n * MINUTE for n in range(14)]


def test_an_outage_takes_no_snapshots_while_traffic_flows() -> None:
    """The first poll after an outage carries what flowed during it."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    stream = node.add_stream(fleet.add_user().uuid)
    node.hide(fleet.start + 2 * MINUTE, fleet.start + 8 * MINUTE)
    node.run(fleet.start + 10 * MINUTE, rate=1000)
    minutes = [(snapshot.collected_at - fleet.start) // MINUTE for snapshot in node.snapshots]
    assert minutes == [0, 1, 8, 9]
    assert len({index for index, *_ in stream.movements()}) > 1
    assert max(sum(row[2:]) for row in stream.movements()) > 0


def test_a_hidden_stream_hides_the_sum_that_it_is_published_in() -> None:
    """What an exporter leaves out is a sample: a sum never lacks one of its counters."""
    node, stream = lone_stream()
    node.add_stream(stream.name.sample_uuid, "other")
    stranger = node.add_stream("00000000-0000-4000-8000-000000000000")
    node.naming = merged
    node.hide_stream(stream, node.start, node.start + MINUTE)
    assert node.snapshot(node.start).published().keys() == {stranger.name}


def test_late_snapshots_are_offered_when_published() -> None:
    """A withheld snapshot is missing before its publication and in its place after it."""
    node, _ = lone_stream()
    taken = [node.snapshot(node.start + n * MINUTE) for n in range(3)]
    node.withhold(node.start + MINUTE, node.start + 2 * MINUTE, node.start + 10 * MINUTE)
    assert node.published(node.start + 9 * MINUTE) == [taken[0], taken[2]]
    assert node.published(node.start + 10 * MINUTE) == taken
    assert [one.late for one in taken] == [False, True, False]


def test_history_ends_where_it_is_forgotten() -> None:
    """Old snapshots go after 72 hours, and at once when the exporter loses them."""
    node, _ = lone_stream()
    old = node.snapshot(node.start)
    new = node.snapshot(node.start + timedelta(hours=72, minutes=1))
    assert node.published(old.collected_at + timedelta(hours=71)) == [old]
    assert node.published(new.collected_at) == [new]
    assert node.published(None) == [old, new]
    node.forget_before(node.start + MINUTE)
    assert node.published(None) == [new]


def test_a_clock_that_is_ahead_stamps_the_future_and_one_set_back_takes_no_polls() -> None:
    """Stamps are off by the clock's error and never fall; the snapshot is on offer at once."""
    node, _ = lone_stream()
    node.poll_jitter_seconds = 0
    node.clock_error = 90 * SECOND
    node.run(node.start + 2 * MINUTE)
    ahead = [node.start + 90 * SECOND, node.start + 150 * SECOND]
    assert [one.collected_at for one in node.published(node.start + MINUTE)] == ahead
    node.clock_error = timedelta()
    node.run(node.start + 5 * MINUTE)
    later = [node.start + n * MINUTE for n in (3, 4)]
    assert [one.collected_at for one in node.published(None)] == [*ahead, *later]


def busy_fleet(seed: int) -> Fleet:
    """Return a node with ten minutes of traffic."""
    fleet = Fleet(seed)
    node = fleet.add_node("jp-1")
    for user in (fleet.add_user(), fleet.add_user()):
        node.add_stream(user.uuid, "xhttp")
    fleet.run(fleet.start + 10 * MINUTE)
    return fleet


def history(fleet: Fleet) -> list[tuple[int, list[int]]]:
    """Return the stamps and totals of all snapshots."""
    return [
        (snapshot.stamp_nanoseconds, list(snapshot.totals))
        for snapshot in fleet.nodes["jp-1"].snapshots
    ]


def lone_stream() -> tuple[Node, Stream]:
    """Return a fleet of one node with one stream of one user."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    return node, node.add_stream(fleet.add_user().uuid)


def totals(snapshot: Snapshot) -> tuple[int, ...]:
    """Return the uplink and downlink total of a snapshot of one stream."""
    return tuple(snapshot.totals)
