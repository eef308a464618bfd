"""A writer that takes one sample at a time, for comparison: ask, write, commit, next.

What it writes is less than what `collect` does: the shared tables alone, without any evidence.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import psycopg

from benchmarks.exporter import DOWNLINK_STEP, INBOUND_TAG, UPLINK_STEP
from benchmarks.measure import metered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import LiteralString

    from benchmarks.measure import Cost
    from benchmarks.world import World

NODE = "prod:naive"

STATEMENTS: tuple[LiteralString, ...] = (
    "SELECT uuid FROM public.users WHERE uuid = %(account)s",
    """
    SELECT last_uplink_total, last_downlink_total FROM public.traffic_stat_checkpoints
     WHERE node_id = %(node)s AND account_uuid = %(account)s
    """,
    """
    INSERT INTO public.traffic_stat_checkpoints AS shared
           (node_id, account_uuid, last_uplink_total, last_downlink_total, last_seen_at)
    VALUES (%(node)s, %(account)s, %(uplink)s, %(downlink)s, %(minute)s)
        ON CONFLICT (node_id, account_uuid) DO UPDATE
       SET last_uplink_total = excluded.last_uplink_total,
           last_downlink_total = excluded.last_downlink_total,
           last_seen_at = excluded.last_seen_at, updated_at = now()
    """,
    """
    INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid, line_code,
           uplink_bytes, downlink_bytes, total_bytes, rating_status)
    VALUES (%(minute)s, %(node)s, %(account)s, %(tag)s, %(uplink)s, %(downlink)s,
            %(uplink)s + %(downlink)s, 'rated')
        ON CONFLICT DO NOTHING
    """,
    """
    SELECT base_price_per_byte FROM public.account_billing_profiles
     WHERE account_uuid = %(account)s
    """,
    """
    SELECT remaining_included_quota, current_balance FROM public.account_quota_states
     WHERE account_uuid = %(account)s FOR UPDATE
    """,
    """
    INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,
           rated_bytes, amount_delta, balance_after)
    VALUES (%(ledger_id)s, %(account)s, %(minute)s, %(minute)s + interval '1 minute',
            'traffic_charge', %(uplink)s + %(downlink)s, -0.00001, 99999.99999)
        ON CONFLICT DO NOTHING
    """,
    """
    UPDATE public.account_quota_states
       SET current_balance = current_balance - 0.00001, last_rated_bucket_at = %(minute)s,
           effective_at = now(), updated_at = now()
     WHERE account_uuid = %(account)s
    """,
)


def write_naively(world: World, accounts: Sequence[str], minute: datetime) -> Cost:
    """Write a minute of the accounts one by one; return what it cost."""
    with metered(world) as meter, psycopg.connect(world.url) as connection:
        for account in accounts:
            values = {
                "account": account,
                "node": NODE,
                "tag": INBOUND_TAG,
                "minute": minute,
                "uplink": UPLINK_STEP,
                "downlink": DOWNLINK_STEP,
                "ledger_id": uuid.uuid4(),
            }
            for statement in STATEMENTS:
                connection.execute(statement, values)
            connection.commit()
    return meter.cost
