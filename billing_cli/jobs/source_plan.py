"""What one source is about to be written: between looking and writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.core.deltas import Advance
    from billing_cli.core.model import Checkpoint, NodeIdentity, StreamName
    from billing_cli.store.streams import NodeStreams


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """What one source's new snapshots amount to, before any of it is written.

    `taken_over` are streams without a row that go on from an older writer's totals.
    """

    source_id: str
    identity: NodeIdentity
    contract: str
    region: str
    streams: NodeStreams
    advance: Advance
    taken_over: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def watermark(self) -> datetime:
        """Where the source stands when this is written."""
        if self.advance.watermark is None:
            raise AssertionError("a source that moves has a watermark")
        return self.advance.watermark
