"""The shared checkpoint of an account is the sum of its streams on a node, whatever they do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.features.audit.job import audit
from billing_cli.jobs.collect import collect

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import User
    from tests.integration.jobs.world import World
    from tests.support.story import Story

READ_SUMS = """
SELECT stream.stored_node_id, stream.account_uuid::text, sum(uplink_total), sum(downlink_total),
       max(stream.seen_at), max(stream.reset_epoch)
  FROM billing.streams AS stream WHERE account_uuid IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
"""
READ_SHARED = """
SELECT node_id, account_uuid::text, last_uplink_total::numeric, last_downlink_total::numeric,
       last_seen_at, reset_epoch
  FROM public.traffic_stat_checkpoints ORDER BY 1, 2
"""


def test_a_stream_that_is_absent_goes_on_counting(world: World) -> None:
    """Its account has three on the node, one vanishes, another moves alone, and it returns."""
    user, other = world.add_users(2)
    node = world.add_node("jp-1", [user, other])
    more = [node.add_stream(user.uuid, tag) for tag in ("tcp", "ws")]
    hidden = node.streams[0]
    world.flow_until(4)
    node.hide_stream(hidden, world.at(5), world.at(8))
    world.flow_until(6)
    hidden.idle = more[1].idle = True
    world.flow_until(14)
    for minute in range(1, 16):
        world.run_unchecked(world.at(minute))
        sums = world.rows(READ_SUMS)
        assert len(sums) in {0, 2}
        assert minute < 3 or world.rows(READ_SHARED) == sums, minute
    absent = world.rows("SELECT count(*) FROM billing.streams WHERE absent_since IS NOT NULL")
    assert absent == [(0,)]


def test_an_account_all_of_whose_streams_vanish_keeps_their_sum(world: World) -> None:
    """The last thing that is said of it is what the counters were."""
    user, other = world.add_users(2)
    node = world.add_node("jp-1", [user, other])
    further = node.add_stream(user.uuid, "tcp")
    world.flow_until(4)
    for stream in (node.streams[0], further):
        node.hide_stream(stream, world.at(5), world.at(60))
    world.flow_until(9)
    for minute in range(1, 11):
        world.run_unchecked(world.at(minute))
    sums = world.rows(READ_SUMS)
    assert world.rows(READ_SHARED) == sums
    assert len({seen_at for *_, seen_at, _ in sums}) == 2


def test_an_account_that_appears_gets_the_sum_of_all_that_waited(world: World) -> None:
    """Of its two streams one has vanished meanwhile; that one never had a row of its own there."""
    known = world.add_users(1)
    node = world.add_node("jp-1", known)
    sample = world.fleet.new_uuid()
    node.add_stream(sample, "tcp")
    gone = node.add_stream(sample, "ws")
    world.flow_until(4)
    node.hide_stream(gone, world.at(5), world.at(60))
    world.flow_until(8)
    world.pending_allowed = True
    for minute in (2, 4, 6, 8):
        world.run_unchecked(world.at(minute))
    assert len(world.rows(READ_SHARED)) == 1
    world.fleet.add_user(sample)
    world.save_users()
    world.flow_until(12)
    for minute in (10, 12, 14):
        world.run_unchecked(world.at(minute))
    sums = world.rows(READ_SUMS)
    assert len(sums) == 2
    assert world.rows(READ_SHARED) == sums


def test_a_shared_checkpoint_that_somebody_took_away_is_there_again(world: World) -> None:
    """As soon as its account moves; the others stay as they are."""
    world.add_node("jp-1", world.add_users(3))
    world.flow_until(4)
    world.run(world.at(6))
    before = world.rows(READ_SHARED)
    world.connection.execute(
        "DELETE FROM public.traffic_stat_checkpoints WHERE account_uuid = %s", (before[1][1],)
    )
    world.flow_until(8)
    world.run(world.at(10))
    after = world.rows(READ_SHARED)
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert all(isinstance(row[4], datetime) and row[4] > before[0][4] for row in after)
    assert after == world.rows(READ_SUMS)


READ_STALE = "SELECT stored_node_id, is_stale FROM billing.stale_checkpoints"
FIRST_BYTES, HELD_BYTES = 5_000, 10**13


def collect_while_held(story: Story, user: User) -> None:
    """Collect while another session holds the account's row."""
    with psycopg.connect(story.database_url) as other:
        other.execute("SELECT FROM public.users WHERE uuid = %s FOR UPDATE", (user.uuid,))
        assert story.collect().status in {"ok", "partial"}


@pytest.mark.parametrize("moved", [0, HELD_BYTES], ids=["a baseline", "a held delta"])
def test_an_account_that_another_session_holds_gets_its_sum_from_the_next_run(
    story: Story, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits that would be charged; its streams do not move again."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 0.05)
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "x")
    node.flow(stream, FIRST_BYTES, 0)
    story.minute()
    if moved:
        story.collect()
        story.minute((stream, moved, 0))

    collect_while_held(story, user)
    assert story.rows(READ_STALE) == [(node.identity.stored, True)]
    assert audit(story.context()).findings == ()

    assert story.collect().status == "ok"
    assert story.rows(READ_STALE) == [(node.identity.stored, False)]
    shared = story.rows(READ_SHARED)
    assert shared == story.rows(READ_SUMS)
    assert shared[0][2] == FIRST_BYTES + moved
    assert audit(story.context()).findings == ()


def test_a_stale_checkpoint_is_written_though_its_node_was_replaced(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No source carries the node any more."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 0.05)
    user, node, other = story.add_user(), story.add_node("jp-1"), story.add_node("jp-2")
    other.add_stream(user.uuid, "x")
    node.flow(node.add_stream(user.uuid, "x"), FIRST_BYTES, 0)
    story.minute()
    first, second = story.context().sources
    replaced = replace(first, base_url=second.base_url, expected_node_id=second.expected_node_id)
    with psycopg.connect(story.database_url) as holder:
        holder.execute("SELECT FROM public.users WHERE uuid = %s FOR UPDATE", (user.uuid,))
        collect(replace(story.context(), sources=(first,)))
        story.minute()
        collect(replace(story.context(), sources=(replaced,)))
    former = (node.identity.stored, True)
    assert story.rows(READ_STALE) == [former, (other.identity.stored, True)]
    collect(replace(story.context(), sources=(replaced,)))
    assert {is_stale for _, is_stale in story.rows(READ_STALE)} == {False}
    shared = {node_id: uplink for node_id, _, uplink, *_ in story.rows(READ_SHARED)}
    assert shared == {node.identity.stored: FIRST_BYTES, other.identity.stored: 0}


@pytest.mark.parametrize("is_configured", [False, True], ids=["removed", "disabled"])
def test_a_stale_checkpoint_is_written_though_its_source_is_not_collected_any_more(
    story: Story, monkeypatch: pytest.MonkeyPatch, *, is_configured: bool
) -> None:
    """When no run has asked the source for a day; until then another host may."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 0.05)
    user, node, other = story.add_user(), story.add_node("jp-1"), story.add_node("jp-2")
    other.add_stream(story.add_user().uuid, "x")
    node.flow(node.add_stream(user.uuid, "x"), FIRST_BYTES, 0)
    seen_at = story.minute()
    first, second = story.context().sources
    with psycopg.connect(story.database_url) as holder:
        holder.execute("SELECT FROM public.users WHERE uuid = %s FOR UPDATE", (user.uuid,))
        collect(replace(story.context(), sources=(first,)))

    retired = (replace(first, enabled=False),) if is_configured else ()
    for later, is_stale in ((timedelta(hours=23), True), (timedelta(hours=25), False)):
        story.now = seen_at + later
        story.minute()
        collect(replace(story.context(), sources=(*retired, second)))
        assert story.rows(READ_STALE) == [(node.identity.stored, is_stale)]
    assert story.rows(READ_SHARED) == story.rows(READ_SUMS)
    shared = {node_id: (uplink, at) for node_id, _, uplink, _, at, _ in story.rows(READ_SHARED)}
    ((samples_at,),) = story.rows(
        "SELECT samples_at FROM billing.sources WHERE source_id = %s", first.source_id
    )
    assert shared[node.identity.stored] == (FIRST_BYTES, samples_at)


def test_a_stale_checkpoint_of_a_deleted_account_is_forgotten(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is nothing that it could refer to."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 0.05)
    user, node = story.add_user(), story.add_node("jp-1")
    node.flow(node.add_stream(user.uuid, "x"), FIRST_BYTES, 0)
    story.minute()
    collect_while_held(story, user)
    story.connection.execute("DELETE FROM public.users WHERE uuid = %s", (user.uuid,))
    assert story.collect().status == "ok"
    assert story.rows(READ_STALE) == [(node.identity.stored, False)]
    assert story.rows(READ_SHARED) == []
