"""An error after the write, up to COMMIT, is attributed to the source that caused it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.faults import accept_again, refuse
from tests.integration.jobs.test_isolation import all_move

if TYPE_CHECKING:
    from tests.integration.jobs.world import World

OF_NODE = "NEW.node_id = 'prod:jp-1.svc.plus'"
OF_SOURCE = "NEW.source_id = 'jp-1'"
# Each refuses what belongs to jp-1: the table, which rows, whether at COMMIT, the error's code.
LATE = {
    "a deferred constraint": ("traffic_minute_buckets", OF_NODE, True, "P0001"),
    "a deferred constraint of sync states": ("billing_source_sync_state", OF_SOURCE, True, "23514"),
    "a trigger on sync states": ("billing_source_sync_state", OF_SOURCE, False, "22003"),
    "an unknown error code": ("traffic_minute_buckets", OF_NODE, False, "ZB001"),
}


@pytest.mark.parametrize("fault", LATE.values(), ids=LATE)
def test_a_late_error_excludes_its_source_alone(
    world: World, fault: tuple[str, str, bool, str]
) -> None:
    """Nothing of it is stored, it says why, and it catches up when the cause is gone."""
    users = world.add_users(2)
    for source_id in ("de-1", "jp-1", "us-1"):
        world.add_node(source_id, users)
    world.flow_until(8)
    world.run(world.at(2))
    stood = world.rows("SELECT watermark FROM billing.sources WHERE source_id = 'jp-1'")
    table, when, is_deferred, sqlstate = fault
    refuse(world, table, when, is_deferred=is_deferred, sqlstate=sqlstate)

    result = world.run(world.at(5))

    statuses = {source.source_id: (source.status, source.error) for source in result.sources}
    assert statuses == {
        "de-1": ("ok", None),
        "jp-1": ("error", "database: simulated"),
        "us-1": ("ok", None),
    }
    assert result.status == "partial"
    assert world.rows("SELECT watermark FROM billing.sources WHERE source_id = 'jp-1'") == stood
    accept_again(world)
    world.run(world.at(10))
    world.assert_all_is_billed()


@pytest.mark.parametrize("is_deferred", [False, True], ids=["at once", "at COMMIT"])
@pytest.mark.parametrize("sqlstate", ["55000", "42501", "55P03"])
def test_whatever_code_a_trigger_raises_its_source_alone_is_excluded(
    world: World, sqlstate: str, *, is_deferred: bool
) -> None:
    """Codes that PostgreSQL has for other purposes: a state, a privilege, a lock."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(8)
    world.run(world.at(2))
    table = "traffic_minute_buckets"
    refuse(world, table, OF_NODE, is_deferred=is_deferred, sqlstate=sqlstate)

    result = world.run(world.at(5))

    assert {source.source_id: source.error for source in result.sources} == {
        "jp-1": "database: simulated, in public.refuse",
        "us-1": None,
    }
    accept_again(world)
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_late_errors_of_two_sources_are_found_among_nine(world: World) -> None:
    """The seven others commit."""
    users = world.add_users(2)
    for number in range(9):
        world.add_node(f"n-{number}", users)
    world.flow_until(6)
    world.run(world.at(3))
    refuse(world, "traffic_minute_buckets", "NEW.node_id ~ 'n-[27]'", is_deferred=True)
    result = world.run(world.at(5))
    assert [source.source_id for source in result.sources if source.status == "error"] == [
        "n-2",
        "n-7",
    ]
    assert {source.status for source in result.sources} == {"ok", "error"}
    accept_again(world)
    world.run(world.at(8))
    world.assert_all_is_billed()


@pytest.mark.parametrize("deferrable", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_of_sources_that_only_conflict_with_each_other_the_first_commits(
    world: World, deferrable: str
) -> None:
    """A constraint allows an account one node in a minute: each source is good by itself."""
    users = world.add_users(1)
    nodes = [world.add_node(source_id, users) for source_id in ("de-1", "jp-1", "us-1")]
    for node in nodes:
        node.poll_jitter_seconds = 0
    world.flow_until(0.5, rate=0)
    for minute in range(1, 9):
        for node in nodes:
            node.flow(node.streams[0], 1000, 100)
        world.flow_until(minute, rate=0)
    world.run(world.at(3))
    table = "ALTER TABLE public.traffic_minute_buckets "
    since = f"bucket_start >= '{world.at(4).isoformat()}'"
    world.connection.execute(
        f"{table} ADD CONSTRAINT one_node EXCLUDE USING btree"
        f" (account_uuid WITH =, bucket_start WITH =) WHERE ({since}) {deferrable}".encode()
    )
    result = world.run(world.at(6))
    assert {source.source_id: source.status for source in result.sources} == {
        "de-1": "ok",
        "jp-1": "error",
        "us-1": "error",
    }
    assert "one_node" in str(result.sources[-1].error)
    world.connection.execute(f"{table} DROP CONSTRAINT one_node".encode())
    assert world.run(world.at(10)).status == "ok"
    world.assert_all_is_billed()


def test_pending_usage_that_is_refused_excludes_its_source_alone(world: World) -> None:
    """The account of a stream appears, and its late minutes are refused at COMMIT."""
    users = world.add_users(2)
    node = world.add_node("jp-1", users[:1])
    world.add_node("us-1", users[1:])
    world.connection.execute("DELETE FROM public.users WHERE uuid = %s", (users[0].uuid,))
    world.flow_until(4)
    world.pending_allowed = True
    world.run_unchecked(world.at(5))
    refuse(world, "traffic_minute_buckets", OF_NODE, is_deferred=True)
    world.save_users()
    node.run(world.at(5), 60, 0)
    result = world.run_unchecked(world.at(6))
    assert {source.source_id: source.status for source in result.sources} == {
        "jp-1": "error",
        "us-1": "ok",
    }
    accept_again(world)
    world.pending_allowed = False
    world.run(world.at(8))
    world.assert_all_is_billed()


def test_where_every_source_is_refused_the_run_fails(world: World) -> None:
    """Its result and its row in the run history say so, and nothing else of it is stored."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(6)
    world.run(world.at(3))
    refuse(world, "billing_source_sync_state", "true", is_deferred=True)
    result = world.run(world.at(5))
    assert (result.status, result.error) == ("error", "every selected source failed")
    assert {source.error for source in result.sources} == {"database: simulated"}
    accept_again(world)
    world.run(world.at(8))
    world.assert_all_is_billed()


@pytest.mark.parametrize("is_deferred", [False, True], ids=["at once", "at COMMIT"])
def test_an_account_that_can_t_be_written_without_traffic_stops_nobody(
    world: World, *, is_deferred: bool
) -> None:
    """Its arrears flag is due to be cleared, a trigger on quota states refuses, no source moves."""
    users = world.add_users(2)
    world.balance, world.quota = world.price * 0, 0
    node = world.add_node("jp-1", users)
    all_move(world, node, 6)
    world.run(world.at(4))
    idle = users[0].uuid
    node.flow(world.stream(node, users[1]), 1000, 100)
    world.flow_until(8, rate=0)
    world.run(world.at(8))
    world.connection.execute("UPDATE public.account_quota_states SET current_balance = 9")
    when = f"NEW.account_uuid = '{idle}'"
    refuse(world, "account_quota_states", when, is_deferred=is_deferred)

    result = world.run_unchecked(world.at(10))

    assert result.status == "ok"
    assert result.written_minutes > 0
    rows = world.rows("SELECT account_uuid::text FROM public.account_quota_states WHERE arrears")
    assert (idle,) in rows
