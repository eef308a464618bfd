"""What the jobs ask of an exporter and what they get: plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.exporter.seen import Seen
    from billing_cli.exporter.source import Contract, Source


class ExporterError(Exception):
    """A source could not be used. The text is a one-line reason without secrets.

    `unreachable` is true where no exporter answered (connect, TLS, timeout, 502/503/504), false
    where one answered and the answer was wrong.
    """

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """One bounded step wanted from a source.

    `since` is the watermark (its snapshot is wanted again, as proof of continuity), or where to
    begin; snapshots at or after `until` are not wanted. `max_samples` bounds the step softly: it
    ends at a minute boundary with at least one whole minute after the minute of `since`. `seen`
    is what is known of the snapshot at the watermark: if it comes again just so, it is passed
    over, and its samples are not decoded.
    """

    source: Source
    since: datetime
    until: datetime
    max_samples: int
    page_limit: int
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source answered.

    `snapshots` are oldest first, strictly rising, all of `identity`, before `until` (contract
    `latest`: the one on offer, whatever its minute), and every minute among them is complete.
    `complete` is true where the source has nothing more before `until`. `identity` is None where
    it has no snapshot yet. `notes` are one-line remarks for the operator.
    """

    contract: Contract
    identity: NodeIdentity | None
    snapshots: tuple[Snapshot, ...]
    complete: bool
    notes: tuple[str, ...] = ()
