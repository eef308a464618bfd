"""Short ways to write snapshots down, and the part of the store that the core relies on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from billing_cli.core.deltas import Advance, NodeState, advance
from billing_cli.core.model import (
    Checkpoint,
    DeltaPolicy,
    Gap,
    HeldDelta,
    NodeIdentity,
    Snapshot,
    StreamName,
    StreamOrigin,
    Succession,
    Totals,
    UsageRecord,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NODE = NodeIdentity("prod", "jp-1.svc.plus")
NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)

ALICE = StreamName("xhttp", "11111111-1111-1111-1111-111111111111")
ALICE_TCP = StreamName("tcp", "11111111-1111-1111-1111-111111111111")
BOB = StreamName("xhttp", "22222222-2222-2222-2222-222222222222")

MERGED = ALICE._replace(inbound_tag="")
BOB_MERGED = BOB._replace(inbound_tag="")

Counts = tuple[int, int]
"""Bytes up and down."""

BELIEVE_ALL = DeltaPolicy(account_rate_bits_per_second=0, line_rate_bits_per_second=0)


def after_noon(clock: str) -> datetime:
    """Return the moment that is `minutes:seconds` after noon, such as `01:30`."""
    minutes, seconds = clock.split(":")
    return NOON + timedelta(minutes=int(minutes), seconds=float(seconds))


def account_of(name: StreamName) -> str:
    """Return whose a stream is, where each uuid is an account's."""
    return name.sample_uuid


def totals_of(pairs: Mapping[StreamName, Counts]) -> dict[StreamName, Totals]:
    """Return pairs as totals."""
    return {name: Totals(*pair) for name, pair in pairs.items()}


def known_at(
    totals: Counts,
    *,
    state: str = "active",
    seen: str = "00:00",
    before_restart: Counts | None = None,
) -> Checkpoint:
    """Return where a stream stands."""
    before = None if before_restart is None else Totals(*before_restart)
    return Checkpoint(after_noon(seen), Totals(*totals), 3, before, state)  # type: ignore[arg-type]


def snapshot(
    clock: str,
    totals: Mapping[StreamName, Counts],
    *,
    rejected: tuple[str, ...] = (),
) -> Snapshot:
    """Return a snapshot taken at `minutes:seconds` after noon, with (uplink, downlink) totals."""
    return Snapshot(after_noon(clock), NODE, totals_of(totals), rejected)


def alice(clock: str, uplink: int, downlink: int = 0) -> Snapshot:
    """Return a snapshot of a node that only Alice uses."""
    return snapshot(clock, {ALICE: (uplink, downlink)})


def record(
    name: StreamName,
    clocks: tuple[str, str],
    start: tuple[int, int],
    end: tuple[int, int],
    epoch: int = 0,
) -> UsageRecord:
    """Return the record of what grew from `start` to `end` between two moments after noon."""
    from_at, to_at = (after_noon(clock) for clock in clocks)
    minute = to_at.replace(second=0, microsecond=0)
    return UsageRecord(name, minute, epoch, from_at, to_at, Totals(*start), Totals(*end))


def first_run(*snapshots: Snapshot, policy: DeltaPolicy = BELIEVE_ALL) -> Advance:
    """Return what a node's first snapshots amount to."""
    return advance(NodeState(), snapshots, {}, policy)


def next_run(
    watermark: str, known: Mapping[StreamName, Checkpoint], *snapshots: Snapshot
) -> Advance:
    """Return what snapshots amount to, for known streams and a watermark after noon."""
    at = after_noon(watermark)
    return advance(NodeState(at, at, known), snapshots, {}, BELIEVE_ALL)


@dataclass
class Ledger:
    """What the database keeps of one node between runs, by the database's own rules.

    A stream that the last snapshot with samples held carries no stamp of its own; one that it did
    not hold keeps the stamp of the last one that did. `accounts` are as `advance` takes them.
    """

    policy: DeltaPolicy = BELIEVE_ALL
    accounts: Mapping[str, str] = field(default_factory=dict)
    node: NodeState = field(default_factory=NodeState)
    absent: set[StreamName] = field(default_factory=set)
    rows: dict[StreamName, Checkpoint] = field(default_factory=dict)
    origins: dict[StreamName, tuple[StreamOrigin, Checkpoint]] = field(default_factory=dict)
    records: list[UsageRecord] = field(default_factory=list)
    held: list[HeldDelta] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    successions: list[Succession] = field(default_factory=list)
    resets: int = 0

    def run(self, *snapshots: Snapshot, decide_now: bool = False, is_cut: bool = False) -> Advance:
        """Apply the snapshots as a run does, keep what it leaves, and return what it did."""
        node = replace(self.node, streams=self.checkpoints(snapshots))
        step = advance(
            node, snapshots, self.accounts, self.policy, decide_now=decide_now, is_cut=is_cut
        )
        self.node = NodeState(
            step.watermark,
            step.samples_at,
            restarted_at=step.restarted_at,
            credit=step.credit,
            awaits_baseline=step.watermark is not None and step.samples_at is None,
        )
        for name, checkpoint in step.checkpoints.items():
            if checkpoint.state == "continued":
                assert checkpoint.surplus is checkpoint.before_restart is None, name
            self.rows[name] = checkpoint
            if step.samples_at is not None and checkpoint.seen_at < step.samples_at:
                self.absent.add(name)
            else:
                self.absent.discard(name)
        self.origins |= step.origins
        self.records.extend(step.records)
        self.held.extend(step.held)
        self.gaps.extend(step.gaps)
        self.successions.extend(step.successions)
        self.resets += step.resets
        return step

    def live(self, *history: Snapshot) -> None:
        """Run after each snapshot, as a timer does. One run over all has to come to the same."""
        at_once = Ledger(self.policy, self.accounts) if self.node.watermark is None else None
        self.run_after_each(*history)
        if at_once is not None:
            at_once.run(*history)
            assert at_once.outcome(history) == self.outcome(history)

    def run_after_each(self, *history: Snapshot) -> None:
        """Run after each snapshot of a history; read from the watermark on."""
        for end in range(1, len(history) + 1):
            at = self.node.watermark
            self.run(*(one for one in history[:end] if at is None or one.collected_at >= at))

    def outcome(self, history: Sequence[Snapshot]) -> tuple[object, ...]:
        """Return what is kept after a history, records without the order in which they came."""
        records = sorted(self.records), sorted(self.held)
        streams = self.checkpoints(history), self.origins
        return (*records, self.gaps, self.successions, *streams, self.node, self.resets)

    def checkpoints(self, snapshots: Sequence[Snapshot]) -> dict[StreamName, Checkpoint]:
        """Return the streams that a run reads: present ones, named ones, restarted ones."""
        named = {name for snapshot in snapshots for name in snapshot.totals}
        at = self.node.samples_at
        return {
            name: row if name in self.absent or at is None else row._replace(seen_at=at)
            for name, row in self.rows.items()
            if name not in self.absent or name in named or row.before_restart is not None
        }

    def charged(self, account: str | None = None) -> tuple[int, int]:
        """Return the bytes of an account's records, or of all, by direction."""
        records = [
            record
            for record in self.records
            if account is None or self.accounts.get(record.name.sample_uuid) == account
        ]
        return sum(record.uplink_bytes for record in records), sum(
            record.downlink_bytes for record in records
        )
