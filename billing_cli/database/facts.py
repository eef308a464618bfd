"""What a run writes, as values: `database.parameters` makes parameters of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.seals import LineDigest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from decimal import Decimal

    from billing_cli.core.model import (
        Account,
        Bucket,
        BucketKey,
        Charge,
        Checkpoint,
        Gap,
        HeldDelta,
        NodeIdentity,
        Renewal,
        StreamName,
        StreamOrigin,
        Succession,
        UsageRecord,
    )
    from billing_cli.database.quota_periods import SeenPeriod


class NewStream(NamedTuple):
    """A stream without a row yet, its first checkpoint and the present one."""

    stored_node_id: str
    name: StreamName
    account_uuid: str | None
    origin: StreamOrigin
    first: Checkpoint
    checkpoint: Checkpoint
    absent_since: datetime | None


class ChangedStream(NamedTuple):
    """A stream whose row changes. `absent_since` is the last snapshot that held a stream gone.

    `new_account` is None where the account stays as it is.
    """

    stream_id: int
    new_account: str | None
    checkpoint: Checkpoint
    absent_since: datetime | None


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """How far a source was applied, and the plausibility credit of its node at that moment."""

    source_id: str
    identity: NodeIdentity
    contract: str
    first_at: datetime
    watermark: datetime
    samples_at: datetime | None
    restarted_at: datetime | None
    debt_bytes: int
    debt_at: datetime | None
    credit_since: datetime | None


@dataclass(frozen=True, slots=True)
class AccountDebt:
    """What an account used beyond its credit on a node, in bytes."""

    stored_node_id: str
    account_key: str
    debt_bytes: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class StoredSuccession:
    """A succession, whose counters it is about, and the ids of its streams by name."""

    source_id: str
    stored_node_id: str
    account_uuid: str | None
    succession: Succession
    stream_ids: Mapping[StreamName, int]


@dataclass(frozen=True, slots=True)
class Entries:
    """Charges in ledger order, and what they leave of their accounts.

    `buckets` are those that are new. `corrected` have a row already: their bytes are added to it,
    and the multiplier is that of a row which is missing all the same. `accounts` are in key order.
    `former_quotas` are what is left, by account, of quotas before renewals that an earlier run has
    seen.
    """

    charges: Sequence[Charge] = ()
    buckets: Mapping[BucketKey, Bucket] = field(default_factory=dict)
    corrected: Sequence[tuple[Bucket, Decimal]] = ()
    accounts: Sequence[Account] = ()
    seen_periods: Sequence[SeenPeriod] = ()
    former_quotas: Sequence[tuple[str, Renewal]] = ()


@dataclass(frozen=True, slots=True)
class StagedLines:
    """Canonical lines that were staged: their digest, and the minutes that they are of."""

    digest: LineDigest = field(default_factory=LineDigest)
    minutes: frozenset[datetime] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a run writes of the sources that moved.

    `checkpoints` are the shared checkpoints to be summed anew: node, account, and the last snapshot
    with samples. `stale` says by node and account which are left to a later run, and with False
    which of those that an earlier one left are written. Pending and held usage comes with the id of
    its stream. Usage `records` and `charges` were staged.
    """

    streams: Sequence[ChangedStream] = ()
    assigned: Sequence[tuple[int, str]] = ()
    entries: Entries = Entries()
    checkpoints: Sequence[tuple[str, str, datetime]] = ()
    stale: AbstractSet[tuple[str, str, bool]] = frozenset()
    billed_pending: Sequence[tuple[int, datetime]] = ()
    pending: Sequence[tuple[int, UsageRecord]] = ()
    held: Sequence[tuple[int, HeldDelta]] = ()
    gaps: Sequence[tuple[str, Gap]] = ()
    successions: Sequence[StoredSuccession] = ()
    sources: Sequence[SourceProgress] = ()
    debts: Sequence[AccountDebt] = ()
    records: StagedLines = field(default_factory=StagedLines)
    charges: StagedLines = field(default_factory=StagedLines)


@dataclass(frozen=True, slots=True)
class Run:
    """What every fact of a run has in common."""

    run_id: str
    now: datetime
    pricing_rule_version: str
    has_arrears_since: bool
    job: str = ""


class Attempt(NamedTuple):
    """The outcome of a source that took part: where it stands, and its error or an empty text."""

    source_id: str
    watermark: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """What every run writes of all its sources; `open_gaps` have no end yet."""

    attempts: Sequence[Attempt]
    open_gaps: Sequence[tuple[str, Gap]]
