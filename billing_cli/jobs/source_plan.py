"""What one source is about to be written: between looking and writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from billing_cli.core.deltas import Advance
    from billing_cli.core.model import Checkpoint, NodeIdentity, StreamName
    from billing_cli.store.known_streams import NodeStreams


@dataclass(frozen=True, eq=False)
class SourcePlan:
    """What one source's new snapshots amount to, before any of it is written.

    `has_news` tells whether any snapshot is to be applied. What that comes to is computed when it
    is first asked for, so that the server can be given something to do before. `taken_over` are
    streams without a row that go on from an older writer's totals.
    """

    source_id: str
    identity: NodeIdentity
    contract: str
    region: str
    streams: NodeStreams
    has_news: bool
    compute: Callable[[], Advance]
    taken_over: Mapping[StreamName, Checkpoint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def advance(self) -> Advance:
        """What applying the snapshots comes to."""
        return self.compute()

    @property
    def watermark(self) -> datetime:
        """Where the source stands when this is written."""
        if self.advance.watermark is None:
            raise AssertionError("a source that moves has a watermark")
        return self.advance.watermark
