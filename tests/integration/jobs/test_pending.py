"""Usage that waits for its account is billed in its own minutes, once, in bounded space."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Totals, UsageRecord
from billing_cli.core.times import minute_of
from billing_cli.database.facts import Facts, Run
from billing_cli.database.write_path import ADVANCE, CHARGE, RECORD
from billing_cli.database.writing import create_staging, write_facts
from billing_cli.simulator.invariants import violations

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

READ_BUCKETS = """
SELECT bucket_start, total_bytes FROM traffic_minute_buckets WHERE account_uuid = %s ORDER BY 1
"""
READ_CHARGES = """
SELECT bucket_start, included_bytes + rated_bytes FROM billing.charges WHERE account_uuid = %s
 ORDER BY 1
"""
# As the first edition kept it: all of the minutes in one row.
MERGE = """
WITH waiting AS (
  SELECT stream_id, min(from_at) AS from_at, max(to_at) AS to_at, min(reset_epoch) AS reset_epoch,
         min(uplink_start) AS uplink_start, max(uplink_end) AS uplink_end,
         min(downlink_start) AS downlink_start, max(downlink_end) AS downlink_end
    FROM billing.pending_usage GROUP BY stream_id
), gone AS (DELETE FROM billing.pending_usage)
SELECT * FROM waiting
"""
ADD_MERGED = """
INSERT INTO billing.pending_usage (stream_id, from_at, to_at, reset_epoch, uplink_start,
  uplink_end, downlink_start, downlink_end) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""


def test_pending_usage_is_billed_in_its_own_minutes(world: World) -> None:
    """Each minute has its bucket, its charge and its record, as if the account had been known."""
    node = world.add_node("jp-1", world.add_users(1))
    unknown = world.fleet.new_uuid()
    stream = node.add_stream(unknown)
    node.poll_jitter_seconds = 0
    for minute in range(1, 5):
        node.flow(stream, 10 * minute, 0)
        world.flow_until(minute, rate=0)
    world.run(world.at(6))
    world.fleet.add_user(uuid=unknown)
    world.save_users()
    # There is no new snapshot: it is settled all the same.
    world.run_unchecked(world.at(6))

    assert [moved for _, moved in world.rows(READ_BUCKETS, unknown)] == [20, 30, 40]
    assert world.rows(READ_BUCKETS, unknown) == world.rows(READ_CHARGES, unknown)
    assert world.rows(
        "SELECT DISTINCT kind FROM billing.usage_records WHERE account_uuid = %s", unknown
    ) == [("pending",)]
    before = world.rows(READ_CHARGES, unknown)
    world.run_unchecked(world.at(6))
    assert world.rows(READ_CHARGES, unknown) == before
    world.assert_all_is_billed(apart_from=10)


def test_late_usage_adds_to_a_minute_that_has_its_bucket(world: World) -> None:
    """The account's own stream was charged there; its proxy uuid was not known yet."""
    (user,) = world.add_users(1)
    node = world.add_node("jp-1", [user])
    proxy = world.fleet.new_uuid()
    node.add_stream(proxy, node.streams[0].name.inbound_tag)
    world.unknown_buckets = True
    world.flow_until(5)
    world.run(world.at(7))
    charged = world.rows("SELECT count(*) FROM billing_ledger")
    world.connection.execute("UPDATE users SET proxy_uuid = %s WHERE uuid = %s", (proxy, user.uuid))
    world.run_unchecked(world.at(7))
    kinds = world.rows("SELECT DISTINCT entry_type FROM billing_ledger ORDER BY 1")
    assert kinds == [("traffic_adjustment",), ("traffic_charge",)]
    assert world.rows("SELECT count(*) FROM billing_ledger") > charged
    assert world.rows(READ_BUCKETS, user.uuid) == [
        (minute, total)
        for minute, total in world.rows(
            "SELECT bucket_start, sum(included_bytes + rated_bytes)::bigint FROM billing.charges"
            " WHERE account_uuid = %s GROUP BY 1 ORDER BY 1",
            user.uuid,
        )
    ]
    assert violations(world.connection, world.opening()) == []


def test_rows_of_the_first_edition_are_still_settled(world: World) -> None:
    """They hold many minutes, and are billed in the last of them."""
    node = world.add_node("jp-1", world.add_users(1))
    unknown = world.fleet.new_uuid()
    node.add_stream(unknown)
    world.flow_until(5)
    world.run(world.at(7))
    (merged,) = world.rows(MERGE)
    world.connection.execute(ADD_MERGED, merged)
    world.unknown_buckets = True
    world.fleet.add_user(uuid=unknown)
    world.save_users()
    world.run_unchecked(world.at(7))
    assert [minute for minute, _ in world.rows(READ_BUCKETS, unknown)] == [minute_of(merged[2])]
    world.assert_all_is_billed()


def test_after_a_day_pending_usage_is_kept_by_the_hour(world: World) -> None:
    """A uuid that never gets an account takes 24 rows a day."""
    node = world.add_node("jp-1", [])
    unknown = world.fleet.new_uuid()
    node.add_stream(unknown)
    world.flow_until(2)
    world.run(world.at(3))
    ((stream_id, epoch, uplink, downlink, seen_at),) = world.rows(
        "SELECT stream_id, reset_epoch, uplink_total, downlink_total, seen_at FROM billing.streams"
    )
    start = seen_at + timedelta(days=2)
    for minute in range(130):
        from_at, to_at = start + timedelta(minutes=minute), start + timedelta(minutes=minute + 1)
        record = UsageRecord(
            StreamName("", unknown),
            minute_of(to_at),
            epoch,
            from_at,
            to_at,
            Totals(uplink + minute, downlink),
            Totals(uplink + minute + 1, downlink),
        )
        write_pending(world, stream_id, record)
    rows = world.rows(
        "SELECT date_trunc('hour', to_at), sum(uplink_end - uplink_start), count(*)"
        "  FROM billing.pending_usage WHERE from_at >= %s GROUP BY 1",
        start,
    )
    assert len(rows) in {3, 4}
    assert all(count == 1 for _, _, count in rows)
    assert sum(moved for _, moved, _ in rows) == 130


def write_pending(world: World, stream_id: int, record: UsageRecord) -> None:
    """Write a record as the write path does."""
    run = Run("00000000-0000-0000-0000-000000000000", record.to_at, "v1", has_arrears_since=False)
    with world.connection.transaction():
        create_staging(world.connection)
        statements, facts = (*RECORD, *CHARGE, *ADVANCE), Facts(pending=[(stream_id, record)])
        counts = write_facts(world.connection, statements, (), facts, run)
    assert counts["pending usage"] + counts["extended pending usage"] == 1
