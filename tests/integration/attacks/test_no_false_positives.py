"""Real traffic is never held by the default limits."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.integration.attacks.hostile import MINUTE, START, only

if TYPE_CHECKING:
    from tests.integration.attacks.hostile import Attack

# BILLING_TEST_USERS=5000 BILLING_TEST_NODES=20 is the full size.
USERS = int(os.environ.get("BILLING_TEST_USERS", "100"))
NODES = int(os.environ.get("BILLING_TEST_NODES", "4"))
MB = 10**6


def test_a_fleet_of_busy_nodes_is_charged_in_full(attack: Attack) -> None:
    """Users download in bursts, together up to nine tenths of what their node's line carries."""
    users = attack.users(USERS)
    line_bytes_per_minute = attack.policy.line_rate_bits_per_second * 60 // 8
    share = line_bytes_per_minute * 9 // 10 // USERS
    for index in range(NODES):
        node = attack.node(f"n-{index}")
        for minute in range(6):
            node.snapshots[START + minute * MINUTE] = [
                (user, tag, minute * share // 2) for user in users for tag in ("tcp", "xhttp")
            ]
    result = attack.run(START + 5 * MINUTE)
    assert {(one.status, one.held_deltas) for one in result.sources} == {("ok", 0)}
    assert attack.held_bytes() == 0
    assert attack.charged()[0] == NODES * USERS * 2 * (5 * share // 2)


def test_a_spliced_connection_that_closes_is_charged(attack: Attack) -> None:
    """40 GB appear in one minute after an hour of silence."""
    node, (user,) = attack.node(), attack.users()
    node.snapshots[START] = [(user, "tcp", 0)]
    for minute in (59, 60):
        at = START + timedelta(minutes=minute)
        node.snapshots[at] = [(user, "tcp", 40_000 * MB if minute == 60 else 0)]
    assert only(attack.run(START + timedelta(minutes=60))).held_deltas == 0
    assert attack.charged()[0] == 40_000 * MB
