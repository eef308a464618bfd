"""How long an audit takes, and how much memory, where there are many records.

Run as `python benchmarks/audit.py [RECORDS]`, by default a million. The first audit finds a clean
database; before the second one, every single bucket is changed. Memory must not grow with either.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.model import DeltaPolicy
from billing_cli.jobs.audit import audit
from billing_cli.jobs.context import JobContext, Tariff
from billing_cli.jobs.migrate import migrate
from billing_cli.simulator.postgres import running_postgres
from billing_cli.store.connection import Database

if TYPE_CHECKING:
    from typing import LiteralString

ACCOUNTS = 2_500
DEFAULT_RECORDS = 1_000_000
LIMIT_MEGABYTES = 200.0

# Each account moves its own fixed number of bytes in each minute, at a nano each.
FILL: tuple[LiteralString, ...] = (
    """
    CREATE UNLOGGED TABLE public.load AS
    SELECT number, minute, account, '2026-01-01 00:00Z'::timestamptz + minute * interval '1 minute'
           AS bucket_start, number * 1000::bigint AS uplink, number * 2000::bigint AS downlink,
           md5(account::text || minute)::uuid AS ledger_id
      FROM (SELECT number, md5(number::text)::uuid AS account
              FROM generate_series(1, %(accounts)s) AS number) AS account,
           generate_series(1, %(minutes)s) AS minute
    """,
    """
    INSERT INTO public.users (uuid, proxy_uuid, username, password)
    SELECT account, account, number, '' FROM public.load WHERE minute = 1
    """,
    """
    INSERT INTO billing.sources
    VALUES ('jp-1', '', 'jp-1', 'jp-1', 'window', '2026-01-01 00:00Z',
            '2026-01-01 00:00Z'::timestamptz + %(minutes)s * interval '1 minute')
    """,
    """
    INSERT INTO public.billing_source_sync_state (source_id, last_completed_until)
    SELECT source_id, watermark FROM billing.sources
    """,
    """
    INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, account_uuid,
           first_sight, first_seen_at, first_uplink_total, first_downlink_total, seen_at,
           uplink_total, downlink_total)
    SELECT 'jp-1', '', account, account, 'baseline', '2026-01-01 00:00Z', 0, 0, bucket_start,
           minute * uplink, minute * downlink
      FROM public.load WHERE minute = %(minutes)s
    """,
    """
    INSERT INTO public.traffic_stat_checkpoints (node_id, account_uuid, last_uplink_total,
           last_downlink_total, last_seen_at)
    SELECT stored_node_id, account_uuid, uplink_total, downlink_total, seen_at FROM billing.streams
    """,
    """
    INSERT INTO billing.usage_records (stream_id, bucket_start, from_at, reset_epoch, to_at,
           uplink_start, uplink_end, downlink_start, downlink_end, account_uuid)
    SELECT stream_id, bucket_start, bucket_start - interval '1 minute', 0, bucket_start,
           (minute - 1) * uplink, minute * uplink, (minute - 1) * downlink, minute * downlink,
           account
      FROM public.load JOIN billing.streams ON account_uuid = account
    """,
    """
    INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, uplink_bytes,
           downlink_bytes, total_bytes, rating_status)
    SELECT bucket_start, 'jp-1', account, uplink, downlink, uplink + downlink, 'rated'
      FROM public.load
    """,
    """
    INSERT INTO billing.charges (ledger_id, entry_type, bucket_start, stored_node_id,
           account_uuid, region, line_code, included_bytes, rated_bytes, price_per_byte,
           multiplier, amount_delta, quota_before, balance_before, pricing_rule_version, run_id,
           created_at)
    SELECT ledger_id, 'traffic_charge', bucket_start, 'jp-1', account, '', '', 0,
           uplink + downlink, 0.000000001, 1, -0.000000001 * (uplink + downlink), 0,
           1000 - 0.000000001 * (uplink + downlink) * (minute - 1), '', account,
           bucket_start + number * interval '1 microsecond'
      FROM public.load
    """,
    """
    INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
           rated_bytes, amount_delta, balance_after, created_at)
    SELECT ledger_id, account_uuid, bucket_start, bucket_start + interval '1 minute', entry_type,
           rated_bytes, amount_delta, balance_before + amount_delta, created_at
      FROM billing.charges
    """,
    """
    INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,
           current_balance, arrears, effective_at)
    SELECT account, 0, 1000 - 0.000000001 * (uplink + downlink) * minute, false, now()
      FROM public.load WHERE minute = %(minutes)s
    """,
    "DROP TABLE public.load",
)


def main() -> int:
    """Print the figures; 1 where memory is beyond its limit or a finding is missing."""
    minutes = max(1, int(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_RECORDS) // ACCOUNTS)
    with tempfile.TemporaryDirectory(prefix="billing-") as directory:
        Path(directory).chmod(0o755)
        with running_postgres(Path(directory) / "server", durable=False) as server:
            migrate(server.url())
            with psycopg.connect(server.url(), autocommit=True) as connection:
                started = time.perf_counter()
                _fill(connection, minutes)
                print(f"{ACCOUNTS * minutes:,} records in {time.perf_counter() - started:.0f} s")
                clean = _audited(server.url(), "clean")
                connection.execute(
                    "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1"
                )
                damaged = _audited(server.url(), "all damaged")
    peak = _peak_megabytes()
    print(f"peak memory         {peak:8.0f} MB  limit {LIMIT_MEGABYTES:.0f} MB")
    is_right = clean == 0 and damaged == ACCOUNTS * minutes
    return 0 if is_right and peak <= LIMIT_MEGABYTES else 1


def _fill(connection: psycopg.Connection, minutes: int) -> None:
    connection.execute("SET session_replication_role = replica")
    for statement in FILL:
        # Sent with the values in it: statements that create tables take no parameters.
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(statement, {"accounts": ACCOUNTS, "minutes": minutes})
    connection.execute("VACUUM ANALYZE")


def _audited(database_url: str, what: str) -> int:
    """Audit the database, print the figures, and return how many violations there are."""
    context = JobContext(
        run_id="00000000-0000-0000-0000-000000000000",
        clock=lambda: datetime.now(UTC),
        database=Database(database_url),
        sources=(),
        tariff=Tariff(Decimal(0), 0, Decimal(0), "", "", None),
        deltas=DeltaPolicy(),
    )
    started = last = time.perf_counter()
    titles: list[str] = []

    def on_check(_number: int, _count: int, title: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if titles:
            print(f"  {now - last:8.1f} s  {titles[-1]}")
        titles.append(title)
        last = now

    report = audit(context, on_check=on_check)
    print(f"  {time.perf_counter() - last:8.1f} s  {titles[-1]}, sums")
    print(
        f"{what:19} {time.perf_counter() - started:8.1f} s   {report.violations:,} violations, "
        f"peak memory {_peak_megabytes():.0f} MB"
    )
    return report.violations


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
