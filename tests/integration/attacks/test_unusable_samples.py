"""An exporter that publishes e-mail addresses as uuids at first, and then is put right."""

from __future__ import annotations

from typing import Any

import pytest

from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from tests.integration.attacks.hostile import MINUTE, START, Attack, only

LIFETIME_BYTES = 10**10


@pytest.mark.parametrize("runs_at", [(1, 2, 3, 4, 5), (2, 5), (5,)])
def test_a_source_begins_with_the_first_snapshot_that_can_be_used(
    attack: Attack, runs_at: tuple[int, ...]
) -> None:
    """Samples without a uuid do not use up its baseline: lifetime totals are not charged."""
    (user,) = attack.users()
    node = attack.node()
    for minute in range(3):
        node.snapshots[START + minute * MINUTE] = [("a@example.com", "tcp", LIFETIME_BYTES)]
    for minute in range(3, 6):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", LIFETIME_BYTES + minute)]
    rejected = [
        (source.status, source.rejected_samples)
        for minute in runs_at
        for source in [only(attack.run(START + (minute - 2) * MINUTE))]
    ]
    attack.run(START + 5 * MINUTE)
    assert attack.charged()[0] == 2
    assert sum(count for _, count in rejected) == 3
    assert attack.count("billing.held_deltas") == 0


def test_users_of_a_node_that_was_empty_at_first_are_charged_from_zero(attack: Attack) -> None:
    """Nobody was connected when it was collected first; a run may end before the first user."""
    (user,) = attack.users()
    node = attack.node()
    node.snapshots[START] = []
    attack.run(START)
    node.snapshots[START + MINUTE] = []
    attack.run(START + MINUTE)
    node.snapshots[START + 2 * MINUTE] = [(user, "tcp", 500)]
    attack.run(START + 2 * MINUTE)
    assert attack.charged()[0] == 500


@pytest.mark.parametrize("later", [[], [("a@example.com", "tcp", LIFETIME_BYTES)]])
@pytest.mark.parametrize("job", [collect, catch_up])
def test_a_source_that_never_had_a_usable_sample_is_stalled(
    attack: Attack, job: Any, later: list[Any]
) -> None:
    """The gap is found once, begins with its first snapshot, and ends when samples come."""
    (user,) = attack.users()
    node = attack.node()
    node.snapshots[START] = [("a@example.com", "tcp", LIFETIME_BYTES)]
    attack.run(START, job)
    gaps = []
    for minute in range(1, 9):
        node.snapshots[START + minute * MINUTE] = later
        gaps.append(only(attack.run(START + minute * MINUTE, job)).gaps)
    assert gaps == [0, 0, 0, 0, 1, 0, 0, 0]
    attack.run(START + 20 * MINUTE, job)
    node.snapshots[START + 21 * MINUTE] = [(user, "tcp", LIFETIME_BYTES)]
    attack.run(START + 21 * MINUTE, job)
    found = attack.connection.execute(
        "SELECT from_at, resolution FROM billing.gaps WHERE kind = 'stalled'"
    ).fetchall()
    assert found == [(START, "snapshots came again")]
    assert attack.charged()[0] == 0
