"""Damage to a database that was rightly billed, and what an audit should call it."""

from __future__ import annotations

from typing import NamedTuple


class Damage(NamedTuple):
    """Statements, in which {names} stand for the rows to harm, and the violations they make."""

    statements: str
    kinds: frozenset[str]


def damage(statements: str, *kinds: str) -> Damage:
    """Return damage with the rows filled in."""
    return Damage(statements.format_map(ROWS), frozenset(kinds))


# A stream's early record, its last one, a charge that nothing else is about, and so on.
ROWS = {
    "record": """
 WHERE ctid = (SELECT ctid FROM billing.usage_records WHERE kind = 'delta'
                ORDER BY stream_id, from_at OFFSET 1 LIMIT 1)""",
    "last_record": """
 WHERE ctid = (SELECT ctid FROM billing.usage_records WHERE kind = 'delta' AND stream_id = 1
                ORDER BY from_at DESC LIMIT 1)""",
    "correction": """
 WHERE ctid = (SELECT ctid FROM billing.usage_records WHERE kind = 'correction'
                ORDER BY stream_id, from_at, bucket_start LIMIT 1)""",
    "bucket": """
 WHERE ctid = (SELECT ctid FROM public.traffic_minute_buckets
                ORDER BY account_uuid, bucket_start OFFSET 4 LIMIT 1)""",
    "charge": """
 WHERE ledger_id = (SELECT ledger_id FROM billing.charges
                     WHERE entry_type = 'traffic_charge' AND rated_bytes > 0 AND account_uuid
                       NOT IN (SELECT account_uuid FROM billing.charges WHERE adjusts IS NOT NULL)
                     ORDER BY account_uuid, created_at OFFSET 2 LIMIT 1)""",
    "entry": """
 WHERE id = (SELECT ledger_id FROM billing.charges
              WHERE entry_type = 'traffic_charge' AND rated_bytes > 0 AND account_uuid
                NOT IN (SELECT account_uuid FROM billing.charges WHERE adjusts IS NOT NULL)
              ORDER BY account_uuid, created_at OFFSET 2 LIMIT 1)""",
    "refund": """
 WHERE ledger_id = (SELECT ledger_id FROM billing.charges WHERE rated_bytes < 0
                     ORDER BY created_at LIMIT 1)""",
    "ledger_follows": """
UPDATE public.billing_ledger AS entry
   SET rated_bytes = charge.rated_bytes, amount_delta = charge.amount_delta,
       balance_after = charge.balance_before + charge.amount_delta
  FROM billing.charges AS charge WHERE charge.ledger_id = entry.id""",
    "owner": """
 WHERE account_uuid = (SELECT account_uuid FROM billing.streams WHERE stream_id = 1)""",
}

DAMAGES = {
    "a balance restored to what it was before the last charge": damage(
        """
UPDATE public.account_quota_states AS state SET current_balance = last.balance_before
  FROM (SELECT DISTINCT ON (account_uuid) account_uuid, balance_before
          FROM billing.charges ORDER BY account_uuid, created_at DESC, bucket_start DESC) AS last
 WHERE last.account_uuid = state.account_uuid""",
        "charge_lost",
    ),
    "a repair of nothing that was lost": damage(
        """
INSERT INTO billing.repairs (account_uuid, after_id, repair_id, ledger_ids, amount_delta,
       balance_before, balance_after, quota_before, quota_after, reason, run_id, at)
SELECT account_uuid, last.ledger_id, gen_random_uuid(), '{{}}', 100, current_balance::numeric,
       current_balance::numeric + 100, remaining_included_quota, remaining_included_quota, '',
       gen_random_uuid(), now()
  FROM public.account_quota_states
  JOIN (SELECT DISTINCT ON (account_uuid) account_uuid, ledger_id FROM billing.charges
         ORDER BY account_uuid, created_at DESC, bucket_start DESC) AS last USING (account_uuid);
UPDATE public.account_quota_states SET current_balance = current_balance + 100""",
        "repair_differs",
    ),
    "a bucket gone from a pruned month": damage(
        """
INSERT INTO billing.pruned (month, account_uuid, records, recorded_bytes, charges, included_bytes,
       rated_bytes, amount_delta, buckets, bucket_bytes, ledger_rows, ledger_amount)
SELECT '2025-01-01T00:00:00Z', account_uuid, 1, 9, 1, 9, 0, 0, 1, 9, 0, 0
  FROM billing.streams WHERE stream_id = 1""",
        "pruned_differs",
    ),
    "a record deleted": damage(
        "DELETE FROM billing.usage_records {record}",
        "chain_broken",
        "records_differ",
    ),
    "a stream's last record deleted": damage(
        "DELETE FROM billing.usage_records {last_record}",
        "checkpoint_differs",
        "records_differ",
    ),
    "a record's end changed": damage(
        "UPDATE billing.usage_records SET downlink_end = downlink_end + 1 {record}",
        "chain_broken",
        "records_differ",
    ),
    "a record moved to another minute": damage(
        """
UPDATE billing.usage_records SET bucket_start = bucket_start - interval '1 hour' {record}""",
        "records_differ",
    ),
    "a record given to another account": damage(
        """
UPDATE billing.usage_records SET account_uuid = gen_random_uuid() {record};
INSERT INTO public.users (uuid, proxy_uuid, username, password)
SELECT account_uuid, account_uuid, '', '' FROM billing.usage_records {record}""",
        "records_differ",
    ),
    "a record that ends after the next begins": damage(
        "UPDATE billing.usage_records SET to_at = to_at + interval '1 hour' {record}",
        "chain_overlaps",
    ),
    "a record that ends before it begins": damage(
        "UPDATE billing.usage_records SET to_at = from_at - interval '1 second' {last_record}",
        "chain_overlaps",
    ),
    "a record's epoch changed": damage(
        "UPDATE billing.usage_records SET reset_epoch = 0 {last_record}",
        "chain_broken",
        "chain_overlaps",
        "checkpoint_differs",
    ),
    "a stream deleted": damage(
        "DELETE FROM billing.streams WHERE stream_id = 2", "stream_missing", "records_differ"
    ),
    "a succession that hands nothing over": damage(
        """
INSERT INTO billing.successions (source_id, stored_node_id, at, kind, account_uuid, run_id)
SELECT 'jp-1', stored_node_id, seen_at, 'renamed', account_uuid, gen_random_uuid()
  FROM billing.streams WHERE stream_id = 1""",
        "succession_unbalanced",
    ),
    "a checkpoint moved": damage(
        "UPDATE billing.streams SET uplink_total = uplink_total + 1 WHERE stream_id = 1",
        "checkpoint_differs",
        "shared_checkpoint_differs",
    ),
    "a checkpoint put into another epoch": damage(
        "UPDATE billing.streams SET reset_epoch = 2 WHERE stream_id = 1", "checkpoint_differs"
    ),
    "a checkpoint's stamp moved back": damage(
        "UPDATE billing.streams SET seen_at = first_seen_at WHERE stream_id = 1",
        "checkpoint_differs",
    ),
    "a shared checkpoint moved": damage(
        "UPDATE public.traffic_stat_checkpoints SET last_uplink_total = 1 {owner}",
        "shared_checkpoint_differs",
    ),
    "a shared checkpoint deleted": damage(
        "DELETE FROM public.traffic_stat_checkpoints {owner}", "shared_checkpoint_differs"
    ),
    "a watermark moved": damage(
        "UPDATE billing.sources SET watermark = watermark + interval '1 minute'",
        "watermark_differs",
    ),
    "a shared watermark moved": damage(
        "UPDATE public.billing_source_sync_state SET last_completed_until = now()",
        "watermark_differs",
    ),
    "both watermarks moved back": damage(
        """
UPDATE billing.sources SET watermark = watermark - interval '9 minutes';
UPDATE public.billing_source_sync_state
   SET last_completed_until = last_completed_until - interval '9 minutes'""",
        "watermark_differs",
    ),
    "a bucket changed by one byte": damage(
        "UPDATE public.traffic_minute_buckets SET uplink_bytes = uplink_bytes + 1 {bucket}",
        "bucket_differs",
    ),
    "a bucket's total changed": damage(
        "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes - 1 {bucket}",
        "bucket_differs",
    ),
    "a bucket's directions exchanged": damage(
        """
UPDATE public.traffic_minute_buckets
   SET uplink_bytes = downlink_bytes, downlink_bytes = uplink_bytes {bucket}""",
        "bucket_differs",
    ),
    "a bucket deleted": damage(
        "DELETE FROM public.traffic_minute_buckets {bucket}", "bucket_missing"
    ),
    "a bucket moved to another region": damage(
        "UPDATE public.traffic_minute_buckets SET region = 'elsewhere' {bucket}", "region_differs"
    ),
    "a bucket doubled on another line": damage(
        """
INSERT INTO public.traffic_minute_buckets
       (bucket_start, node_id, account_uuid, line_code, uplink_bytes, downlink_bytes, total_bytes)
SELECT bucket_start, node_id, account_uuid, 'double', uplink_bytes, downlink_bytes, total_bytes
  FROM public.traffic_minute_buckets {bucket}""",
        "bucket_unproven",
    ),
    "a ledger row doubled": damage(
        """
INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
       rated_bytes, amount_delta, balance_after, created_at)
SELECT gen_random_uuid(), account_uuid, bucket_start, bucket_end, entry_type, rated_bytes,
       amount_delta, balance_after, created_at
  FROM public.billing_ledger {entry}""",
        "ledger_unproven",
    ),
    "a ledger row deleted": damage("DELETE FROM public.billing_ledger {entry}", "ledger_missing"),
    "a ledger amount changed": damage(
        "UPDATE public.billing_ledger SET amount_delta = amount_delta - 0.000000001 {entry}",
        "ledger_differs",
    ),
    "a ledger row given to another account": damage(
        """
UPDATE public.billing_ledger SET account_uuid = (
       SELECT max(uuid::text)::uuid FROM public.users WHERE uuid <> account_uuid) {entry}""",
        "ledger_differs",
    ),
    "a ledger row's rule version changed": damage(
        "UPDATE public.billing_ledger SET pricing_rule_version = 'v0' {entry}", "ledger_differs"
    ),
    "a ledger row's kind changed": damage(
        "UPDATE public.billing_ledger SET entry_type = 'gift' {entry}", "ledger_differs"
    ),
    "a balance in the ledger changed": damage(
        "UPDATE public.billing_ledger SET balance_after = balance_after + 0.000000001 {entry}",
        "balance_after_differs",
    ),
    "the evidence of a ledger row deleted": damage(
        "DELETE FROM billing.charges {charge}",
        "ledger_unproven",
        "charges_differ",
    ),
    "a charge at another price": damage(
        "UPDATE billing.charges SET price_per_byte = 2 * price_per_byte {charge}", "amount_wrong"
    ),
    "a charge at another multiplier": damage(
        "UPDATE billing.charges SET multiplier = 1.1 {charge}", "amount_wrong"
    ),
    "a charge split in another way": damage(
        """
UPDATE billing.charges
   SET included_bytes = included_bytes + 1, rated_bytes = rated_bytes - 1 {charge}""",
        "ledger_differs",
        "amount_wrong",
    ),
    "a charge split in another way, with all that follows": damage(
        """
UPDATE billing.charges
   SET included_bytes = included_bytes + 1, rated_bytes = rated_bytes - 1,
       amount_delta = amount_delta + price_per_byte {charge};
{ledger_follows}""",
        "split_wrong",
    ),
    "a refund changed, with all that follows": damage(
        "UPDATE billing.charges SET amount_delta = amount_delta + 1 {refund}; {ledger_follows}",
        "adjustments_wrong",
        # The next charge finds the balance from before the refund and its charge.
        "charge_lost",
    ),
    "a refund at another price": damage(
        "UPDATE billing.charges SET price_per_byte = 2 * price_per_byte {refund}",
        "adjustment_unfounded",
    ),
    "a refund of nothing that was charged": damage(
        "UPDATE billing.charges SET adjusts = gen_random_uuid() {refund}", "adjustment_unfounded"
    ),
    "a correction changed": damage(
        "UPDATE billing.usage_records SET uplink_start = uplink_start + 1 {correction}",
        "correction_broken",
        "records_differ",
    ),
    "a correction deleted": damage(
        "DELETE FROM billing.usage_records {correction}", "records_differ"
    ),
    "a release's record deleted": damage(
        "DELETE FROM billing.usage_records WHERE kind = 'released'",
        "release_unmatched",
        "records_differ",
    ),
    "a release taken back without its charge": damage(
        "UPDATE billing.held_deltas SET state = 'held'", "release_unmatched"
    ),
    "a held delta deleted": damage(
        "DELETE FROM billing.held_deltas", "release_unmatched", "chain_broken"
    ),
    "a quota state deleted": damage(
        "DELETE FROM public.account_quota_states {owner}", "quota_state_missing"
    ),
    "record and bucket damaged alike": damage(
        """
DELETE FROM billing.usage_records {record};
UPDATE public.traffic_minute_buckets
   SET uplink_bytes = uplink_bytes + 1, total_bytes = total_bytes + 1""",
        "chain_broken",
        "bucket_differs",
        "bytes_differ",
    ),
    "a seal deleted": damage(
        "DELETE FROM billing.seals WHERE job <> 'x'",
        "seal_missing",
    ),
    "a seal of other facts": damage(
        "UPDATE billing.seals SET records = records + 1",
        "seal_differs",
    ),
}
