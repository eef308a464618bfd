"""What a run costs: as many statements for many samples as for few, and rows for change alone."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from tests.integration.jobs.world import serving_world
from tests.support.relay import relayed

if TYPE_CHECKING:
    from tests.integration.jobs.world import World
    from tests.support.postgres import Databases

ADD_USERS = """
INSERT INTO public.users (uuid, proxy_uuid, username, password)
SELECT gen_random_uuid(), gen_random_uuid(), '', '' FROM generate_series(1, %s)
RETURNING uuid::text
"""

READ_VERSIONS = """
SELECT 'stream', inbound_tag, account_uuid::text, xmin::text, ctid::text FROM billing.streams
UNION ALL
SELECT 'checkpoint', '', account_uuid::text, xmin::text, ctid::text
  FROM public.traffic_stat_checkpoints
UNION ALL
SELECT 'quota', '', account_uuid::text, xmin::text, ctid::text FROM public.account_quota_states
UNION ALL
SELECT 'account', '', uuid::text, xmin::text, xmax::text FROM public.users
"""


def test_the_number_of_statements_does_not_depend_on_the_number_of_samples(
    databases: Databases,
) -> None:
    """10 or 10,000 samples in a snapshot: the same statements, one by one, in each of the runs.

    Only new streams are added in parts, which bounds the memory of the first run.
    """
    few, many = (statements_of(databases, samples) for samples in (10, 10_000))
    assert few == [[statement for statement, _ in groupby(run)] for run in many]
    assert max(len(run) for run in few) < 74


def test_idle_streams_cost_no_row_writes(world: World) -> None:
    """Of six users one moves; the rows of the others are not even touched, nor locked."""
    users = world.add_users(6)
    node = world.add_node("jp-1", users)
    world.flow_until(3)
    world.run(world.at(5))
    for stream in node.streams:
        stream.idle = True
    before = versions(world)
    node.flow(node.streams[0], 1, 1)
    world.flow_until(9)
    world.run(world.at(8))

    after = versions(world)
    changed = {row for row in before if before[row] != after[row]}
    assert {account for _, _, account in changed} == {users[0].uuid}
    assert after.keys() == before.keys()


def test_idle_users_have_no_rows(world: World) -> None:
    """Whoever never moved a byte has a stream, and no bucket, entry, checkpoint or quota state."""
    users = world.add_users(4)
    node = world.add_node("jp-1", users[:1])
    for user in users[1:]:
        node.add_stream(user.uuid, idle=True)
    world.flow_until(6)
    world.collect_every_minute(1, 7)
    for table in (
        "public.traffic_minute_buckets",
        "public.billing_ledger",
        "public.account_quota_states",
        "billing.usage_records",
        "billing.charges",
    ):
        rows = world.rows(f"SELECT DISTINCT account_uuid::text FROM {table}")  # noqa: S608
        assert rows == [(users[0].uuid,)], table


def test_a_run_with_nothing_new_writes_the_attempt_and_its_run_alone(world: World) -> None:
    """Facts, streams and watermarks stay the very same rows."""
    world.add_node("jp-1", world.add_users(3))
    world.flow_until(3)
    world.run(world.at(5))
    before = world.tables()
    world.run(world.at(5))
    after = world.tables()
    changed = {table for table in before if before[table] != after[table]}
    assert changed == {"public.billing_source_sync_state", "billing.runs", "billing.totals"}


def statements_of(databases: Databases, samples: int) -> list[list[str]]:
    """Return the statements of a first run, of one with traffic, and of one with nothing new."""
    with (
        databases.database(migrated=True) as url,
        relayed(databases.job_url(url)) as relay,
        serving_world(url, relay.url) as world,
    ):
        node = world.fleet.add_node("jp-1")
        for (user,) in world.rows(ADD_USERS, samples):
            node.add_stream(user)
        node.run(world.at(3), activity=1.0)
        runs, results = [], []
        for minute in (1, 2, 2):
            relay.statements.clear()
            results.append(world.run_unchecked(world.at(minute + 0.7)))
            runs.append(list(relay.statements))
        assert [result.processed_samples for result in results] == [samples, samples, 0]
        assert [result.written_minutes for result in results] == [0, samples, 0]
        return runs


def versions(world: World) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Return which version of each row is in force."""
    return {
        (kind, tag, account): (xmin, ctid)
        for kind, tag, account, xmin, ctid in world.rows(READ_VERSIONS)
    }
