"""Bytes that were held in a restart that was revoked, and then rejected, make no traffic free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.features.held.job import list_held, reject_held, release_held
from billing_cli.features.sources.job import move_source
from tests.integration.attacks.hostile import HOUR, MINUTE, START, Attack

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_cli.features.held.result import HeldResult

MB = 10**6
BEFORE = 2_000_000


def publish(attack: Attack, minute: int, totals: list[int], tag: str = "tcp") -> None:
    """Publish the totals of the user in MB, minute by minute, and charge them."""
    ((user,),) = attack.connection.execute("SELECT uuid::text FROM public.users")
    (node,) = attack.nodes.values()
    for at, total in enumerate(totals, start=minute):
        node.snapshots[START + at * MINUTE] = [(user, tag, total * MB)]
    attack.run(START + (minute + len(totals)) * MINUTE)


def decide_all(attack: Attack, decide: Callable[..., HeldResult]) -> None:
    """Decide about all that is held."""
    deltas = list_held(attack.context(START + HOUR)).deltas
    decide(attack.context(START + HOUR), [delta.held_id for delta in deltas], "no traffic")


@pytest.fixture
def node(attack: Attack) -> Attack:
    """Return an attack with one account on one node."""
    attack.users()
    attack.node("jp-1")
    return attack


@pytest.mark.parametrize(
    ("decide", "charged"), [(release_held, 900_001), (reject_held, 1 + 1_000 + 4_000)]
)
def test_growth_after_a_decision_is_charged_beyond_what_was_charged_before(
    node: Attack, decide: Callable[..., HeldResult], charged: int
) -> None:
    """Two readings looked like a restart; nearly all of them was held."""
    publish(node, 0, [BEFORE, BEFORE, 900_000, 900_001, BEFORE + 5_000])
    assert node.held_bytes() == 900_000 * MB
    decide_all(node, decide)
    publish(node, 5, [BEFORE + 6_000, BEFORE + 10_000])
    assert node.charged()[0] == charged * MB


def test_a_surplus_that_moved_with_its_node_is_cut(node: Attack) -> None:
    """The node's counters go on under another id."""
    publish(node, 0, [BEFORE, BEFORE, 900_000, 900_001, BEFORE + 5_000])
    node.nodes["jp-1"].node_id = "b"
    context = node.context(START + 6 * MINUTE)
    assert move_source(context, "jp-1", "prod:b", is_same_counters=True).status == "ok"
    decide_all(node, reject_held)
    publish(node, 5, [BEFORE + 6_000])
    assert node.charged()[0] == 1_001 * MB


@pytest.mark.parametrize(
    "tags", [("udp",), ("udp", "quic"), ("udp", "tcp"), ("udp", "tcp", "udp", "tcp", "quic")]
)
def test_a_surplus_that_moved_with_its_counter_is_cut(node: Attack, tags: tuple[str, ...]) -> None:
    """The counter got other names; some came back."""
    publish(node, 0, [BEFORE, BEFORE, 900_000, 900_001, BEFORE + 5_000])
    for minute, tag in enumerate(tags, start=5):
        publish(node, minute, [BEFORE + 5_000], tag)
    decide_all(node, reject_held)
    publish(node, 5 + len(tags), [BEFORE + 6_000, BEFORE + 10_000], tags[-1])
    assert node.charged()[0] == 5_001 * MB


def test_a_surplus_that_moved_with_its_counter_and_then_its_node_is_cut(node: Attack) -> None:
    """A name and a node id after each other."""
    publish(node, 0, [BEFORE, BEFORE, 900_000, 900_001, BEFORE + 5_000])
    publish(node, 5, [BEFORE + 5_000], "udp")
    node.nodes["jp-1"].node_id = "b"
    context = node.context(START + 7 * MINUTE)
    assert move_source(context, "jp-1", "prod:b", is_same_counters=True).status == "ok"
    decide_all(node, reject_held)
    publish(node, 6, [BEFORE + 6_000], "udp")
    assert node.charged()[0] == 1_001 * MB


def test_rejected_bytes_are_cut_once(node: Attack) -> None:
    """Where the counter was split, they are taken out of the largest surplus alone."""
    publish(node, 0, [BEFORE, BEFORE, 900_000, 900_001, BEFORE + 5_000])
    ((user,),) = node.connection.execute("SELECT uuid::text FROM public.users")
    parts = [(user, "udp", BEFORE * MB), (user, "quic", 5_000 * MB)]
    node.nodes["jp-1"].snapshots[START + 5 * MINUTE] = parts
    node.run(START + 6 * MINUTE)
    node.connection.execute(
        "UPDATE billing.streams SET surplus_uplink = 0, surplus_downlink = %s"
        " WHERE inbound_tag = 'quic'",
        [7 * MB],
    )
    decide_all(node, reject_held)
    rows = node.connection.execute(
        "SELECT inbound_tag, surplus_downlink FROM billing.streams"
        " WHERE surplus_uplink IS NOT NULL ORDER BY inbound_tag"
    ).fetchall()
    assert rows == [("quic", 7 * MB), ("udp", 0)]


def test_what_was_held_before_the_restart_is_no_part_of_the_surplus(node: Attack) -> None:
    """The surplus was charged, and covers later growth."""
    publish(node, 0, [BEFORE - 900_000, BEFORE, 2_000, 2_001, BEFORE + 500])
    assert (node.held_bytes(), node.charged()[0]) == (900_000 * MB, 2_001 * MB)
    decide_all(node, reject_held)
    publish(node, 5, [BEFORE + 1_500, BEFORE + 2_501])
    assert node.charged()[0] == 2_501 * MB
