"""Real traffic is never held by the default limits."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.integration.attacks.hostile import MINUTE, START, only

if TYPE_CHECKING:
    from tests.integration.attacks.hostile import Attack, Sample

# BILLING_TEST_USERS=5000 BILLING_TEST_NODES=20 is the full size.
USERS = int(os.environ.get("BILLING_TEST_USERS", "100"))
NODES = int(os.environ.get("BILLING_TEST_NODES", "5"))
MINUTES = 6
MB = 10**6
FAULTS = ("none", "restart", "outage", "renamed", "absent")


def test_a_fleet_of_busy_nodes_with_faults_is_charged_in_full(attack: Attack) -> None:
    """Users move together nine tenths of what their node's line carries, whatever goes wrong."""
    # The exporters of the whole fleet are threads of this process.
    attack.fetching = replace(attack.fetching, deadline_seconds=600.0)
    users = attack.users(USERS)
    share = attack.policy.line_rate_bits_per_second * 60 // 8 * 9 // 10 // USERS
    flowed = 0
    for index in range(NODES):
        node, fault = attack.node(f"n-{index}"), FAULTS[index % len(FAULTS)]
        node.limits["timeout_seconds"] = 300.0
        for minute in range(MINUTES):
            if samples := samples_of(users, fault, minute, share):
                node.snapshots[START + minute * MINUTE] = samples
        # After its restart a node has less to do, so that no counter catches up at once.
        last = MINUTES - 1
        flowed += USERS * (2 * share + 3 * share // 10 if fault == "restart" else last * share)
    result = attack.run(START + 5 * MINUTE)
    assert {(source.status, source.held_deltas) for source in result.sources} == {("ok", 0)}
    assert attack.count("billing.held_deltas") == 0
    assert attack.charged()[0] == flowed


def samples_of(users: list[str], fault: str, minute: int, share: int) -> list[Sample]:
    """Return a snapshot of a node with one fault in its third minute, none where it is missed."""
    total, tag = minute * share, "tcp"
    if fault == "restart" and minute > 2:
        total = (minute - 2) * share // 10
    if fault == "renamed" and minute > 2:
        tag = "xhttp"
    if fault == "outage" and minute in {2, 3}:
        return []
    some = users[1::2] if fault == "absent" and minute == 2 else users
    return [(user, tag, total) for user in some]


def test_a_spliced_connection_that_closes_is_charged(attack: Attack) -> None:
    """40 GB appear in one minute after an hour of silence."""
    node, (user,) = attack.node(), attack.users()
    node.snapshots[START] = [(user, "tcp", 0)]
    for minute in (59, 60):
        at = START + timedelta(minutes=minute)
        node.snapshots[at] = [(user, "tcp", 40_000 * MB if minute == 60 else 0)]
    assert only(attack.run(START + timedelta(minutes=60))).held_deltas == 0
    assert attack.charged()[0] == 40_000 * MB
