"""How an account's charges came about, as values: counters, usage records, buckets and entries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

from billing_cli.core.rating import EXACT
from billing_cli.features.explain.queries_totals import NO_TOTALS, AccountTotals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from billing_cli.core.model import EntryType, StreamOrigin, Totals
    from billing_cli.features.explain.queries_totals import Waiting


DEFAULT_LIMIT = 60
"""No more minutes are shown than this unless asked for."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """Totals that a stream took over from others (`renamed`), or got back (`restart_revoked`).

    `streams` are the names of the counters that it continues: inbound tag and sample uuid.
    """

    kind: str
    at: datetime
    streams: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class Movement:
    """A usage record: what one stream moved, from one snapshot to another.

    `kind` is that of the record. A `correction` has in `start` the bytes of the cell that were on
    record for the minute, in `end` those that are now; all others have the counters' totals.
    `before` is the counters' former total, where they restarted in between.
    `first_sight` says how the stream's history begins, where it begins with this record.
    `reason` is an operator's, for what was held at first, because of `held_reason`.
    `job` wrote a correction; "" where that is not known.
    """

    sample_uuid: str
    kind: str
    revision: int
    reset_epoch: int
    from_at: datetime
    to_at: datetime
    start: Totals
    end: Totals
    before: Totals | None = None
    first_sight: StreamOrigin | None = None
    reason: str = ""
    taken_over: tuple[TakenOver, ...] = ()
    held_reason: str = ""
    job: str = ""

    @property
    def uplink_bytes(self) -> int:
        """Bytes that the user sent; negative where a correction takes some away."""
        return self.end.uplink - self.start.uplink

    @property
    def downlink_bytes(self) -> int:
        """Bytes that the user received; negative where a correction takes some away."""
        return self.end.downlink - self.start.downlink


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Bytes that are not charged, seen in this minute: held still, or rejected (`state`).

    `held_reason` says why they were held.
    """

    movement: Movement
    state: str
    held_reason: str = "account_rate"


@dataclass(frozen=True, slots=True)
class BucketRow:
    """The shared bucket row of one region."""

    region: str
    uplink_bytes: int
    downlink_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A ledger entry and the calculation behind it.

    An adjustment with `adjusts` is about that charge: `standing_rated_bytes` of it are left
    afterwards, and `charged_before` had been charged for it until then. `is_in_ledger` says
    whether the ledger row is there.
    """

    ledger_id: str
    entry_type: EntryType
    adjusts: str | None
    region: str
    included_bytes: int
    rated_bytes: int
    price_per_byte: Decimal
    multiplier: Decimal
    amount_delta: Decimal
    quota_before: int
    balance_before: Decimal
    pricing_rule_version: str
    run_id: str
    reason: str
    created_at: datetime
    is_in_ledger: bool
    standing_rated_bytes: int = 0
    charged_before: Decimal = Decimal(0)

    @property
    def quota_after(self) -> int:
        """Included bytes that were left."""
        return self.quota_before - self.included_bytes

    @property
    def balance_after(self) -> Decimal:
        """The balance that was left."""
        return self.balance_before + self.amount_delta

    @property
    def product(self) -> Decimal:
        """Rated bytes x price x multiplier, before it is rounded to 9 places."""
        rated = self.rated_bytes if self.adjusts is None else self.standing_rated_bytes
        with localcontext(EXACT):
            return rated * self.price_per_byte * self.multiplier


@dataclass(frozen=True, slots=True)
class ForeignEntry:
    """A ledger row of the minute that someone else wrote."""

    ledger_id: str
    entry_type: str
    rated_bytes: int
    amount_delta: Decimal
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LineExplanation:
    """What happened in one minute on one line of one node."""

    stored_node_id: str
    line_code: str
    movements: tuple[Movement, ...] = ()
    held: tuple[HeldBack, ...] = ()
    buckets: tuple[BucketRow, ...] = ()
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class MinuteExplanation:
    """What happened in one minute, by line, and what others wrote into it."""

    minute: datetime
    lines: tuple[LineExplanation, ...]
    foreign: tuple[ForeignEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceGap:
    """A range of time that a source's history does not plainly cover."""

    source_id: str
    kind: str
    from_at: datetime
    to_at: datetime | None
    resolved_at: datetime | None
    resolution: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an account was charged in [since, until): totals, and the minutes, oldest first.

    For a uuid that no account has (`known_by` is `unresolved`), `account_uuid` is None, and
    `waiting` says what is charged once there is one.

    `minutes` are the first of `total_minutes`; `next_minute` is the first that is not shown.
    `since` and `until` are None where nothing limits them. `known_by` says what kind of uuid was
    asked for, `exists` whether the account is still there. `evidence_since` is where its evidence
    begins, where older evidence was pruned.
    """

    asked: str
    account_uuid: str | None
    known_by: str
    exists: bool
    since: datetime | None
    until: datetime | None
    minutes: tuple[MinuteExplanation, ...] = ()
    total_minutes: int = 0
    next_minute: datetime | None = None
    gaps: tuple[SourceGap, ...] = ()
    evidence_since: datetime | None = None
    totals: AccountTotals = NO_TOTALS
    waiting: tuple[Waiting, ...] = ()
    currency: str = ""


def with_standing(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return a minute's entries, oldest first, with what each adjustment leaves of its charge."""
    rated: dict[str, int] = {}
    charged: dict[str, Decimal] = {}
    standing = []
    for entry in entries:
        charge = entry.adjusts or entry.ledger_id
        before = charged.get(charge, Decimal(0))
        rated[charge] = rated.get(charge, 0) + entry.rated_bytes
        charged[charge] = before + entry.amount_delta
        standing.append(replace(entry, standing_rated_bytes=rated[charge], charged_before=before))
    return tuple(standing)
