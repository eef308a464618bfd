"""A faulty row, a locked row or refused data affects its account or its source, and no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator import read_service
from billing_cli.simulator.traffic import Node
from tests.integration.database.stage import wait_until_blocked
from tests.integration.jobs.world import only_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.jobs.world import World

SPOILED = {
    "a balance of NULL": "ALTER TABLE {0} ALTER current_balance DROP NOT NULL;"
    " UPDATE {0} SET current_balance = NULL WHERE account_uuid = '{1}'",
    "a quota of NULL": "ALTER TABLE {0} ALTER remaining_included_quota DROP NOT NULL;"
    " UPDATE {0} SET remaining_included_quota = NULL WHERE account_uuid = '{1}'",
    "a balance of NaN": "UPDATE {0} SET current_balance = 'NaN' WHERE account_uuid = '{1}'",
    "an infinite balance": "UPDATE {0} SET current_balance = '-Infinity'"
    " WHERE account_uuid = '{1}'",
}
PROFILE = """
INSERT INTO public.account_billing_profiles
       (account_uuid, package_name, included_quota_bytes, base_price_per_byte, region_multiplier,
        line_multiplier, peak_multiplier, offpeak_multiplier, pricing_rule_version)
VALUES (%s, 'p', 0, %s::float8, 1, 1, 1, 1, 'v1')
"""
REFUSE_NODE = """
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.node_id LIKE '%jp-1%' THEN
    {0}
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON public.traffic_minute_buckets
  FOR EACH ROW EXECUTE FUNCTION public.refuse()
"""
FAULTS = {
    "cardinality": "PERFORM (SELECT * FROM (VALUES (1), (2)) AS two);",
    "raised": "RAISE EXCEPTION 'not this node';",
    "out of range": "NEW.uplink_bytes := 9223372036854775807 + NEW.total_bytes;",
    "constraint": "NEW.account_uuid := gen_random_uuid();",
}


@pytest.mark.parametrize("statement", SPOILED.values(), ids=SPOILED)
def test_a_quota_state_without_figures_affects_its_account_alone(
    world: World, statement: str
) -> None:
    """Its usage stays pending, in its own minutes, until the row is right again."""
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 8)
    world.run(world.at(4))
    spoiled = users[0].uuid
    before = world.rows("SELECT * FROM account_quota_states WHERE account_uuid = %s", spoiled)
    world.connection.execute(statement.format("account_quota_states", spoiled).encode())

    result = world.run_unchecked(world.at(6))

    assert result.status == "partial"
    assert spoiled in only_source(result).notes[0]
    assert pending_accounts(world) == {spoiled}
    assert billed_accounts(world, world.at(4)) == {user.uuid for user in users[1:]}

    restore(world, before[0])
    world.run_unchecked(world.at(10))
    assert pending_accounts(world) == set()
    world.assert_all_is_billed()


REFUSE_ACCOUNT = {
    "constraint": "ALTER TABLE account_quota_states ADD CONSTRAINT refuse"
    " CHECK (account_uuid <> '{0}' OR remaining_included_quota >= {1}) NOT VALID",
    "trigger": "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.account_uuid = '{0}' THEN RAISE EXCEPTION 'closed' USING ERRCODE = '55000'; END IF;"
    " RETURN NEW; END $$; CREATE TRIGGER refuse BEFORE INSERT ON public.billing_ledger"
    " FOR EACH ROW EXECUTE FUNCTION public.refuse()",
}
ACCEPT_ACCOUNT = """
ALTER TABLE account_quota_states DROP CONSTRAINT IF EXISTS refuse;
DROP FUNCTION IF EXISTS public.refuse() CASCADE
"""


@pytest.mark.parametrize("statement", REFUSE_ACCOUNT.values(), ids=REFUSE_ACCOUNT)
def test_an_account_that_is_refused_blocks_none_of_its_nodes(world: World, statement: str) -> None:
    """Its usage stays pending on each of them; it is charged in its own minutes afterwards."""
    users = world.add_users(5)
    nodes = world.add_node("jp-1", users), world.add_node("us-1", [users[0], *world.add_users(3)])
    all_move(world, nodes, 12)
    world.run(world.at(4))
    refused = users[0].uuid
    ((quota,),) = world.rows(
        "SELECT remaining_included_quota FROM account_quota_states WHERE account_uuid = %s", refused
    )
    world.connection.execute(statement.format(refused, quota).encode())

    for minute in (6, 8):
        result = world.run_unchecked(world.at(minute))
        assert [source.status for source in result.sources] == ["partial", "partial"]
        for source in result.sources:
            assert any(refused in note and "can't be charged" in note for note in source.notes)
        assert pending_accounts(world) == {refused}
        assert len(billed_accounts(world, world.at(minute - 2))) == 7

    world.connection.execute(ACCEPT_ACCOUNT)
    world.run_unchecked(world.at(14))
    assert pending_accounts(world) == set()
    world.assert_all_is_billed()


def test_a_node_that_only_a_refused_account_uses_moves_on(world: World) -> None:
    """What it used waits; once the others are idle, it is the only one with usage."""
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 6)
    world.run(world.at(4))
    world.connection.execute(REFUSE_ACCOUNT["trigger"].format(users[0].uuid, 0).encode())
    world.run_unchecked(world.at(7))
    world.flow_until(12, rate=0)

    source = only_source(world.run_unchecked(world.at(12)))

    assert source.status == "partial"
    assert source.last_completed_until == world.at(10)
    world.connection.execute(ACCEPT_ACCOUNT)
    world.run_unchecked(world.at(14))
    world.assert_all_is_billed()


def test_an_account_whose_checkpoint_is_refused_blocks_none_of_its_nodes(world: World) -> None:
    """The shared checkpoint is written once its usage is charged."""
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 12)
    world.run(world.at(4))
    trigger = REFUSE_ACCOUNT["trigger"].replace("BEFORE INSERT", "BEFORE INSERT OR UPDATE")
    trigger = trigger.replace("billing_ledger", "traffic_stat_checkpoints")
    world.connection.execute(trigger.format(users[0].uuid, 0).encode())

    for minute in (6, 8):
        assert only_source(world.run_unchecked(world.at(minute))).status == "partial"
        assert len(billed_accounts(world, world.at(minute - 2))) == 2

    world.connection.execute(ACCEPT_ACCOUNT)
    world.run_unchecked(world.at(14))
    world.assert_all_is_billed()


def test_a_conflict_of_facts_never_leaves_usage_waiting(world: World) -> None:
    """What waits is charged in addition, so that a minute of a restored part would be twice."""
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 10)
    world.run(world.at(4))
    streams = world.rows(
        "SELECT uplink_total, downlink_total, seen_at, stream_id FROM billing.streams"
    )
    ((watermark,),) = world.rows("SELECT watermark FROM billing.sources")
    world.run(world.at(5))
    for stream in streams:
        world.connection.execute(
            "UPDATE billing.streams SET uplink_total = %s, downlink_total = %s, seen_at = %s"
            " WHERE stream_id = %s",
            stream,
        )
    world.connection.execute(
        "UPDATE billing.sources SET watermark = %(at)s::timestamptz + interval '20 seconds',"
        " samples_at = %(at)s::timestamptz + interval '20 seconds'",
        {"at": watermark},
    )
    world.connection.execute(
        "UPDATE billing.streams SET uplink_total = uplink_total - 300 WHERE account_uuid = %s",
        (users[0].uuid,),
    )

    for minute in (6, 7, 12):
        assert only_source(world.run_unchecked(world.at(minute))).status == "error"
    assert pending_accounts(world) == set()


@pytest.mark.parametrize("start", ["infinity", "-infinity", "0044-03-15 BC"])
def test_a_period_that_begins_at_no_time_affects_its_account_alone(
    world: World, start: str
) -> None:
    """The columns came after the grants to the role of the jobs."""
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 8)
    read_service.add_period_columns(world.connection)
    world.run(world.at(4))
    set_start = "UPDATE account_quota_states SET period_start = %s WHERE account_uuid = %s"
    world.connection.execute(set_start, (start, users[0].uuid))

    result = world.run_unchecked(world.at(6))

    assert result.status == "partial"
    assert "a quota period without a begin" in only_source(result).notes[0]
    assert pending_accounts(world) == {users[0].uuid}

    world.connection.execute(set_start, (None, users[0].uuid))
    world.run_unchecked(world.at(10))
    world.assert_all_is_billed()


@pytest.mark.parametrize(
    ("kind", "start"),
    [("date", "2026-04-01"), ("timestamp", "2026-04-01"), ("timestamptz", "0001-01-01Z")],
)
def test_a_period_may_begin_at_a_date_or_without_a_zone_or_at_zero(
    world: World, kind: str, start: str
) -> None:
    """The first two are of UTC; the year 1 is the zero time of services in Go."""
    all_move(world, world.add_node("jp-1", world.add_users(2)), 8)
    world.run(world.at(4))
    add = f"ALTER TABLE account_quota_states ADD period_start {kind}"
    world.connection.execute(add.encode())
    world.connection.execute("UPDATE account_quota_states SET period_start = %s", (start,))
    assert world.run_unchecked(world.at(10)).status == "ok"
    assert world.run_unchecked(world.at(10), reconcile).status == "ok"
    other = "SELECT count(*) FROM billing.quota_periods WHERE period_start <> %s::timestamptz"
    assert world.rows(other, start) == [(0,)]
    assert pending_accounts(world) == set()


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01Z"])
def test_moments_of_the_sync_state_that_are_none_stop_no_source(world: World, moment: str) -> None:
    """Neither their own, nor another one."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(6)
    world.connection.execute(
        "INSERT INTO billing_source_sync_state (source_id, last_completed_until,"
        " last_attempted_at, last_succeeded_at) VALUES ('us-1', %s, %s, %s)",
        (moment,) * 3,
    )
    assert world.run(world.at(3)).status == "ok"
    world.connection.execute(
        "UPDATE billing_source_sync_state SET last_completed_until = %s, last_attempted_at = %s",
        (moment,) * 2,
    )
    assert world.run(world.at(8)).status == "ok"
    world.assert_all_is_billed()


def test_a_profile_with_an_infinite_price_affects_its_account_alone(world: World) -> None:
    """It is not charged at another price than the one that was meant."""
    users = world.add_users(2)
    all_move(world, world.add_node("jp-1", users), 6)
    world.connection.execute(PROFILE, (users[0].uuid, "Infinity"))
    result = world.run_unchecked(world.at(5))
    assert result.status == "partial"
    assert pending_accounts(world) == {users[0].uuid}
    world.connection.execute("DELETE FROM account_billing_profiles")
    world.run_unchecked(world.at(8))
    world.assert_all_is_billed()


@pytest.mark.parametrize("table", ["account_quota_states", "users"])
def test_a_row_that_another_session_holds_delays_its_account_alone(
    world: World, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its usage is charged by the next run, in its own minutes; nothing is fetched twice."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 0.05)
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 8)
    world.run(world.at(4))
    key = "uuid" if table == "users" else "account_uuid"
    with psycopg.connect(world.connection.info.dsn) as other:
        query = f"SELECT FROM public.{table} WHERE {key} = %s FOR UPDATE"
        other.execute(query.encode(), (users[0].uuid,))
        requests = world.running["jp-1"].requests
        requests.clear()
        result = world.run_unchecked(world.at(6))
        assert len(set(requests)) == len(requests) > 0
    assert result.status == "partial"
    assert any("locked by another session" in note for note in only_source(result).notes)
    assert pending_accounts(world) == {users[0].uuid}
    assert world.run(world.at(6)).status == "ok"
    assert pending_accounts(world) == set()
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_a_quota_state_that_another_session_is_adding_delays_new_accounts_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a dry run does: it is no row yet that could be skipped, and the insert waits for it."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 0.05)
    users = world.add_users(3)
    all_move(world, world.add_node("jp-1", users), 8)
    world.connection.execute("DELETE FROM public.users WHERE uuid = %s", (users[0].uuid,))
    world.run_unchecked(world.at(4))
    world.save_users()
    with psycopg.connect(world.connection.info.dsn) as other:
        other.execute(
            "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
            " current_balance, arrears, throttle_state, suspend_state, effective_at, updated_at)"
            " VALUES (%s, 0, 0, false, 'normal', 'active', now(), now())",
            (users[0].uuid,),
        )
        result = world.run_unchecked(world.at(6))
        other.rollback()
    assert result.status == "partial"
    assert any("locked by another session" in note for note in only_source(result).notes)
    assert pending_accounts(world) == {users[0].uuid}
    assert world.run(world.at(6)).status == "ok"
    world.run(world.at(10))
    world.assert_all_is_billed()


def test_a_row_that_is_free_again_in_time_delays_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt waits for it."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.flow_until(6)
    world.run(world.at(3))
    with (
        ThreadPoolExecutor(1) as thread,
        psycopg.connect(world.connection.info.dsn) as other,
    ):
        other.execute("SELECT FROM public.account_quota_states FOR UPDATE")
        running = thread.submit(world.run_unchecked, world.at(8))
        wait_until_blocked(world, running)
        other.rollback()
        assert running.result().status == "ok"
    world.assert_all_is_billed()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_data_that_is_refused_stops_its_source_alone(world: World, fault: str) -> None:
    """Whatever the class of the error; the other source of the run commits."""
    users = world.add_users(2)
    world.add_node("jp-1", users)
    world.add_node("us-1", users)
    world.flow_until(6)
    world.run(world.at(3))
    world.connection.execute(REFUSE_NODE.format(fault).encode())

    result = world.run(world.at(5))

    assert {source.source_id: source.status for source in result.sources} == {
        "jp-1": "error",
        "us-1": "ok",
    }
    assert result.status == "partial"
    world.connection.execute("DROP TRIGGER refuse ON public.traffic_minute_buckets")
    assert world.run(world.at(8)).status == "ok"
    world.assert_all_is_billed()


def all_move(world: World, nodes: Node | Sequence[Node], last: int) -> None:
    """Let every stream of the nodes move in every minute."""
    nodes = [nodes] if isinstance(nodes, Node) else nodes
    for node in nodes:
        node.poll_jitter_seconds = 0
    world.flow_until(0.5, rate=0)
    for minute in range(1, last + 1):
        for node in nodes:
            for stream in node.streams:
                node.flow(stream, 1000, 100)
        world.flow_until(minute, rate=0)


def pending_accounts(world: World) -> set[str]:
    """Return the accounts whose usage waits."""
    rows = world.rows(
        "SELECT DISTINCT account_uuid::text FROM billing.pending_usage"
        "  JOIN billing.streams USING (stream_id) WHERE billed_at IS NULL"
    )
    return {account for (account,) in rows}


def billed_accounts(world: World, minute: object) -> set[str]:
    """Return the accounts that have a bucket in a minute."""
    query = "SELECT account_uuid::text FROM traffic_minute_buckets WHERE bucket_start = %s"
    return {account for (account,) in world.rows(query, minute)}


def restore(world: World, row: tuple[object, ...]) -> None:
    """Bring a quota state back to what it was."""
    world.connection.execute(
        "UPDATE account_quota_states SET remaining_included_quota = %s, current_balance = %s"
        " WHERE account_uuid = %s",
        (row[1], row[2], row[0]),
    )


def test_bytes_beyond_a_bigint_in_one_run_stop_nobody(world: World) -> None:
    """Two nodes report 2^63 - 1 bytes each, with limits off; a third one is charged as always."""
    world.deltas = DeltaPolicy(account_rate_bits_per_second=0, line_rate_bits_per_second=0)
    users = world.add_users(3)
    nodes = [world.add_node(f"{name}-1", [user]) for name, user in zip("abc", users, strict=True)]
    most = 2**63 - 1
    for node, size in zip(nodes, (most, most, 1000), strict=True):
        node.poll_jitter_seconds = 0
        node.run(world.at(1), 60, 0)
        node.flow(node.streams[0], size, 0)
    world.flow_until(3, rate=0)
    result = world.run_unchecked(world.at(4))
    assert {source.source_id: source.status for source in result.sources} == dict.fromkeys(
        ("a-1", "b-1", "c-1"), "ok"
    )
    assert result.included_bytes + result.charged_bytes == 2 * most + 1000
    (stored,) = world.rows("SELECT included_bytes + charged_bytes FROM billing.totals")
    assert stored == (2 * most + 1000,)
