from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, LiteralString

import pytest

from billing_cli.simulator.accounts import save_profile, save_users
from billing_cli.simulator.invariants import (
    Funds,
    compare_with_oracle,
    moved_back,
    read_books,
    read_watermarks,
    violations,
)
from billing_cli.simulator.oracle import Oracle
from tests.integration.simulator.planted import Planted, planted_books

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = timedelta(minutes=1)


@pytest.fixture
def planted(database_url: str) -> Iterator[Planted]:
    """Return two minutes of one account, rightly billed."""
    with planted_books(database_url) as books:
        yield books


def test_rightly_billed_minutes_break_no_invariant(planted: Planted) -> None:
    """What follows is damage to this database, so it must be without fault."""
    assert planted.found() == []
    assert compare_with_oracle(planted.connection, Oracle(planted.fleet)) == []


DAMAGE: list[tuple[LiteralString, str]] = [
    (
        """
        UPDATE public.traffic_minute_buckets SET uplink_bytes = uplink_bytes + 1,
        total_bytes = total_bytes + 1 WHERE uplink_bytes = 1
        """,
        "its records say",
    ),
    (
        "UPDATE public.traffic_minute_buckets SET total_bytes = 29 WHERE uplink_bytes = 10",
        "are not 29 in total",
    ),
    ("DELETE FROM public.traffic_minute_buckets WHERE uplink_bytes = 1", "missing bucket"),
    ("UPDATE public.traffic_minute_buckets SET rating_status = 'pending'", "is 'pending'"),
    ("DELETE FROM billing.usage_records WHERE uplink_start = 0", "not at 0 up / 0 down"),
    ("UPDATE billing.usage_records SET uplink_end = 9 WHERE uplink_end = 10", "not at 9 up"),
    ("UPDATE billing.usage_records SET from_at = from_at - interval '1 hour'", "begins before"),
    ("UPDATE billing.usage_records SET to_at = from_at - interval '1 s'", "ends before it begins"),
    ("UPDATE billing.usage_records SET reset_epoch = 1 WHERE uplink_start = 10", "of epoch 0"),
    ("UPDATE billing.streams SET uplink_total = uplink_total + 1", "checkpoint at 12 up"),
    ("DELETE FROM billing.streams", "no row"),
    ("UPDATE billing.charges SET rated_bytes = rated_bytes + 1", "another number was charged"),
    ("DELETE FROM billing.charges WHERE rated_bytes = 5", "without evidence"),
    ("DELETE FROM public.billing_ledger WHERE rated_bytes = 3", "missing from the ledger"),
    (
        """
        INSERT INTO public.billing_ledger SELECT gen_random_uuid(), account_uuid, bucket_start,
        bucket_end, entry_type, rated_bytes, amount_delta, balance_after, '', created_at
        FROM public.billing_ledger WHERE rated_bytes = 3
        """,
        "without evidence",
    ),
    (
        "UPDATE public.billing_ledger SET amount_delta = -0.005000001 WHERE rated_bytes = 5",
        "its evidence",
    ),
    ("UPDATE public.billing_ledger SET balance_after = 1", "its evidence"),
    ("UPDATE public.billing_ledger SET bucket_end = bucket_start", "its evidence"),
    (
        """
        WITH moved AS (UPDATE billing.charges SET line_code = 'grpc' RETURNING 1)
        UPDATE public.traffic_minute_buckets SET line_code = 'grpc'
        """,
        "is not the id of",
    ),
    (
        "UPDATE public.account_quota_states SET current_balance = current_balance + 0.000000001",
        "opening and ledger make",
    ),
    (
        "UPDATE public.account_quota_states SET remaining_included_quota = 1",
        "opening and ledger make",
    ),
    ("DELETE FROM public.account_quota_states", "has no quota state"),
    ("UPDATE public.account_quota_states SET arrears = true", "arrears True"),
    (
        "UPDATE billing.charges SET balance_before = 2 WHERE rated_bytes = 3",
        "is where no charge before it ended",
    ),
    (
        """
        UPDATE public.billing_ledger SET created_at = now() + bucket_start.shift
        FROM (VALUES (5, interval '2 s'), (3, interval '1 s')) AS bucket_start (rated, shift)
        WHERE rated_bytes = bucket_start.rated
        """,
        "created after a row of a later bucket",
    ),
    ("UPDATE public.billing_ledger SET created_at = now()", "at the same instant"),
    (
        "UPDATE public.traffic_stat_checkpoints SET last_uplink_total = 1",
        "streams sum to 11 up / 22 down",
    ),
    ("DELETE FROM public.traffic_stat_checkpoints", "streams sum to 11 up / 22 down"),
    (
        "UPDATE public.billing_source_sync_state SET last_completed_until = NULL",
        "sync state None",
    ),
    ("UPDATE billing.sources SET watermark = watermark + interval '1 s'", "sync state 2026"),
    (
        """
        INSERT INTO billing.pending_usage SELECT stream_id, to_at, 0, to_at + interval '1 s',
        11, 12, 22, 22 FROM billing.usage_records WHERE uplink_end = 11
        """,
        "evidence ends at 12 up",
    ),
    (
        """
        INSERT INTO billing.held_deltas (stream_id, bucket_start, from_at, reset_epoch, to_at,
        uplink_start, uplink_end, downlink_start, downlink_end, state)
        SELECT stream_id, bucket_start, to_at, 0, to_at, 11, 11, 22, 22, 'released'
        FROM billing.usage_records WHERE uplink_end = 11
        """,
        "a release without its record",
    ),
]


@pytest.mark.parametrize(("statement", "complaint"), DAMAGE)
def test_damage_is_found_and_named(
    planted: Planted, statement: LiteralString, complaint: str
) -> None:
    """One wrong byte, row or nano in any table is a violation whose text says where."""
    planted.damage(statement)
    found = planted.found()
    assert any(complaint in line for line in found), found
    assert all("\n" not in line for line in found)


def test_usage_in_the_wrong_minute_differs_from_the_truth(planted: Planted) -> None:
    """Totals that agree are not enough: the oracle knows every minute."""
    planted.damage(
        "UPDATE public.traffic_minute_buckets SET bucket_start = bucket_start + interval '1 hour'"
    )
    oracle = Oracle(planted.fleet)
    assert len(compare_with_oracle(planted.connection, oracle)) == 4
    assert compare_with_oracle(planted.connection, oracle, buckets=False) == []


def test_the_oracle_counts_up_to_the_watermark(planted: Planted) -> None:
    """A run that is behind is right as far as it got; a fixed end demands what is missing."""
    node = planted.fleet.nodes["jp-1"]
    node.flow(node.streams[0], 100, 0)
    later = node.snapshot(node.start + 3 * MINUTE).collected_at + MINUTE
    oracle = Oracle(planted.fleet)
    assert compare_with_oracle(planted.connection, oracle) == []
    missing = compare_with_oracle(planted.connection, oracle, later)
    assert missing[0].partition(":")[0] == f"account {planted.account}"
    other = planted.fleet.add_node("us-1")
    other.snapshot(planted.fleet.start)
    other.flow(other.add_stream(planted.account), 5, 5)
    other.snapshot(planted.fleet.start + MINUTE)
    assert compare_with_oracle(planted.connection, oracle) == []


def test_held_bytes_count_as_not_billed(planted: Planted) -> None:
    """What waits for an operator is missing from the buckets and yet no violation."""
    node = planted.fleet.nodes["jp-1"]
    node.flow(node.streams[0], 100, 0)
    node.snapshot(node.start + 3 * MINUTE)
    planted.connection.execute(
        "INSERT INTO billing.held_deltas (stream_id, bucket_start, from_at, reset_epoch, to_at,"
        " uplink_start, uplink_end, downlink_start, downlink_end)"
        " SELECT stream_id, bucket_start, to_at, 0, to_at, 11, 111, 22, 22"
        " FROM billing.usage_records WHERE uplink_end = 11"
    )
    planted.connection.execute("UPDATE billing.streams SET uplink_total = 111")
    planted.connection.execute("UPDATE public.traffic_stat_checkpoints SET last_uplink_total = 111")
    for table in ("billing.sources", "public.billing_source_sync_state"):
        column = "watermark" if table == "billing.sources" else "last_completed_until"
        planted.connection.execute(
            f"UPDATE {table} SET {column} = {column} + interval '1 minute'".encode()  # noqa: S608
        )
    assert planted.found() == []
    assert compare_with_oracle(planted.connection, Oracle(planted.fleet)) == []


def test_usage_that_waits_for_its_account_is_missing_unless_that_is_allowed(
    planted: Planted,
) -> None:
    """An account that has just appeared is billed when its source moves, and not before."""
    node = planted.fleet.nodes["jp-1"]
    newcomer = planted.fleet.add_user()
    planted.connection.execute(
        """
        WITH stream AS (
          INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid, origin,
                 first_seen_at, first_uplink_total, first_downlink_total, seen_at,
                 uplink_total, downlink_total)
          SELECT stored_node_id, '', %s, 'new', seen_at, 5, 6, seen_at, 5, 6 FROM billing.streams
          RETURNING stream_id, seen_at
        )
        INSERT INTO billing.pending_usage
        SELECT stream_id, seen_at - interval '1 minute', 0, seen_at, 0, 5, 0, 6 FROM stream
        """,
        [newcomer.proxy_uuid],
    )
    node.flow(node.add_stream(newcomer.proxy_uuid), 5, 6)
    node.snapshot(node.start + 2.5 * MINUTE)
    planted.connection.execute("UPDATE billing.sources SET watermark = watermark + interval '30 s'")
    oracle = Oracle(planted.fleet)
    save_users(planted.connection, [newcomer])
    assert len(compare_with_oracle(planted.connection, oracle)) == 2
    assert compare_with_oracle(planted.connection, oracle, pending_allowed=True) == []


def test_top_ups_are_told_apart_from_charges(planted: Planted) -> None:
    """Money that others paid in is no violation where the test says that they did."""
    planted.damage("UPDATE public.account_quota_states SET current_balance = current_balance + 5")
    top_ups = {planted.account: Funds(Decimal(5), 0)}
    assert violations(planted.connection, planted.before, top_ups) == []
    assert planted.found() != []


def test_an_account_without_a_state_opens_with_profile_or_default(planted: Planted) -> None:
    """The opening balance is the configured one; the quota is the profile's where it has one."""
    without = replace(planted.before, funds={}, default=Funds(Decimal(1), 99))
    assert violations(planted.connection, without) != []
    save_profile(planted.connection, planted.account, included_quota_bytes=25)
    assert violations(planted.connection, without) == []


def test_another_writers_rows_are_left_out(planted: Planted) -> None:
    """Buckets and ledger rows that stood there before need no evidence of ours."""
    planted.connection.execute(
        """
        INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid,
        uplink_bytes, downlink_bytes, total_bytes) VALUES ('2026-01-01', 'old', %s, 1, 1, 2)
        """,
        [planted.account],
    )
    planted.connection.execute(
        """
        INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end,
        entry_type, rated_bytes, amount_delta, balance_after, created_at) VALUES
        (%s, %s, '2026-01-01', '2026-01-01', 'traffic_charge', 2, -1, 0, '2026-01-01')
        """,
        [str(uuid.uuid4()), planted.account],
    )
    assert len(planted.found()) >= 3
    now = read_books(planted.connection)
    old_bucket = {key: moved for key, moved in now.buckets.items() if key.stored_node_id == "old"}
    old_ids = {
        str(row[0])
        for row in planted.connection.execute(
            "SELECT id FROM public.billing_ledger WHERE bucket_start = '2026-01-01'"
        )
    }
    before = replace(planted.before, buckets=old_bucket, ledger_ids=frozenset(old_ids))
    assert violations(planted.connection, before) == []


def test_a_watermark_that_moves_back_is_named(planted: Planted) -> None:
    """Watermarks are compared with what they were before."""
    earlier = read_watermarks(planted.connection)
    assert moved_back(planted.connection, earlier) == []
    planted.damage("UPDATE billing.sources SET watermark = watermark - interval '1 s'")
    assert len(moved_back(planted.connection, earlier)) == 1
