from __future__ import annotations

from datetime import timedelta

from billing_cli.simulator.traffic import Fleet, Node, Snapshot

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def test_a_snapshot_replaces_the_one_of_the_same_stamp() -> None:
    """From when it is taken on, and not before: history can be walked through afterwards."""
    node = real_node()
    first = node.snapshot(node.start + 10 * SECOND)
    second = node.snapshot(node.start + 40 * SECOND)
    assert node.published(node.start + 39 * SECOND) == [first]
    assert node.published(node.start + 40 * SECOND) == [second]
    assert node.published(None) == [second]
    assert node.snapshots == [first, second]


def test_a_clock_that_is_set_back_leaves_two_time_lines() -> None:
    """History is sorted by stamp: what was not replaced stands between what was taken later."""
    node = real_node()
    taken = polls(node, range(6))
    node.clock_error = -3 * MINUTE
    later = polls(node, [6, 8])
    assert stamps(node, node.published(None)) == [0, 1, 2, 3, 4, 5]
    assert node.published(None) == [*taken[:3], later[0], taken[4], later[1]]
    assert node.published(node.start + 7 * MINUTE) == [*taken[:3], later[0], *taken[4:]]


def test_a_clock_that_is_ahead_offers_stamps_of_the_future() -> None:
    """They stay on offer until a poll at that very minute replaces them."""
    node = real_node()
    node.clock_error = 3 * MINUTE
    ahead = polls(node, [0, 1])
    node.clock_error = timedelta()
    right = polls(node, [2, 3])
    assert node.published(node.start + MINUTE) == ahead
    assert node.published(None) == [right[0], right[1], ahead[1]]


def test_stamps_that_differ_below_microseconds_only_are_one_stamp() -> None:
    """Billing could not tell them apart, so the later one replaces the earlier."""
    node = real_node()
    node.truncates_stamps = False
    first = node.snapshot(node.start)
    second = node.snapshot(node.start)
    assert node.published(None) == [second]
    assert first.collected_at == second.collected_at


def real_node() -> Node:
    """Return a node whose exporter stamps whole minutes, and goes on when its clock is set."""
    node = Fleet().add_node("jp-1")
    node.truncates_stamps = node.takes_older_stamps = True
    return node


def polls(node: Node, minutes: range | list[int]) -> list[Snapshot]:
    """Take snapshots at these minutes of true time."""
    return [node.snapshot(node.start + minute * MINUTE) for minute in minutes]


def stamps(node: Node, snapshots: list[Snapshot]) -> list[int]:
    """Return the stamps as minutes since the start."""
    return [(snapshot.collected_at - node.start) // MINUTE for snapshot in snapshots]
