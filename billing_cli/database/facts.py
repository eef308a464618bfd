"""What a run writes, as values, and as parameters of the statements in `database.write_path`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.canonical import NO_VALUE, charge_line, time_text, usage_line
from billing_cli.core.seals import LineDigest
from billing_cli.database import arrays
from billing_cli.database.write_path import (
    execute_all,
    stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from decimal import Decimal

    from psycopg import Connection

    from billing_cli.core.canonical import StoredUsage
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
    from billing_cli.database.write_path import Statement


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
    """A stream whose row changes. `absent_since` is the last snapshot that held a stream gone."""

    stream_id: int
    account_uuid: str | None
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
    and the multiplier is that of a row which is missing all the same. `accounts` come with the
    start of their last bucket, if any. `former_quotas` are what is left, by account, of quotas
    before renewals that an earlier run has seen.
    """

    charges: Sequence[Charge] = ()
    buckets: Mapping[BucketKey, Bucket] = field(default_factory=dict)
    corrected: Sequence[tuple[Bucket, Decimal]] = ()
    accounts: Sequence[tuple[Account, datetime | None]] = ()
    seen_periods: Sequence[SeenPeriod] = ()
    former_quotas: Sequence[tuple[str, Renewal]] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a run writes of the sources that moved.

    `checkpoints` are the shared checkpoints to be summed anew: node, account, and the last snapshot
    with samples. Pending and held usage comes with the id of its stream.
    """

    usage: Sequence[StoredUsage] = ()
    streams: Sequence[ChangedStream] = ()
    assigned: Sequence[tuple[int, str]] = ()
    entries: Entries = Entries()
    checkpoints: Sequence[tuple[str, str, datetime]] = ()
    billed_pending: Sequence[tuple[int, datetime]] = ()
    pending: Sequence[tuple[int, UsageRecord]] = ()
    held: Sequence[tuple[int, HeldDelta]] = ()
    gaps: Sequence[tuple[str, Gap]] = ()
    successions: Sequence[StoredSuccession] = ()
    sources: Sequence[SourceProgress] = ()
    debts: Sequence[AccountDebt] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What every fact of a run has in common."""

    run_id: str
    now: datetime
    pricing_rule_version: str
    has_arrears_since: bool
    job: str = ""


def write_facts(
    connection: Connection, statements: Sequence[Statement], facts: Facts, run: Run
) -> dict[str, int]:
    """Stage usage records and charges, then execute the statements; return rows by statement.

    All usage and charges are new, so that the seal covers what is written. The staging tables
    were created before.
    """
    records, charges = LineDigest(), LineDigest()
    minutes = {one.record.bucket_start for one in facts.usage}
    minutes.update(one.key.bucket_start for one in facts.entries.charges)
    if facts.usage:
        usage = sorted(facts.usage, key=_usage_key)
        stage(connection, "staged_usage", map(records.add, map(usage_line, usage)))
    if facts.entries.charges:
        lines = _charge_lines(facts.entries, run.pricing_rule_version, charges)
        stage(connection, "staged_charge", lines)
    parameters = _parameters(facts, run) | {
        "job": run.job,
        "first_bucket": min(minutes, default=None),
        "last_bucket": max(minutes, default=None),
        "sealed_records": records.count,
        "records_sha256": records.sha256,
        "record_checks": records.checks,
        "sealed_charges": charges.count,
        "charges_sha256": charges.sha256,
        "charge_checks": charges.checks,
    }
    return execute_all(connection, statements, parameters, has_arrears_since=run.has_arrears_since)


def rows_as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows for `jsonb_to_recordset`."""
    return json.dumps(list(rows), default=_json_value)


def gap_rows(gaps: Iterable[tuple[str, Gap]], *, are_open: bool = False) -> str:
    """Return gaps by source; the end of open ones is not known yet."""
    return rows_as_json(
        {**asdict(gap), "source_id": source_id, "to_at": None if are_open else gap.to_at}
        for source_id, gap in gaps
    )


def new_stream_rows(streams: Iterable[NewStream]) -> str:
    """Return streams that have no row yet."""
    return rows_as_json(
        {
            "stored_node_id": one.stored_node_id,
            "inbound_tag": one.name.inbound_tag,
            "sample_uuid": one.name.sample_uuid,
            "account_uuid": one.account_uuid,
            "origin": one.origin,
            "first_seen_at": one.first.seen_at,
            "first_uplink_total": one.first.totals.uplink,
            "first_downlink_total": one.first.totals.downlink,
            "seen_at": one.checkpoint.seen_at,
            "uplink_total": one.checkpoint.totals.uplink,
            "downlink_total": one.checkpoint.totals.downlink,
            "reset_epoch": one.checkpoint.reset_epoch,
            "absent_since": one.absent_since,
            "before_uplink": one.checkpoint.before_restart and one.checkpoint.before_restart.uplink,
            "before_downlink": one.checkpoint.before_restart
            and one.checkpoint.before_restart.downlink,
            "state": one.checkpoint.state,
            "surplus_uplink": one.checkpoint.surplus and one.checkpoint.surplus.uplink,
            "surplus_downlink": one.checkpoint.surplus and one.checkpoint.surplus.downlink,
        }
        for one in streams
    )


def _usage_key(usage: StoredUsage) -> tuple[datetime, int, datetime, int]:
    return usage.record.bucket_start, usage.stream_id, usage.record.from_at, usage.revision


def _charge_key(numbered: tuple[int, Charge]) -> tuple[datetime, str, str]:
    key = numbered[1].key
    return key.bucket_start, key.account_uuid, numbered[1].ledger_id


def _charge_lines(entries: Entries, pricing_rule_version: str, digest: LineDigest) -> Iterator[str]:
    """Yield each charge's canonical line with its place and, for a new bucket, its bytes."""
    bucket_of, add = entries.buckets.get, digest.add
    for ordinal, charge in sorted(enumerate(entries.charges, 1), key=_charge_key):
        bucket = bucket_of(charge.key)
        uplink, downlink = bucket[1:] if bucket is not None else (NO_VALUE, NO_VALUE)
        line = add(charge_line(charge, pricing_rule_version))
        yield f"{line[:-1]}\t{ordinal}\t{uplink}\t{downlink}\n"


def _parameters(facts: Facts, run: Run) -> dict[str, object]:
    corrected = facts.entries.corrected
    accounts = facts.entries.accounts
    return {
        "run_id": run.run_id,
        "now": run.now,
        "pricing_rule_version": run.pricing_rule_version,
        **_stream_columns(facts),
        **arrays.bucket_keys([bucket.key for bucket, _ in corrected]),
        "uplinks": arrays.plain(bucket.uplink_bytes for bucket, _ in corrected),
        "downlinks": arrays.plain(bucket.downlink_bytes for bucket, _ in corrected),
        "multipliers": arrays.plain(multiplier for _, multiplier in corrected),
        "checkpoint_nodes": arrays.texts(node for node, _, _ in facts.checkpoints),
        "checkpoint_accounts": arrays.plain(account for _, account, _ in facts.checkpoints),
        "checkpoint_stamps": arrays.moments(at for _, _, at in facts.checkpoints),
        "quota_accounts": arrays.plain(account.account_uuid for account, _ in accounts),
        "quotas": arrays.plain(account.remaining_included_quota for account, _ in accounts),
        "balances": arrays.plain(account.current_balance for account, _ in accounts),
        "last_buckets": arrays.moments(last for _, last in accounts),
        "arrears_accounts": arrays.plain(
            account.account_uuid for account, _ in accounts if account.current_balance < 0
        ),
        "quota_periods": rows_as_json(one._asdict() for one in facts.entries.seen_periods),
        "former_quotas": rows_as_json(
            {"account_uuid": account_uuid, **renewal._asdict()}
            for account_uuid, renewal in facts.entries.former_quotas
        ),
        "billed_ids": arrays.plain(stream_id for stream_id, _ in facts.billed_pending),
        "billed_froms": arrays.moments(from_at for _, from_at in facts.billed_pending),
        "pending": rows_as_json(_record_row(*one) for one in facts.pending),
        "held": rows_as_json(
            {**_record_row(stream_id, held.record), "held_reason": held.reason}
            for stream_id, held in facts.held
        ),
        "gaps": gap_rows(facts.gaps),
        "successions": rows_as_json(
            _succession_row(number, one) for number, one in enumerate(facts.successions, 1)
        ),
        "sources": rows_as_json(_source_row(one) for one in facts.sources),
        "debts": rows_as_json(asdict(one) for one in facts.debts),
    }


def _stream_columns(facts: Facts) -> dict[str, object]:
    streams = facts.streams
    checkpoints = [one.checkpoint for one in streams]
    before = [one.before_restart for one in checkpoints]
    surplus = [one.surplus for one in checkpoints]
    return {
        "stream_ids": arrays.plain(one.stream_id for one in streams),
        "stream_accounts": arrays.plain(one.account_uuid for one in streams),
        "seen_ats": arrays.moments(one.seen_at for one in checkpoints),
        "uplink_totals": arrays.plain(one.totals.uplink for one in checkpoints),
        "downlink_totals": arrays.plain(one.totals.downlink for one in checkpoints),
        "epochs": arrays.plain(one.reset_epoch for one in checkpoints),
        "absents": arrays.moments(one.absent_since for one in streams),
        "before_uplinks": arrays.plain(one and one.uplink for one in before),
        "before_downlinks": arrays.plain(one and one.downlink for one in before),
        "states": arrays.plain(one.state for one in checkpoints),
        "surplus_uplinks": arrays.plain(one and one.uplink for one in surplus),
        "surplus_downlinks": arrays.plain(one and one.downlink for one in surplus),
        "assigned_ids": arrays.plain(stream_id for stream_id, _ in facts.assigned),
        "assigned_accounts": arrays.plain(account for _, account in facts.assigned),
    }


def _record_row(stream_id: int, record: UsageRecord) -> dict[str, Any]:
    return {
        "stream_id": stream_id,
        "bucket_start": record.bucket_start,
        "from_at": record.from_at,
        "to_at": record.to_at,
        "reset_epoch": record.reset_epoch,
        "uplink_start": record.start.uplink,
        "uplink_end": record.end.uplink,
        "downlink_start": record.start.downlink,
        "downlink_end": record.end.downlink,
    }


def _source_row(source: SourceProgress) -> dict[str, Any]:
    row = asdict(source)
    row.pop("identity")
    identity = source.identity
    names = {"env": identity.env, "node_id": identity.node_id, "stored_node_id": identity.stored}
    return row | names


def _succession_row(number: int, stored: StoredSuccession) -> dict[str, Any]:
    succession = stored.succession
    sides = [("ended", one) for one in succession.ended]
    sides += [("continued", one) for one in succession.continued]
    return {
        "number": number,
        "source_id": stored.source_id,
        "stored_node_id": stored.stored_node_id,
        "at": succession.at,
        "kind": succession.kind,
        "account_uuid": stored.account_uuid,
        "uncertain_bytes": succession.uncertain_bytes,
        "streams": [
            {
                "stream_id": stored.stream_ids[one.name],
                "side": side,
                "uplink_total": one.totals.uplink,
                "downlink_total": one.totals.downlink,
            }
            for side, one in sides
        ],
    }


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return time_text(value)
    raise TypeError(f"{value!r} has no JSON form here")
