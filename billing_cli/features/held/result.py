"""Held deltas, and what was decided about them, as values."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from billing_cli.core.result import RunResult
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from billing_cli.core.model import HeldReason, UsageRecord

HeldState = Literal["held", "released", "rejected"]


@dataclass(frozen=True, slots=True)
class HeldDelta:
    """A delta that is not charged until an operator decides, and where its decision stands.

    `record` has its figures; its `bucket_start` is the minute in which it was seen, the first one
    for a duplicate stream. `source_id` is None where no source carries the node any more,
    `account_uuid` while the stream is unresolved. `held_reason` says why it is held, `reason` why
    it was decided so.
    """

    held_id: int
    stream_id: int
    source_id: str | None
    stored_node_id: str
    account_uuid: str | None
    record: UsageRecord
    found_at: datetime
    state: HeldState = "held"
    decided_at: datetime | None = None
    reason: str = ""
    held_reason: HeldReason = "account_rate"

    @property
    def total_bytes(self) -> int:
        """Both directions together."""
        return self.record.uplink_bytes + self.record.downlink_bytes

    @property
    def bits_per_second(self) -> int:
        """The rate that the figures would mean, to the bit; over a second where stamps meet."""
        seconds = (self.record.to_at - self.record.from_at).total_seconds()
        return round(self.total_bytes * 8 / (seconds or 1.0))


@dataclass(frozen=True, slots=True)
class HeldUnit:
    """What is decided together as a rule.

    An account's minute on a node (`account_rate`), a node's minute (`line_rate`, all accounts: no
    `account_uuid`), or what a duplicate stream counted. `minute` is the first one.
    """

    source_id: str | None
    stored_node_id: str
    minute: datetime
    held_reason: HeldReason
    account_uuid: str | None
    deltas: tuple[HeldDelta, ...]

    @property
    def total_bytes(self) -> int:
        """All streams, both directions together."""
        return sum(delta.total_bytes for delta in self.deltas)


@dataclass(frozen=True, slots=True)
class UncertainGap:
    """Bytes that were not charged, because another reading of the snapshots charges less."""

    source_id: str
    kind: str
    from_at: datetime
    to_at: datetime | None
    streams: int
    uncertain_bytes: int


@dataclass(frozen=True, slots=True)
class HeldList:
    """Held deltas, oldest first, and the open gaps that state uncertain bytes."""

    deltas: tuple[HeldDelta, ...] = ()
    gaps: tuple[UncertainGap, ...] = ()

    @property
    def units(self) -> tuple[HeldUnit, ...]:
        """The deltas that wait for a decision, by what is decided together."""
        waiting: defaultdict[tuple[object, ...], list[HeldDelta]] = defaultdict(list)
        for delta in self.deltas:
            if delta.state == "held":
                stream = delta.stream_id if delta.held_reason == "duplicate" else None
                minute = delta.record.bucket_start if stream is None else None
                account = None if delta.held_reason == "line_rate" else delta.account_uuid
                key = (delta.stored_node_id, minute, delta.held_reason, account, stream)
                waiting[key].append(delta)
        return tuple(
            HeldUnit(
                deltas[0].source_id,
                deltas[0].stored_node_id,
                deltas[0].record.bucket_start,
                deltas[0].held_reason,
                None if deltas[0].held_reason == "line_rate" else deltas[0].account_uuid,
                tuple(deltas),
            )
            for deltas in waiting.values()
        )


@dataclass(frozen=True, slots=True)
class HeldResult(RunResult):
    """A run that decided held deltas: `held` are these, as they stand afterwards.

    `corrections` counts the ledger entries that charge them, `written_minutes` their buckets.
    """

    held: tuple[HeldDelta, ...] = ()

    @property
    def details(self) -> Mapping[str, Any]:
        """The deltas that were decided."""
        return {"held": [held_object(delta) for delta in self.held]}


def held_list_object(listed: HeldList) -> dict[str, Any]:
    """Return a list of held deltas as a JSON object."""
    return {
        "job": "held-list",
        "status": "ok",
        "error": None,
        "units": [
            {
                "source_id": unit.source_id,
                "node_id": unit.stored_node_id,
                "minute": format_rfc3339(unit.minute),
                "held_reason": unit.held_reason,
                "account_uuid": unit.account_uuid,
                "total_bytes": unit.total_bytes,
                "held_ids": [delta.held_id for delta in unit.deltas],
            }
            for unit in listed.units
        ],
        "held": [held_object(delta) for delta in listed.deltas],
        "uncertain_gaps": [
            {
                "source_id": gap.source_id,
                "kind": gap.kind,
                "from_at": format_rfc3339(gap.from_at),
                "to_at": format_rfc3339(gap.to_at) if gap.to_at else None,
                "streams": gap.streams,
                "uncertain_bytes": gap.uncertain_bytes,
            }
            for gap in listed.gaps
        ],
    }


def held_object(held: HeldDelta) -> dict[str, Any]:
    """Return a held delta as a JSON object."""
    record = held.record
    return {
        "held_id": held.held_id,
        "state": held.state,
        "held_reason": held.held_reason,
        "source_id": held.source_id,
        "node_id": held.stored_node_id,
        "line_code": record.name.inbound_tag,
        "sample_uuid": record.name.sample_uuid,
        "account_uuid": held.account_uuid,
        "from_at": format_rfc3339(record.from_at),
        "to_at": format_rfc3339(record.to_at),
        "reset_epoch": record.reset_epoch,
        "uplink_start": record.start.uplink,
        "uplink_end": record.end.uplink,
        "downlink_start": record.start.downlink,
        "downlink_end": record.end.downlink,
        "uplink_bytes": record.uplink_bytes,
        "downlink_bytes": record.downlink_bytes,
        "total_bytes": held.total_bytes,
        "bits_per_second": held.bits_per_second,
        "found_at": format_rfc3339(held.found_at),
        "decided_at": format_rfc3339(held.decided_at) if held.decided_at else None,
        "reason": held.reason,
    }
