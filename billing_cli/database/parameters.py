"""What a run writes as parameters of the statements in `database.write_path`.

Each function serves one statement or a few, and is called when the statement is sent: while the
server executes it, the parameters of the next one are made.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from billing_cli.core.canonical import time_text
from billing_cli.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.core.model import Gap, UsageRecord
    from billing_cli.database.facts import (
        Attempts,
        Facts,
        NewStream,
        SourceProgress,
        StoredSuccession,
    )

Parameters = dict[str, object]


def nothing(_: object) -> Parameters:
    """Return no parameters: for what is staged, or follows from what is stored."""
    return {}


def changed_streams(facts: Facts) -> Parameters:
    """Return one array for each column of the streams that change."""
    streams = facts.streams
    checkpoints = [stream.checkpoint for stream in streams]
    before = [checkpoint.before_restart for checkpoint in checkpoints]
    surplus = [checkpoint.surplus for checkpoint in checkpoints]
    return {
        "stream_ids": arrays.plain(stream.stream_id for stream in streams),
        "stream_accounts": arrays.sparse(stream.new_account for stream in streams),
        "seen_ats": arrays.moments(checkpoint.seen_at for checkpoint in checkpoints),
        "uplink_totals": arrays.plain(checkpoint.totals.uplink for checkpoint in checkpoints),
        "downlink_totals": arrays.plain(checkpoint.totals.downlink for checkpoint in checkpoints),
        "epochs": arrays.plain(checkpoint.reset_epoch for checkpoint in checkpoints),
        "absents": arrays.sparse(
            None if stream.absent_since is None else time_text(stream.absent_since)
            for stream in streams
        ),
        "before_uplinks": arrays.sparse(totals and totals.uplink for totals in before),
        "before_downlinks": arrays.sparse(totals and totals.downlink for totals in before),
        "states": arrays.plain(checkpoint.state for checkpoint in checkpoints),
        "surplus_uplinks": arrays.sparse(totals and totals.uplink for totals in surplus),
        "surplus_downlinks": arrays.sparse(totals and totals.downlink for totals in surplus),
    }


def assigned_streams(facts: Facts) -> Parameters:
    """Return streams with the account that they have now."""
    return {
        "assigned_ids": arrays.plain(stream_id for stream_id, _ in facts.assigned),
        "assigned_accounts": arrays.plain(account for _, account in facts.assigned),
    }


def shared_checkpoints(facts: Facts) -> Parameters:
    """Return nodes and accounts, with the last snapshot with samples."""
    return {
        "checkpoint_nodes": arrays.texts(node for node, _, _ in facts.checkpoints),
        "checkpoint_accounts": arrays.plain(account for _, account, _ in facts.checkpoints),
        "checkpoint_stamps": arrays.moments(at for _, _, at in facts.checkpoints),
    }


def stale_checkpoints(facts: Facts) -> Parameters:
    """Return nodes and accounts, and whether their shared checkpoint is stale."""
    keys = ("node", "account", "is_stale")
    return {"stale": rows_as_json(dict(zip(keys, row, strict=True)) for row in facts.stale)}


def corrected_buckets(facts: Facts) -> Parameters:
    """Return bytes to be added to buckets."""
    corrected = facts.entries.corrected
    return {
        **arrays.bucket_keys([bucket.key for bucket, _ in corrected]),
        "uplinks": arrays.plain(bucket.uplink_bytes for bucket, _ in corrected),
        "downlinks": arrays.plain(bucket.downlink_bytes for bucket, _ in corrected),
        "multipliers": arrays.plain(multiplier for _, multiplier in corrected),
    }


def quota_states(facts: Facts) -> Parameters:
    """Return what the charges leave of their accounts."""
    accounts, charges = facts.entries.accounts, facts.entries.charges
    last_buckets = {charge.key.account_uuid: charge.key.bucket_start for charge in charges}
    return {
        "quota_accounts": arrays.plain(account.account_uuid for account in accounts),
        "quotas": arrays.plain(account.remaining_included_quota for account in accounts),
        "balances": arrays.plain(account.current_balance for account in accounts),
        "last_buckets": arrays.moments(
            last_buckets.get(account.account_uuid) for account in accounts
        ),
    }


def arrears(facts: Facts) -> Parameters:
    """Return the accounts whose balance is below zero now."""
    accounts = facts.entries.accounts
    return {
        "arrears_accounts": arrays.plain(
            account.account_uuid for account in accounts if account.current_balance < 0
        )
    }


def quota_periods(facts: Facts) -> Parameters:
    """Return the quota periods that no run has seen before."""
    return {
        "quota_periods": rows_as_json(period._asdict() for period in facts.entries.seen_periods)
    }


def former_quotas(facts: Facts) -> Parameters:
    """Return what is left of the quotas of former periods."""
    return {
        "former_quotas": rows_as_json(
            {"account_uuid": account_uuid, **renewal._asdict()}
            for account_uuid, renewal in facts.entries.former_quotas
        )
    }


def billed_pending(facts: Facts) -> Parameters:
    """Return the keys of pending usage that is charged now."""
    return {
        "billed_ids": arrays.plain(stream_id for stream_id, _ in facts.billed_pending),
        "billed_froms": arrays.moments(from_at for _, from_at in facts.billed_pending),
    }


def pending(facts: Facts) -> Parameters:
    """Return usage that waits for an account."""
    return {"pending": rows_as_json(_record_row(*usage) for usage in facts.pending)}


def held(facts: Facts) -> Parameters:
    """Return deltas that wait for an operator."""
    return {
        "held": rows_as_json(
            {**_record_row(stream_id, delta.record), "held_reason": delta.reason}
            for stream_id, delta in facts.held
        )
    }


def gaps(facts: Facts) -> Parameters:
    """Return gaps that have an end."""
    return {"gaps": rows_as_json(_gap_row(*gap) for gap in facts.gaps)}


def successions(facts: Facts) -> Parameters:
    """Return counters that continue under other names."""
    return {
        "successions": rows_as_json(
            _succession_row(number, stored) for number, stored in enumerate(facts.successions, 1)
        )
    }


def seal(facts: Facts) -> Parameters:
    """Return the range of minutes of what is written, and the digests of its lines."""
    minutes = facts.records.minutes | facts.charges.minutes
    records, charges = facts.records.digest, facts.charges.digest
    return {
        "first_bucket": min(minutes, default=None),
        "last_bucket": max(minutes, default=None),
        "sealed_records": records.count,
        "records_sha256": records.sha256,
        "record_checks": records.checks,
        "sealed_charges": charges.count,
        "charges_sha256": charges.sha256,
        "charge_checks": charges.checks,
    }


def sources(facts: Facts) -> Parameters:
    """Return how far each source that moved was applied."""
    return {"sources": rows_as_json(_source_row(source) for source in facts.sources)}


def debts(facts: Facts) -> Parameters:
    """Return what accounts used beyond their credit."""
    return {"debts": rows_as_json(asdict(debt) for debt in facts.debts)}


def open_gaps(facts: Attempts) -> Parameters:
    """Return gaps that last."""
    return {
        "gaps": rows_as_json({**_gap_row(*gap), "to_at": None} for gap in facts.open_gaps),
    }


def attempts(facts: Attempts) -> Parameters:
    """Return the outcome of each source."""
    return {"attempts": rows_as_json(attempt._asdict() for attempt in facts.attempts)}


def new_streams(streams: Iterable[NewStream]) -> Parameters:
    """Return streams that have no row yet."""
    rows = (
        {
            "stored_node_id": stream.stored_node_id,
            "inbound_tag": stream.name.inbound_tag,
            "sample_uuid": stream.name.sample_uuid,
            "account_uuid": stream.account_uuid,
            "origin": stream.origin,
            "first_seen_at": stream.first.seen_at,
            "first_uplink_total": stream.first.totals.uplink,
            "first_downlink_total": stream.first.totals.downlink,
            "seen_at": stream.checkpoint.seen_at,
            "uplink_total": stream.checkpoint.totals.uplink,
            "downlink_total": stream.checkpoint.totals.downlink,
            "reset_epoch": stream.checkpoint.reset_epoch,
            "absent_since": stream.absent_since,
            "before_uplink": stream.checkpoint.before_restart
            and stream.checkpoint.before_restart.uplink,
            "before_downlink": stream.checkpoint.before_restart
            and stream.checkpoint.before_restart.downlink,
            "state": stream.checkpoint.state,
            "surplus_uplink": stream.checkpoint.surplus and stream.checkpoint.surplus.uplink,
            "surplus_downlink": stream.checkpoint.surplus and stream.checkpoint.surplus.downlink,
        }
        for stream in streams
    )
    return {"new_streams": rows_as_json(rows)}


def rows_as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows for `jsonb_to_recordset`."""
    return json.dumps(list(rows), default=_json_value)


def _gap_row(source_id: str, gap: Gap) -> dict[str, Any]:
    return {**asdict(gap), "source_id": source_id}


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
    sides = [("ended", stream) for stream in succession.ended]
    sides += [("continued", stream) for stream in succession.continued]
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
                "stream_id": stored.stream_ids[stream.name],
                "side": side,
                "uplink_total": stream.totals.uplink,
                "downlink_total": stream.totals.downlink,
            }
            for side, stream in sides
        ],
    }


def _json_value(value: object) -> str:
    if isinstance(value, datetime):
        return time_text(value)
    raise TypeError(f"{value!r} has no JSON form here")
