"""The values that flow through the core: frozen, plain, free of I/O.

Those of which a run makes one for each stream are named tuples, which are made several times
faster than data classes.

Units: totals and bytes are whole bytes, times are aware UTC datetimes with microseconds,
money is `Decimal`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal

MAX_TOTAL = 2**63 - 1
"""The largest counter value and byte sum that the wire and PostgreSQL's BIGINT can carry."""


class StreamName(NamedTuple):
    """One counter pair within a node. `sample_uuid` is a canonical lower-case UUID string."""

    inbound_tag: str
    sample_uuid: str


class Totals(NamedTuple):
    """Cumulative counters of one stream at one instant, in bytes, each 0 .. 2**63-1."""

    uplink: int
    downlink: int


class NodeIdentity(NamedTuple):
    """Which node a snapshot speaks for, in the exporter's own words."""

    env: str
    node_id: str

    @property
    def stored(self) -> str:
        """The `node_id` of the shared tables: `env:node_id`, or `node_id` where env is empty."""
        return f"{self.env}:{self.node_id}" if self.env else self.node_id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counters of a node at one instant.

    `collected_at` is truncated to microseconds, so that it compares equal to a watermark that was
    stored from it. `rejected` holds one reason for each sample that could not be used.
    """

    collected_at: datetime
    identity: NodeIdentity
    totals: Mapping[StreamName, Totals]
    rejected: tuple[str, ...] = ()


StreamOrigin = Literal["baseline", "new", "taken_over"]
"""How a stream began: total not charged, total charged, or the legacy writer's total continued."""

StreamState = Literal["active", "continued", "duplicate", "ignored"]
"""Whether a stream's bytes are charged (active), continue under another name, are held until an
operator decides (duplicate), or are never charged (ignored)."""


class Checkpoint(NamedTuple):
    """Where a stream's usage records end.

    `seen_at` is the stamp of the last snapshot that held the stream; `totals` its counters there.
    `reset_epoch` counts the counter resets so far. `before_restart` are the totals that the stream
    had before the last restart of its process, while that restart can still be revoked. `surplus`
    are bytes that were charged because of a revoked restart: that much growth is not charged.
    """

    seen_at: datetime
    totals: Totals
    reset_epoch: int = 0
    before_restart: Totals | None = None
    state: StreamState = "active"
    surplus: Totals | None = None


class UsageRecord(NamedTuple):
    """What a stream moved in one minute within one epoch, with the evidence for it.

    The bytes are `end - start`, always: a counter restart begins a new record from zero.
    Records of a stream telescope: each starts at the totals where the one before ended.
    """

    name: StreamName
    bucket_start: datetime
    reset_epoch: int
    from_at: datetime
    to_at: datetime
    start: Totals
    end: Totals

    @property
    def uplink_bytes(self) -> int:
        """Bytes that users sent."""
        return self.end.uplink - self.start.uplink

    @property
    def downlink_bytes(self) -> int:
        """Bytes that users received."""
        return self.end.downlink - self.start.downlink

    @property
    def total_bytes(self) -> int:
        """Both directions together."""
        return self.uplink_bytes + self.downlink_bytes


GapKind = Literal["late", "reset", "history_lost", "stalled", "disorder", "uncertain"]


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of a source's time that its history does not fully cover.

    `streams` counts the streams that it affects, where that is known. `uncertain_bytes` were not
    charged, because another interpretation of the snapshots charges less.
    """

    kind: GapKind
    from_at: datetime
    to_at: datetime
    streams: int = 0
    uncertain_bytes: int = 0


class SuccessionSide(NamedTuple):
    """A stream's part in a succession: the totals that it hands over or takes over, in bytes."""

    name: StreamName
    totals: Totals


@dataclass(frozen=True, slots=True)
class Succession:
    """Counters that continue under other names, or after a restart that turned out to be none.

    The totals of `ended` and of `continued` have the same sum in each direction. A stream of
    `continued` takes its part over at `at`: its next usage record starts higher by those totals.
    A revoked restart has the same streams on both sides: what they had counted before it. With
    `is_surplus` it was revoked earlier, and growth is absorbed that it had charged. The
    `continued` are of that `state`, where they are new.
    """

    kind: Literal["renamed", "restart_revoked"]
    at: datetime
    ended: tuple[SuccessionSide, ...]
    continued: tuple[SuccessionSide, ...]
    uncertain_bytes: int = 0
    is_surplus: bool = False
    state: StreamState = "active"


HeldReason = Literal["account_rate", "line_rate", "duplicate", "daily_charge"]


class HeldDelta(NamedTuple):
    """A delta that is not charged until an operator decides, and why."""

    record: UsageRecord
    reason: HeldReason


@dataclass(frozen=True, slots=True)
class DeltaPolicy:
    """What the delta computation may assume.

    `account_rate_bits_per_second` and `line_rate_bits_per_second` limit what an account on a node
    and a whole node can move, over `burst_hours`; 0 is no limit.
    `late_after_seconds`: consecutive snapshots further apart than this leave a `late` gap.
    `charge_first_snapshot`: a source's first totals are charged instead of taken as a baseline.
    `max_streams_per_account` counts an account's streams on the node, the two after it the streams
    that are new within an hour, all and without an account; 0 is no limit.
    """

    account_rate_bits_per_second: int = 2_000_000_000
    line_rate_bits_per_second: int = 10_000_000_000
    burst_hours: float = 2.0
    late_after_seconds: float = 150.0
    charge_first_snapshot: bool = False
    max_streams_per_account: int = 200
    max_new_streams_per_hour: int = 100_000
    max_unresolved_streams_per_hour: int = 20_000


class BucketKey(NamedTuple):
    """The primary key of `traffic_minute_buckets`, in the order in which charges are rated."""

    bucket_start: datetime
    stored_node_id: str
    account_uuid: str
    region: str
    line_code: str


class Bucket(NamedTuple):
    """An account's bytes in one minute on one line of one node."""

    key: BucketKey
    uplink_bytes: int
    downlink_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both directions together."""
        return self.uplink_bytes + self.downlink_bytes


@dataclass(frozen=True, slots=True)
class Price:
    """What an account pays: per byte beyond its quota, times a multiplier by line and hour."""

    per_byte: Decimal
    multiplier: Decimal
    peak_multiplier: Decimal
    offpeak_multiplier: Decimal


class Renewal(NamedTuple):
    """The begin of a quota period, and what is left of the former period's quota, in bytes."""

    period_start: datetime
    former_quota: int


class Account(NamedTuple):
    """An account's quota state as read under its row lock, and its price.

    `remaining_included_quota` in bytes, of the present period; `current_balance` with 9 decimal
    places. `renewals`, oldest first, are those after the first minute that may be charged.
    """

    account_uuid: str
    remaining_included_quota: int
    current_balance: Decimal
    price: Price
    renewals: tuple[Renewal, ...] = ()


EntryType = Literal["traffic_charge", "traffic_adjustment"]


class Charge(NamedTuple):
    """One ledger entry and the evidence for it.

    A minute's own charge has positive bytes and an amount of zero or less. An adjustment may take
    bytes and money back; `adjusts` is then the ledger id of the charge that it is about, and
    `reason` says why. Amounts and balances have 9 decimal places.
    """

    ledger_id: str
    key: BucketKey
    included_bytes: int
    rated_bytes: int
    price_per_byte: Decimal
    multiplier: Decimal
    amount_delta: Decimal
    quota_before: int
    balance_before: Decimal
    balance_after: Decimal
    entry_type: EntryType = "traffic_charge"
    adjusts: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rating:
    """The charges of one run in bucket order, and what they leave of each account."""

    charges: tuple[Charge, ...] = ()
    accounts: Mapping[str, Account] = field(default_factory=dict)
