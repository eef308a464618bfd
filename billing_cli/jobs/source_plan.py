"""What one source is about to be written: between looking and writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from billing_cli.core.deltas import Advance, advance, not_yet_applied

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import (
        Checkpoint,
        DeltaPolicy,
        NodeIdentity,
        Snapshot,
        StreamName,
    )
    from billing_cli.database.known_streams import NodeStreams


@dataclass(frozen=True, eq=False)
class SourcePlan:
    """What one source's new snapshots amount to, before any of it is written.

    `since` is how far its node has been applied, and with `continuity_expected` the snapshot there
    must be met again. `taken_over` are streams without a row that go on from an older writer's
    totals.
    """

    source_id: str
    identity: NodeIdentity
    contract: str
    region: str
    streams: NodeStreams
    since: datetime | None
    snapshots: Sequence[Snapshot]
    policy: DeltaPolicy
    continuity_expected: bool
    taken_over: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def has_news(self) -> bool:
        """Whether there are snapshots to be applied."""
        return bool(not_yet_applied(self.since, self.snapshots))

    def movers(self) -> Iterator[str]:
        """Yield the accounts of streams of which the last snapshot tells something new.

        Nearly all of those whose streams will be found to have moved, and known before that: an
        account may come twice.
        """
        rows, newest = self.streams.rows, self.snapshots[-1].totals
        for name, checkpoint in self.streams.checkpoints.items():
            if checkpoint.totals != newest.get(name):
                account_uuid = rows[name].account_uuid
                if account_uuid is not None:
                    yield account_uuid

    @cached_property
    def advance(self) -> Advance:
        """What applying the snapshots comes to, computed when it is first asked for."""
        known = self.streams.checkpoints
        return advance(
            self.since,
            {**known, **self.taken_over} if self.taken_over else known,
            self.snapshots,
            self.policy,
            continuity_expected=self.continuity_expected,
        )

    @property
    def watermark(self) -> datetime:
        """Where the source stands when this is written."""
        if self.advance.watermark is None:
            raise AssertionError("a source that moves has a watermark")
        return self.advance.watermark
