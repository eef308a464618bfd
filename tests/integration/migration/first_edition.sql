INSERT INTO billing.sources (source_id, env, node_id, stored_node_id, contract, first_snapshot_at,
  watermark, samples_bytes, samples_digest)
VALUES ('jp-1', %(env)s, %(node_id)s, %(node)s, 'window', %(baseline)s, %(watermark)s, 7, '\x00');

INSERT INTO public.billing_source_sync_state (source_id, last_completed_until)
VALUES ('jp-1', %(watermark)s);

INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, account_uuid, first_sight,
  first_seen_at, first_uplink_total, first_downlink_total, seen_at, uplink_total, downlink_total)
VALUES (%(node)s, %(tag)s, %(account)s, %(account)s, 'baseline', %(baseline)s, 100, 10,
        %(watermark)s, 200, 20),
       (%(node)s, %(tag)s, %(unknown)s, NULL, 'baseline', %(baseline)s, 100, 10,
        %(watermark)s, 200, 20);

INSERT INTO billing.usage_records (bucket_start, stream_id, from_at, to_at, reset_epoch,
  uplink_start, uplink_end, downlink_start, downlink_end, account_uuid)
SELECT %(watermark)s, stream_id, %(baseline)s, %(watermark)s, 0, 100, 200, 10, 20, account_uuid
  FROM billing.streams WHERE account_uuid IS NOT NULL;

INSERT INTO billing.pending_usage (stream_id, from_at, to_at, reset_epoch, uplink_start, uplink_end,
  downlink_start, downlink_end)
SELECT stream_id, %(baseline)s, %(watermark)s, 0, 100, 200, 10, 20
  FROM billing.streams WHERE account_uuid IS NULL;

INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, region, line_code,
  uplink_bytes, downlink_bytes, total_bytes, rating_status)
VALUES (%(watermark)s, %(node)s, %(account)s, '', %(tag)s, 100, 10, 110, 'rated');

INSERT INTO billing.gaps (source_id, kind, from_at, to_at)
VALUES ('jp-1', 'late', %(baseline)s, %(watermark)s);
