"""Held deltas, and what was decided about them, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from billing_cli.core.result import RunResult
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import UsageRecord

HeldState = Literal["held", "released", "rejected"]


@dataclass(frozen=True, slots=True)
class HeldDelta:
    """A delta above what its line can carry, and where its decision stands.

    `record` has its figures; its `bucket_start` is the minute in which it was seen. `source_id`
    is None where no source carries the node any more, `account_uuid` while nobody knows whose
    the stream is.
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
class HeldResult(RunResult):
    """A run that decided held deltas: `held` are these, as they stand afterwards.

    `corrections` counts the ledger entries that charge them, `written_minutes` their buckets.
    """

    held: tuple[HeldDelta, ...] = ()

    @property
    def details(self) -> Mapping[str, Any]:
        """The deltas that were decided."""
        return {"held": [held_object(one) for one in self.held]}


def held_list_object(deltas: Sequence[HeldDelta]) -> dict[str, Any]:
    """Return a list of held deltas as a JSON object."""
    return {
        "job": "held-list",
        "status": "ok",
        "error": None,
        "held": [held_object(one) for one in deltas],
    }


def held_object(held: HeldDelta) -> dict[str, Any]:
    """Return a held delta as a JSON object."""
    record = held.record
    return {
        "held_id": held.held_id,
        "state": held.state,
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
