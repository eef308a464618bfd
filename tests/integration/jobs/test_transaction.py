"""One run is one transaction: all of it is stored or nothing, and a bad source fails alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.errors import BillingError, SchemaError
from billing_cli.jobs import step
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from tests.integration.jobs.faults import accept_again, refuse_node, refuse_some_times
from tests.integration.jobs.world import only_source
from tests.support.relay import relayed

if TYPE_CHECKING:
    from tests.integration.jobs.world import Job, World

# Errors of the data, and of a trigger on a shared table.
DATA_ERRORS = ["22003", "P0001"]

READ_SYNC_STATE = """
SELECT source_id, last_completed_until, last_attempted_at, last_succeeded_at, last_error
  FROM public.billing_source_sync_state ORDER BY source_id
"""

OPEN_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name = 'billing' AND xact_start IS NOT NULL
"""

READ_LEDGER_BY_TIME = """
SELECT account_uuid::text, bucket_start || node_or_line
  FROM (SELECT entry.*, charge.stored_node_id || charge.line_code AS node_or_line
          FROM public.billing_ledger AS entry
          JOIN billing.charges AS charge ON charge.ledger_id = entry.id) AS entry
 ORDER BY created_at
"""


def test_a_run_is_seen_from_outside_only_after_its_commit(world: World) -> None:
    """A second connection sees the old state before each statement, COMMIT included."""
    one_minute_behind(world)
    before = world.tables()
    seen: list[dict[str, Any]] = []

    def look(_place: int, _statement: str) -> None:
        seen.append(world.tables())

    with relayed(world.database_url) as relay:
        relay.judge = look
        run_through(world, relay.url)
        assert relay.statements[-1] == "COMMIT"
    assert len(seen) == len(relay.statements)
    assert all(state == before for state in seen)
    after = world.tables()
    assert {table for table in before if before[table] != after[table]} >= {
        "public.traffic_minute_buckets",
        "public.billing_ledger",
        "public.account_quota_states",
        "public.traffic_stat_checkpoints",
        "public.billing_source_sync_state",
        "billing.sources",
        "billing.streams",
        "billing.usage_records",
        "billing.charges",
        "billing.runs",
    }


def test_a_run_that_fails_leaves_nothing_but_its_run_history_row(world: World) -> None:
    """What it had written before is rolled back, whatever it was."""
    one_minute_behind(world)
    refuse_some_times(world, "XX000", times=1)
    before = world.tables()
    with pytest.raises(BillingError, match="simulated"):
        world.run_unchecked(world.at(5))
    after = world.tables()
    assert {table for table in before if before[table] != after[table]} == {
        "billing.runs",
        "billing.totals",
    }
    (run,) = world.rows("SELECT status, error FROM billing.runs WHERE status = 'error'")
    assert run == ("error", "database: simulated")


def test_a_dry_run_leaves_no_trace(world: World) -> None:
    """Every table, the run history among them, is what it was; the result says what would be."""
    one_minute_behind(world)
    before = world.tables()
    said = world.run_unchecked(world.at(5), dry_run=True)
    assert world.tables() == before
    assert said.dry_run
    done = world.run(world.at(5))
    for figure in ("written_minutes", "included_bytes", "charged_bytes", "amount", "steps"):
        assert getattr(said, figure) == getattr(done, figure) != 0, figure


def test_a_dry_run_makes_no_partitions(world: World) -> None:
    """Every other run would wait for them until it ends."""
    one_minute_behind(world)
    world.connection.execute("ALTER FUNCTION billing.make_partitions() RENAME TO others")
    assert world.run_unchecked(world.at(5), dry_run=True).written_minutes > 0
    with pytest.raises(SchemaError, match="make_partitions"):
        world.run_unchecked(world.at(5))


def test_a_dry_run_has_no_transaction_open_while_exporters_are_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its first step writes; later steps see what that would have written."""
    one_minute_behind(world)
    fetch_round, transactions = step.fetch_round, []

    def look(*arguments: Any, **options: Any) -> Any:
        transactions.extend(world.rows(OPEN_TRANSACTIONS))
        return fetch_round(*arguments, **options)

    monkeypatch.setattr(step, "fetch_round", look)
    assert world.run_unchecked(world.at(5), dry_run=True).written_minutes > 0
    assert transactions == [(0,)]


def test_later_steps_of_a_dry_run_see_the_earlier_ones(world: World) -> None:
    """A dry catch-up over several steps tells the same as the real one does."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(6)
    world.fetching = small_steps(world)
    before = world.tables()
    said = world.run_unchecked(world.at(8), catch_up, dry_run=True)
    assert world.tables() == before
    done = world.run(world.at(8), catch_up)
    assert said.steps == done.steps > 2
    assert (said.written_minutes, said.amount) == (done.written_minutes, done.amount)
    assert only_source(said).snapshots == only_source(done).snapshots == 7


@pytest.mark.parametrize("sqlstate", DATA_ERRORS)
def test_a_failing_source_is_isolated_and_recorded(world: World, sqlstate: str) -> None:
    """The others commit; the source keeps its watermark and tells why; later it catches up."""
    three_nodes(world)
    world.run(world.at(2))
    refuse_node(world, "us-1", sqlstate)
    result = world.run(world.at(5))

    assert result.status == "partial"
    statuses = {source.source_id: source.status for source in result.sources}
    assert statuses == {"de-1": "ok", "jp-1": "ok", "us-1": "error"}
    assert result.sources[2].error == "database: simulated"
    states = {row[0]: row[1:] for row in world.rows(READ_SYNC_STATE)}
    assert states["us-1"] == (
        world.watermarks["us-1"],
        world.at(5),
        world.at(2),
        "database: simulated",
    )
    assert states["jp-1"] == (world.watermarks["jp-1"], world.at(5), world.at(5), "")
    assert world.watermarks["us-1"] < world.at(1) < world.watermarks["jp-1"]

    accept_again(world)
    world.collect_every_minute(8, 9)
    world.assert_all_is_billed()


def test_ledger_rows_are_created_in_bucket_order_beside_a_failing_source(world: World) -> None:
    """Also where each source had to be looked at alone."""
    three_nodes(world)
    world.run(world.at(2))
    refuse_node(world, "us-1", "22003")
    world.run(world.at(9))
    assert_created_in_bucket_order(world)


def test_several_failing_sources_are_all_left_out(world: World) -> None:
    """Only the good one is stored."""
    three_nodes(world)
    world.run(world.at(2))
    refuse_node(world, "us-1", "22003")
    world.connection.execute(
        "ALTER TABLE public.traffic_minute_buckets "
        "ADD CHECK (node_id <> 'prod:jp-1.svc.plus') NOT VALID"
    )
    result = world.run(world.at(5))
    statuses = {source.source_id: source.status for source in result.sources}
    assert statuses == {"de-1": "ok", "jp-1": "error", "us-1": "error"}
    assert result.written_minutes > 0


def one_minute_behind(world: World) -> None:
    """Leave one node with minutes to be collected at minute 5."""
    world.add_node("jp-1", world.add_users(2))
    world.flow_until(6)
    world.run(world.at(3))


def three_nodes(world: World) -> None:
    """Let two users use three nodes."""
    users = world.add_users(2)
    for source_id in ("jp-1", "us-1", "de-1"):
        world.add_node(source_id, users)
    world.flow_until(8)


def small_steps(world: World) -> Any:
    """Return a policy under which each step is hardly more than a minute."""
    return type(world.fetching)(step_max_samples=4, page_limit=2)


def run_through(world: World, url: str, job: Job = collect) -> None:
    """Run a job at minute 5 over another way to the database."""
    direct, world.database_url = world.database_url, url
    try:
        world.run_unchecked(world.at(5), job)
    finally:
        world.database_url = direct


def assert_created_in_bucket_order(world: World) -> None:
    """Every account's entries of each run rise in bucket order with the time of their creation."""
    rows = world.rows(READ_LEDGER_BY_TIME)
    assert len(rows) > 10
    for account in {row[0] for row in rows}:
        buckets = [row[1] for row in rows if row[0] == account]
        assert buckets == sorted(buckets)
    stamps = world.rows("SELECT count(DISTINCT created_at), count(*) FROM public.billing_ledger")
    assert stamps[0][0] == stamps[0][1]
