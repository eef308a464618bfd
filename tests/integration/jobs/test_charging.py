"""Evidence that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

FORGE_A_RECORD = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch, uplink_start, uplink_end,
        downlink_start, downlink_end, account_uuid, kind)
SELECT stream_id, date_trunc('minute', seen_at) + interval '1 minute', seen_at,
       seen_at + interval '1 minute', reset_epoch, uplink_total, uplink_total + 1,
       downlink_total, downlink_total + 1, account_uuid, 'delta'
  FROM billing.streams WHERE stored_node_id LIKE '%%jp-1%%'
RETURNING stream_id
"""


def test_evidence_that_is_there_already_is_loud(world: World) -> None:
    """A forged record under the key of the next one: its source fails, and the other goes on."""
    users = world.add_users(2)
    world.add_node("jp-1", users[:1])
    world.add_node("us-1", users[1:])
    world.flow_until(3)
    world.run(world.at(2))
    before = world.tables()
    assert len(world.rows(FORGE_A_RECORD)) == 1
    done = world.run_unchecked(world.at(4))
    jp, us = sorted(done.sources, key=lambda one: one.source_id)
    assert (jp.status, us.status, done.status) == ("error", "ok", "partial")
    assert "on record already" in (jp.error or "")
    after = world.tables()
    account = users[0].uuid
    for table in ("public.billing_ledger", "public.account_quota_states", "billing.streams"):
        kept = [row for row in before[table] if account in map(str, row)]
        assert kept == [row for row in after[table] if account in map(str, row)]
