"""A node that another source claims belongs to the one that expects it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from billing_cli.jobs.collect import collect
from tests.integration.attacks.hostile import MINUTE, START, Attack, Node

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult

NODE = "jp-1.svc.plus"


def claimed(attack: Attack) -> tuple[Node, Node, str]:
    """Return an honest node, and a hostile one that says it is that one."""
    (user,) = attack.users()
    honest, hostile = attack.node("zz-honest", NODE), attack.node("aa-hostile", NODE)
    honest.expected_node_id = NODE
    for minute in range(4):
        at = START + minute * MINUTE
        honest.snapshots[at] = [(user, "tcp", minute * 1000)]
        hostile.snapshots[at] = [(user, "tcp", 5 * 10**9 + minute)]
    return honest, hostile, user


def codes(result: RunResult) -> dict[str, str | None]:
    """Return why each source failed."""
    return {source.source_id: source.error_code for source in result.sources}


def test_the_source_that_expects_a_node_gets_it(attack: Attack) -> None:
    """Both are new; the claimant's bytes are not charged."""
    claimed(attack)
    result = attack.run(START + 3 * MINUTE)
    assert codes(result) == {"aa-hostile": "wrong_identity", "zz-honest": None}
    assert attack.charged()[0] == 3000


def test_a_claimant_that_was_there_first_gives_way(attack: Attack) -> None:
    """With the first run of the source that expects the node; later runs change nothing."""
    claimed(attack)
    attack.run(START, collect, source_ids=["aa-hostile"])
    result = attack.run(START + 3 * MINUTE)
    assert codes(result) == {"aa-hostile": "wrong_identity", "zz-honest": None}
    rows = attack.connection.execute(
        "SELECT source_id, moved_to FROM billing.sources ORDER BY 1"
    ).fetchall()
    assert rows == [("aa-hostile", "zz-honest"), ("zz-honest", None)]
    assert codes(attack.run(START + 3 * MINUTE))["aa-hostile"] == "wrong_identity"


def test_every_run_warns_of_a_source_that_expects_no_node(attack: Attack) -> None:
    """Unless it is on this machine."""
    node = attack.node()
    node.snapshots[START] = []
    assert collect(attack.context(START + MINUTE)).notes == ()
    context = attack.context(START + MINUTE)
    (source,) = context.sources
    remote = replace(source, base_url="https://198.51.100.1:1", timeout_seconds=0.1)
    (note,) = collect(replace(context, sources=(remote,))).notes
    assert note == "without expected_node_id and expected_env, whoever answers is believed: jp-1"


@pytest.mark.parametrize("claimed_bytes", [0, 5 * 10**9, 10**13], ids=["lower", "higher", "far"])
def test_lifetime_totals_are_not_charged_when_a_node_is_taken_over(
    attack: Attack, claimed_bytes: int
) -> None:
    """The claimant invented its counters; what the node has counted in years is held."""
    (user,) = attack.users()
    honest, hostile = attack.node("zz-honest", NODE), attack.node("aa-hostile", NODE)
    honest.expected_node_id = NODE
    lifetime = 10**10
    for minute in range(6):
        at = START + minute * MINUTE
        hostile.snapshots[at] = [(user, "tcp", claimed_bytes + minute)]
        honest.snapshots[at] = [(user, "tcp", lifetime + minute * 1000)]
    attack.run(START + MINUTE, collect, source_ids=["aa-hostile"])
    attack.run(START + 2 * MINUTE, collect)
    attack.run(START + 5 * MINUTE)
    assert attack.charged()[0] == 1 + 3000
    assert attack.count("billing.held_deltas") == 1


def test_a_snapshot_without_samples_gives_no_node_away(attack: Attack) -> None:
    """It does not show whether the counters go on: the lifetime totals would come afterwards."""
    (user,) = attack.users()
    honest, claimant = attack.node("zz-honest", NODE), attack.node("aa-claimant", NODE)
    honest.expected_node_id = NODE
    for minute in range(6):
        at = START + minute * MINUTE
        claimant.snapshots[at] = [(user, "tcp", 1000 + minute)]
        honest.snapshots[at] = [(user, "tcp", 10**10 + minute * 1000)] if minute != 2 else []
    attack.run(START + MINUTE, collect, source_ids=["aa-claimant"])
    attack.run(START + 2 * MINUTE, collect)
    attack.run(START + 3 * MINUTE, collect)
    attack.run(START + 5 * MINUTE)
    assert attack.charged()[0] == 2 + 2000
    assert attack.count("billing.held_deltas") == 1


def test_a_restart_is_judged_the_same_when_a_node_is_taken_over(attack: Attack) -> None:
    """Both read one node. It restarts as it is taken over, and the restart is revoked later."""
    (user,) = attack.users()
    honest, claimant = attack.node("zz-honest", NODE), attack.node("aa-claimant", NODE)
    honest.expected_node_id = NODE
    for minute, total in enumerate((0, 1000, 2000, 100, 200, 5000, 6000)):
        at = START + minute * MINUTE
        honest.snapshots[at] = claimant.snapshots[at] = [(user, "tcp", total)]
    attack.run(START + 2 * MINUTE, collect, source_ids=["aa-claimant"])
    attack.run(START + 3 * MINUTE, collect)
    attack.run(START + 4 * MINUTE, collect)
    assert attack.charged()[0] == 2000 + 200
    attack.run(START + 6 * MINUTE)
    assert attack.charged()[0] == 6000
    assert attack.count("billing.held_deltas") == 0
