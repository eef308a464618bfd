"""The floor: the rows of a minute by bare SQL in one transaction, as fast as PostgreSQL takes them.

One binary COPY of a prepared buffer into a temporary table, sorted by account, then one INSERT ...
SELECT or UPDATE ... FROM for each table, with all its constraints. No question is asked, nothing
is compared, no row is locked but by being changed.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

import psycopg

from benchmarks.exporter import DOWNLINK_STEP, FIRST_TOTAL, INBOUND_TAG, MINUTE, UPLINK_STEP
from benchmarks.measure import metered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from typing import Any, LiteralString

    from benchmarks.measure import Cost
    from benchmarks.world import World

    Cursor = psycopg.ClientCursor[tuple[Any, ...]]
    Values = Mapping[str, object]

NODE = "prod:floor"

# As many rows as `collect` leaves where it has run once: one a stream, one a checkpoint.
PREPARE: tuple[LiteralString, ...] = (
    """
    INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, account_uuid,
           origin, first_seen_at, first_uplink_total, first_downlink_total, seen_at,
           uplink_total, downlink_total)
    SELECT %(node)s, %(tag)s, uuid, uuid, 'baseline', %(at)s, 0, 0, %(at)s, 0, 0
      FROM public.users ORDER BY uuid
    """,
    """
    INSERT INTO public.traffic_stat_checkpoints (node_id, account_uuid, last_uplink_total,
           last_downlink_total, last_seen_at)
    SELECT %(node)s, uuid, 0, 0, %(at)s FROM public.users ORDER BY uuid
    """,
    """
    INSERT INTO billing.sources (source_id, env, node_id, stored_node_id, contract,
           first_snapshot_at, watermark)
    VALUES ('floor', 'prod', 'floor', %(node)s, 'window', %(at)s, %(at)s)
    """,
    """
    INSERT INTO public.billing_source_sync_state (source_id, last_completed_until)
    VALUES ('floor', %(at)s)
    """,
)

STAGE = """
CREATE TEMPORARY TABLE given (account uuid, ledger_id uuid, stream_id bigint,
  uplink_start bigint, uplink_end bigint, downlink_start bigint, downlink_end bigint)
  ON COMMIT DROP
"""
COPY = "COPY given FROM STDIN WITH (FORMAT binary)"

# What other services see.
SHARED: tuple[LiteralString, ...] = (
    """
    INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, region,
           line_code, uplink_bytes, downlink_bytes, total_bytes, multiplier, rating_status,
           source_revision)
    SELECT %(minute)s, %(node)s, account, '', %(tag)s, uplink_end - uplink_start,
           downlink_end - downlink_start,
           uplink_end - uplink_start + downlink_end - downlink_start, 1, 'rated', %(version)s
      FROM given
    """,
    """
    INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
           rated_bytes, amount_delta, balance_after, pricing_rule_version, created_at)
    SELECT ledger_id, account, %(minute)s, %(minute)s + interval '1 minute', 'traffic_charge',
           uplink_end - uplink_start + downlink_end - downlink_start, -0.00001, 99999.99999,
           %(version)s, clock_timestamp()
      FROM given
    """,
    """
    UPDATE public.traffic_stat_checkpoints AS shared
       SET last_uplink_total = given.uplink_end, last_downlink_total = given.downlink_end,
           last_seen_at = %(at)s, updated_at = now()
      FROM given WHERE shared.node_id = %(node)s AND shared.account_uuid = given.account
    """,
    """
    UPDATE public.account_quota_states AS state
       SET current_balance = state.current_balance - 0.00001, arrears = false,
           throttle_state = 'normal', last_rated_bucket_at = %(minute)s,
           effective_at = now(), updated_at = now()
      FROM given WHERE state.account_uuid = given.account
    """,
)

# What `collect` keeps beside them: checkpoints of streams, evidence, progress and run history.
OWN: tuple[LiteralString, ...] = (
    """
    UPDATE billing.streams AS stream
       SET seen_at = %(at)s, uplink_total = given.uplink_end,
           downlink_total = given.downlink_end
      FROM given WHERE stream.stream_id = given.stream_id
    """,
    """
    INSERT INTO billing.usage_records (stream_id, bucket_start, from_at, to_at, reset_epoch,
           uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, kind)
    SELECT stream_id, %(minute)s, %(at)s - interval '1 minute', %(at)s, 0, uplink_start,
           uplink_end, downlink_start, downlink_end, account, 'delta'
      FROM given
    """,
    """
    INSERT INTO billing.charges (ledger_id, entry_type, bucket_start, stored_node_id,
           account_uuid, region, line_code, included_bytes, rated_bytes, price_per_byte,
           multiplier, amount_delta, quota_before, balance_before, pricing_rule_version, run_id)
    SELECT ledger_id, 'traffic_charge', %(minute)s, %(node)s, account, '', %(tag)s, 0,
           uplink_end - uplink_start + downlink_end - downlink_start, 0.000000001, 1,
           -0.000010000, 0, 100000.000000000, %(version)s, %(run_id)s
      FROM given
    """,
    "UPDATE billing.sources SET watermark = %(at)s, updated_at = now() WHERE source_id = 'floor'",
    """
    UPDATE public.billing_source_sync_state
       SET last_completed_until = %(at)s, last_attempted_at = now(), last_succeeded_at = now(),
           updated_at = now()
     WHERE source_id = 'floor'
    """,
    """
    INSERT INTO billing.runs (run_id, job, status, started_at, finished_at, host, version, result)
    VALUES (%(run_id)s, 'collect', 'ok', now(), now(), 'floor', '', '{}')
    """,
    "UPDATE billing.totals SET runs = runs + 1, last_started_at = now() WHERE job = 'collect'",
)

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_ROW = struct.Struct("!h i16s i16s iq iq iq iq iq")


class Floor:
    """The floor in a world that `collect` has charged before, so that every account has a quota."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.moves = 0
        with psycopg.connect(world.url) as connection:
            for statement in PREPARE:
                connection.execute(
                    statement, {"node": NODE, "tag": INBOUND_TAG, "at": world.fleet.stamp(0)}
                )
            self.streams = [
                (account.bytes, stream_id)
                for account, stream_id in connection.execute(
                    "SELECT account_uuid, stream_id FROM billing.streams"
                    " WHERE stored_node_id = %s ORDER BY account_uuid",
                    [NODE],
                )
            ]

    def write(self, minute: datetime, *statements: LiteralString) -> Cost:
        """Write a minute's rows by some of the statements above; return what it cost."""
        rows = self._rows()
        with metered(self.world) as meter:
            self._transaction(minute, rows, statements, lambda cursor, *one: cursor.execute(*one))
        return meter.cost

    def explain(self, minute: datetime, *statements: LiteralString) -> list[str]:
        """Write a minute's rows; return what PostgreSQL says about each statement."""
        texts = []

        def explained(cursor: Cursor, statement: LiteralString, values: Values) -> None:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, WAL) {statement}", values)
            texts.append("\n".join(row[0] for row in cursor))

        self._transaction(minute, self._rows(), statements, explained)
        return texts

    def _transaction(
        self,
        minute: datetime,
        rows: bytes,
        statements: Sequence[LiteralString],
        execute: Callable[[Cursor, LiteralString, Values], object],
    ) -> None:
        values = {
            "node": NODE,
            "tag": INBOUND_TAG,
            "minute": minute,
            "at": minute + MINUTE / 2,
            "version": "billing-service-v1",
            "run_id": uuid.uuid4(),
        }
        with psycopg.connect(self.world.url) as connection:
            # Values go into the text: the plans then know them.
            with psycopg.ClientCursor(connection) as cursor:
                cursor.execute(STAGE)
                with cursor.copy(COPY) as copy:
                    copy.write(rows)
                for statement in statements:
                    execute(cursor, statement, values)
            connection.commit()

    def _rows(self) -> bytes:
        up, down = (
            (FIRST_TOTAL + self.moves * step, FIRST_TOTAL + (self.moves + 1) * step)
            for step in (UPLINK_STEP, DOWNLINK_STEP)
        )
        self.moves += 1
        figures = (8, up[0], 8, up[1], 8, down[0], 8, down[1])
        rows = [
            _ROW.pack(7, 16, account, 16, uuid.uuid4().bytes, 8, stream_id, *figures)
            for account, stream_id in self.streams
        ]
        return b"".join([_SIGNATURE, *rows, _END])
