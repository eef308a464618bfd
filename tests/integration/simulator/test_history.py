from __future__ import annotations

from datetime import timedelta

import pytest

from billing_cli.simulator.traffic import Fleet, Node, Snapshot

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def test_stamps_may_be_whole_minutes() -> None:
    """Some exporters cut their stamps, and have no digits to tell two polls of a minute apart."""
    node = real_node()
    taken = node.snapshot(node.start + 95 * SECOND)
    assert taken.stamp_nanoseconds % (60 * 10**9) == 0
    assert taken.collected_at == node.start + MINUTE


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


def test_a_restarted_exporter_has_no_history() -> None:
    """What it had taken before is gone from that moment on, and no earlier."""
    node = real_node()
    taken = polls(node, range(3))
    node.lose_history(node.start + 150 * SECOND)
    later = polls(node, [3])
    assert node.published(node.start + 2 * MINUTE) == taken
    assert node.published(node.start + 150 * SECOND) == []
    assert node.published(node.start + 3 * MINUTE) == later


def test_polls_go_on_when_the_clock_is_set_back() -> None:
    """`run` takes every poll of an exporter that takes older stamps."""
    node = real_node()
    node.run(node.start + 5 * MINUTE)
    node.clock_error = -2 * MINUTE
    node.run(node.start + 8 * MINUTE)
    assert len(node.snapshots) == 8
    assert stamps(node, node.published(None)) == [0, 1, 2, 3, 4, 5]


def test_an_exporter_that_takes_no_older_stamps_refuses_them() -> None:
    """A test that did not mean to set a clock back is told."""
    node = real_node()
    node.takes_older_stamps = False
    node.snapshot(node.start + MINUTE)
    with pytest.raises(ValueError, match="already has a snapshot"):
        node.snapshot(node.start + 90 * SECOND)


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
