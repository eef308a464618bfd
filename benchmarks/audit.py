"""`audit` of many records, beside merely reading the same rows; and of a database full of damage.

All of them, and then an hour more on top of those that the first audit found clean.

The records are written by SQL, each table by a connection of its own. Memory must grow neither
with the records nor with what is wrong with them.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg

from benchmarks.exporter import MINUTE, Fleet, minutes_ago
from benchmarks.measure import Cost, billing_cost
from benchmarks.sizes import short
from benchmarks.world import running_world

if TYPE_CHECKING:
    from datetime import datetime
    from typing import LiteralString

    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from benchmarks.world import World
    from billing_cli.simulator.postgres import EmbeddedPostgres

ACCOUNTS = 2_500
NODE = "prod:audit"

# In minutes.
HOUR = 60

# What a record is made of: each account moves its own number of bytes in each minute, at a nano
# each, and once more the same in the next.
LOAD: LiteralString = """
CREATE UNLOGGED TABLE public.load AS
SELECT number, account, stream_id, uplink, downlink, minute,
       %(zero)s + minute * interval '1 minute' AS bucket_start,
       md5(account::text || minute)::uuid AS ledger_id, md5('run' || minute)::uuid AS run_id
  FROM (SELECT number, md5(number::text)::uuid AS account, number AS stream_id,
               number * 1000::bigint AS uplink, number * 2000::bigint AS downlink
          FROM generate_series(1, %(accounts)s) AS number) AS account,
       generate_series(%(first)s, %(last)s) AS minute
 ORDER BY minute, number
"""

# What does not depend on how many records there are.
BEGIN: tuple[LiteralString, ...] = (
    """
    INSERT INTO public.users (uuid, proxy_uuid, username, password)
    SELECT account, account, number, '' FROM public.load WHERE minute = 1
    """,
    """
    INSERT INTO billing.sources
    VALUES ('audit', 'prod', 'audit', %(node)s, 'window', %(zero)s, %(end)s)
    """,
    """
    INSERT INTO public.billing_source_sync_state (source_id, last_completed_until)
    VALUES ('audit', %(end)s)
    """,
    """
    INSERT INTO billing.streams (stream_id, stored_node_id, inbound_tag, sample_uuid, account_uuid,
           origin, first_seen_at, first_uplink_total, first_downlink_total, seen_at,
           uplink_total, downlink_total)
           OVERRIDING SYSTEM VALUE
    SELECT stream_id, %(node)s, '', account, account, 'baseline', %(zero)s, 0, 0, bucket_start,
           minute * uplink, minute * downlink
      FROM public.load WHERE minute = %(last)s
    """,
    """
    INSERT INTO public.traffic_stat_checkpoints (node_id, account_uuid, last_uplink_total,
           last_downlink_total, last_seen_at)
    SELECT stored_node_id, account_uuid, uplink_total, downlink_total, seen_at FROM billing.streams
    """,
    """
    INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,
           current_balance, arrears, effective_at)
    SELECT account, 0, 1000 - 0.000000001 * (uplink + downlink) * minute, false, now()
      FROM public.load WHERE minute = %(last)s
    """,
)

# What of that moves on with the records.
GO_ON: tuple[LiteralString, ...] = (
    """
    UPDATE billing.sources SET watermark = %(end)s
    """,
    """
    UPDATE public.billing_source_sync_state SET last_completed_until = %(end)s
    """,
    """
    UPDATE billing.streams AS stream
       SET seen_at = bucket_start, uplink_total = minute * uplink,
           downlink_total = minute * downlink
      FROM public.load WHERE load.stream_id = stream.stream_id AND minute = %(last)s
    """,
    """
    UPDATE public.traffic_stat_checkpoints AS checkpoint
       SET last_seen_at = seen_at, last_uplink_total = uplink_total,
           last_downlink_total = downlink_total
      FROM billing.streams AS stream WHERE stream.account_uuid = checkpoint.account_uuid
    """,
    """
    UPDATE public.account_quota_states AS state
       SET current_balance = 1000 - 0.000000001 * (uplink + downlink) * minute
      FROM public.load WHERE load.account = state.account_uuid AND minute = %(last)s
    """,
)

# One table each, side by side.
RECORDS: tuple[LiteralString, ...] = (
    """
    INSERT INTO billing.usage_records (stream_id, bucket_start, from_at, reset_epoch, to_at,
           uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, run_id, step)
    SELECT stream_id, bucket_start, bucket_start - interval '1 minute', 0, bucket_start,
           (minute - 1) * uplink, minute * uplink, (minute - 1) * downlink, minute * downlink,
           account, run_id, 1
      FROM public.load
    """,
    """
    INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, uplink_bytes,
           downlink_bytes, total_bytes, rating_status)
    SELECT bucket_start, %(node)s, account, uplink, downlink, uplink + downlink, 'rated'
      FROM public.load
    """,
    """
    INSERT INTO billing.charges (ledger_id, entry_type, bucket_start, stored_node_id,
           account_uuid, region, line_code, included_bytes, rated_bytes, price_per_byte,
           multiplier, amount_delta, quota_before, balance_before, pricing_rule_version, run_id,
           step, ordinal, created_at)
    SELECT ledger_id, 'traffic_charge', bucket_start, %(node)s, account, '', '', 0,
           uplink + downlink, 0.000000001, 1, -0.000000001 * (uplink + downlink), 0,
           1000 - 0.000000001 * (uplink + downlink) * (minute - 1), '', run_id,
           1, number, bucket_start + number * interval '1 microsecond'
      FROM public.load
    """,
    """
    INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
           rated_bytes, amount_delta, balance_after, created_at)
    SELECT ledger_id, account, bucket_start, bucket_start + interval '1 minute', 'traffic_charge',
           uplink + downlink, -0.000000001 * (uplink + downlink),
           1000 - 0.000000001 * (uplink + downlink) * minute,
           bucket_start + number * interval '1 microsecond'
      FROM public.load
    """,
)

# One a minute, as `collect` writes them, but for the hashes, which an audit does not compute.
SEAL: LiteralString = """
INSERT INTO billing.seals (run_id, step, job, created_at, first_bucket, last_bucket, records,
                           records_sha256, charges, charges_sha256)
SELECT run_id, 1, 'collect', bucket_start, bucket_start, bucket_start, count(*), '', count(*), ''
  FROM billing.charges
 WHERE bucket_start > %(start)s AND bucket_start <= %(end)s
 GROUP BY run_id, bucket_start
"""

READ: tuple[LiteralString, ...] = (
    """
    SELECT sum(uplink_end - uplink_start) FROM billing.usage_records WHERE bucket_start > %(since)s
    """,
    "SELECT sum(total_bytes) FROM public.traffic_minute_buckets WHERE bucket_start > %(since)s",
    "SELECT sum(amount_delta) FROM billing.charges WHERE bucket_start > %(since)s",
    "SELECT sum(amount_delta) FROM public.billing_ledger WHERE bucket_start > %(since)s",
)


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure a clean database, an hour on top of it, and one in which every bucket was changed."""
    _measure(server, sizes, results)
    _measure_damaged(server, sizes.damaged_records, results)


def _measure(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    streams = sizes.audit_streams
    minutes = sizes.audit_records // streams
    fleet = Fleet(minutes_ago(minutes + HOUR + 5), streams=1)
    before = short(sizes.audit_records)
    with running_world(server, fleet) as world:
        fill(world, fleet.start, minutes, streams)
        what = f"`audit --full`, {before} records"
        _audit(world, results, fleet.start, sizes.audit_records, what)
        since = fleet.start + minutes * MINUTE
        fill(world, fleet.start, HOUR, streams, after=minutes)
        what = f"`audit`, an hour of {short(streams)} streams on {before} records"
        _audit(world, results, since, HOUR * streams, what)


def _measure_damaged(server: EmbeddedPostgres, records: int, results: Results) -> None:
    fleet = Fleet(minutes_ago(records // ACCOUNTS + 5), streams=1)
    with running_world(server, fleet) as world:
        fill(world, fleet.start, records // ACCOUNTS)
        with psycopg.connect(world.url) as connection:
            connection.execute(
                "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1"
            )
        what = f"`audit --full`, {short(records)} records, each wrong"
        _audit(world, results, fleet.start, records, what, violations=records)


def _audit(
    world: World, results: Results, since: datetime, records: int, what: str, violations: int = 0
) -> None:
    """Read the records after `since` once, and audit: all, or what is new since the last one."""
    is_full = "--full" in what
    started = time.perf_counter()
    with psycopg.connect(world.url) as connection:
        for statement in READ:
            connection.execute(statement, {"since": since})
    bare = time.perf_counter() - started
    result, cost = billing_cost(world, "audit", *(["--full"] if is_full else []))
    found = result["totals"]["violations"]
    assert found == violations, (found, result["violations"][:3])
    results.run(f"reading {short(records)} records once", Cost(bare), records)
    results.run(what, cost, records)
    limit = "" if violations else "audit full" if is_full else "audit"
    results.figure(what, cost.seconds / bare, "x reading these once", limit)
    results.figure(what, cost.peak_megabytes or 0.0, "MB of memory", "audit memory")


def fill(
    world: World,
    start: datetime,
    minutes: int,
    accounts: int = ACCOUNTS,
    *,
    after: int = 0,
    is_sealed: bool = True,
) -> None:
    """Charge each account in each minute after the start; seal that, or leave it to others.

    After a number of minutes that were charged before, go on from there.
    """
    values = {
        "accounts": accounts,
        "first": after + 1,
        "last": after + minutes,
        "node": NODE,
        "zero": start,
        "start": start + after * MINUTE,
        "end": start + (after + minutes) * MINUTE,
    }

    def write(*statements: LiteralString) -> None:
        with psycopg.connect(world.url) as connection, psycopg.ClientCursor(connection) as cursor:
            # Foreign keys are not looked at: the rows are known to fit.
            cursor.execute("SET session_replication_role = replica")
            for statement in statements:
                cursor.execute(statement, values)

    write(LOAD, *(GO_ON if after else BEGIN))
    with ThreadPoolExecutor() as executor:
        list(executor.map(write, RECORDS))
    write("DROP TABLE public.load", *([SEAL] if is_sealed else []))
    world.vacuum()
