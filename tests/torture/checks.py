"""Holds a database against its own rules (I1 to I4), and against what must be there (I5)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import closed_until, format_rfc3339
from billing_cli.simulator.books import Books, Funds, read_buckets, read_funds
from billing_cli.simulator.invariants import moved_back, read_watermarks, violations
from billing_cli.simulator.oracle import BucketName, Bytes
from tests.torture.expected import nanos_of
from tests.torture.expected_bytes import FollowedNode

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import Node
    from tests.torture.ground import Errand, Ground

NOTHING = Bytes()
SHOWN_PROBLEMS = 12
WORK_ON_SOURCES = ("collect", "catch-up", "reconcile")
SETTLE = timedelta(seconds=30)
"""How long after its end a minute is closed."""


@dataclass(slots=True)
class Findings:
    """What is wrong: texts, and how much; bytes are counted by bucket."""

    problems: list[str] = field(default_factory=list)
    lost_bytes: int = 0
    doubled_bytes: int = 0
    wrong_nanos: int = 0


class WrongBooksError(AssertionError):
    """The books are not what they must be."""

    def __init__(self, findings: Findings) -> None:
        shown = findings.problems[:SHOWN_PROBLEMS]
        if len(findings.problems) > len(shown):
            shown.append(f"and {len(findings.problems) - len(shown)} more")
        super().__init__("\n".join(shown))
        self.findings = findings


def findings_of(error: BaseException) -> Findings:
    """Return what was found wrong, wherever in the error it is."""
    if isinstance(error, WrongBooksError):
        return error.findings
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            return findings_of(one)
    return Findings([repr(error)])


def problems_with(ground: Ground) -> Findings:
    """Return all that is wrong; the watermarks found are those that must not be passed again."""
    opening = Books(default=ground.opening)
    findings = Findings(violations(ground.connection, opening, ground.top_ups))
    findings.problems += moved_back(ground.connection, ground.watermarks)
    ground.watermarks = read_watermarks(ground.connection)
    _compare_buckets(ground, findings)
    _compare_funds(ground, findings)
    if not ground.expected.is_whole():
        findings.problems.append("bytes that flowed are nowhere among those that are expected")
    return findings


def wrong_funds(ground: Ground) -> Findings:
    """Return which accounts do not have what they must have."""
    findings = Findings()
    _compare_funds(ground, findings)
    return findings


def unkept_promises(ground: Ground, errand: Errand, *, has_moved: bool) -> list[str]:
    """Return what a run that nothing befell should have done, and has not.

    `has_moved` tells whether it moved any source.
    """
    result = errand.result
    if result is None or errand.billing_clock_error or errand.kind not in WORK_ON_SOURCES:
        return []
    found = []
    for source in result.sources:
        node = ground.fleet.nodes[source.source_id]
        if not ground.is_well(node):
            continue
        if errand.kind == "reconcile":
            if source.status == "ok" and not result.dry_run:
                found += _not_reconciled(ground, node, errand)
        elif source.status == "error":
            found.append(f"source {source.source_id} failed without a fault: {source.error}")
        elif not result.dry_run and not (errand.kind == "collect" and has_moved):
            found += _not_collected(ground, node)
    return found


def _not_reconciled(ground: Ground, node: Node, errand: Errand) -> list[str]:
    node_id = node.identity.stored
    if node_id not in ground.expected.nodes:
        return []
    return ground.expected.left_to_reconcile(node_id, errand.since, errand.until)


def _not_collected(ground: Ground, node: Node) -> list[str]:
    followed = ground.expected.nodes.get(node.identity.stored) or FollowedNode(node)
    if followed.is_current(ground.offered(node), closed_until(ground.now, SETTLE)):
        return []
    return [f"{node.source_id} has more than {followed.watermark}, and it was not collected"]


def unsettled(ground: Ground) -> list[str]:
    """Return what is still amiss when all faults have ended and all runs are done (I6)."""
    users = {user.uuid for user in ground.fleet.users}
    found = [
        f"{sum(one.waiting)} bytes of {one.owner} still wait"
        for node in ground.expected.nodes.values()
        for one in node.streams
        if one.owner in users and any(one.waiting)
    ]
    unseen = ground.expected.unbilled()["unseen"]
    return [*found, f"{unseen} bytes are unseen"] if unseen else found


def _compare_buckets(ground: Ground, findings: Findings) -> None:
    billed: defaultdict[BucketName, Bytes] = defaultdict(Bytes)
    for key, (uplink, downlink, _), _ in read_buckets(ground.connection):
        name = BucketName(key.bucket_start, key.stored_node_id, key.account_uuid, key.line_code)
        billed[name] = billed[name].plus(Bytes(uplink, downlink))
    expected = ground.expected.buckets
    for name in sorted(billed.keys() | expected.keys()):
        told, right = billed.get(name, NOTHING), expected.get(name, NOTHING)
        if told != right:
            where = f"bucket {format_rfc3339(name.bucket_start)} {' '.join(name[1:])}"
            findings.problems.append(f"{where}: {tuple(told)} billed, right is {tuple(right)}")
            difference = sum(told) - sum(right)
            findings.doubled_bytes += max(0, difference)
            findings.lost_bytes += max(0, -difference)


def _compare_funds(ground: Ground, findings: Findings) -> None:
    expected, present = ground.expected.funds(), read_funds(ground.connection)
    for account in sorted(expected.keys() | present.keys()):
        right, has = expected.get(account), present.get(account)
        if right is None or has is None:
            findings.problems.append(f"account {account}: has {has}, right is {right}")
            continue
        added = ground.top_ups.get(account, Funds())
        right = Funds(right.balance + added.balance, right.quota + added.quota)
        if has != right:
            findings.problems.append(f"account {account}: has {has}, right is {right}")
            findings.wrong_nanos += abs(nanos_of(has.balance - right.balance))
