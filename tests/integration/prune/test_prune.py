"""What pruning takes away, what it leaves, and what it refuses to touch."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.cli.printing import text_of
from billing_cli.database.connecting import Database
from billing_cli.errors import BillingError, ConfigurationError, UsageError
from billing_cli.features.explain.job import explain
from billing_cli.features.explain.text import explain_parts
from billing_cli.features.prune import queries as store
from billing_cli.features.prune.job import prune
from billing_cli.features.prune.result import kept_since, months_of
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.features.seal.job import seal
from billing_cli.features.statement.job import statement
from billing_cli.features.verify.job import verify
from billing_cli.jobs.reconcile import reconcile
from billing_cli.signatures import generate_key
from tests.integration.audit.full_story import kinds
from tests.integration.prune.conftest import JULY, JUNE, MAY, told_long_story

if TYPE_CHECKING:
    from typing import Any

    from billing_cli.features.prune.result import PruneResult
    from billing_cli.jobs.context import JobContext
    from tests.integration.prune.conftest import LongStory

COUNT = """
SELECT (SELECT count(*) FROM billing.usage_records), (SELECT count(*) FROM billing.charges)
"""
COUNT_APRIL = "SELECT count(*) FROM billing.charges WHERE bucket_start < '2026-05-01T00:00:00Z'"

# A refund of an earlier month, and the sums of a version that counted it with the traffic.
REFUND = """
INSERT INTO public.billing_ledger
       (id, account_uuid, bucket_start, bucket_end, entry_type, rated_bytes, amount_delta,
        balance_after, created_at)
SELECT gen_random_uuid(), account_uuid, '2026-04-30T12:00:00Z', '2026-04-30T12:00:00Z', 'refund',
       0, 0.5, current_balance, clock_timestamp()
  FROM public.account_quota_states
"""
EARLIER_SUMS = """
UPDATE billing.pruned SET ledger_rows = ledger_rows + 1, ledger_amount = ledger_amount + 0.5
"""

# What is done behind the back of the database, and what an audit calls it.
DAMAGES = (
    (
        """
DELETE FROM billing.usage_records
 WHERE ctid = (SELECT ctid FROM billing.usage_records
                WHERE kind = 'delta' ORDER BY stream_id, from_at LIMIT 1)""",
        "chain_broken",
    ),
    (
        """
UPDATE public.traffic_minute_buckets
   SET total_bytes = total_bytes + 1, uplink_bytes = uplink_bytes + 1
 WHERE bucket_start < '2026-05-01T00:00:00Z'""",
        "pruned_differs",
    ),
    (
        "DELETE FROM public.billing_ledger WHERE bucket_start < '2026-05-01T00:00:00Z'",
        "pruned_differs",
    ),
    ("DELETE FROM billing.pruned_streams", "chain_broken"),
)


@pytest.mark.parametrize("minutes_of_april", [4, 7, 11, 13, 16, 18.5])
def test_an_audit_is_clean_after_pruning_wherever_the_month_ends(
    database_url: str, job_url: str, minutes_of_april: float
) -> None:
    """In the midst of what waits, restarts, is held, is released or corrected."""
    with told_long_story(database_url, job_url, minutes_of_april) as story:
        story.prove(JUNE)
        result = story.prune(JUNE)
        assert [f"{month.month:%Y-%m}" for month in result.months] == ["2026-04"]
        assert story.rows(COUNT_APRIL) == [(0,)]
        assert kinds(story.audit()) == {}
        for user in story.users:
            assert kinds(story.audit(account=user.uuid)) == {}

        story.node.run(story.minutes(25), poll_seconds=60)
        story.catch_up(story.minutes(26))
        assert kinds(story.audit()) == {}


def test_whole_months_go_and_their_tables_stay_detached(story: LongStory) -> None:
    """Nothing is lost by it: each is a table of its own, as append-only as before."""
    (records, charges), *_ = story.rows(COUNT)
    april = story.rows(COUNT_APRIL)[0][0]

    result = story.prune(JUNE)

    (month,) = result.months
    assert month.tables == ("billing.usage_records_2026_04", "billing.charges_2026_04")
    assert (month.charges, month.is_dropped, result.kept_since) == (april, False, MAY)
    assert story.rows(COUNT) == [(records - month.records, charges - month.charges)]
    assert story.rows("SELECT count(*) FROM billing.charges_2026_04") == [(april,)]
    with pytest.raises(Exception, match="charges_2026_04 is append-only"):
        story.execute("DELETE FROM billing.charges_2026_04")


def test_a_second_run_finds_nothing_and_drops_what_was_detached(story: LongStory) -> None:
    """Archive the tables in between, if they are to be kept."""
    story.prune(JUNE)
    again = story.prune(JUNE)
    assert (again.months, again.dropped_tables, again.moved_rows) == ((), (), 0)
    dropped = story.prune(JUNE, is_dropping=True)
    assert dropped.dropped_tables == ("billing.usage_records_2026_04", "billing.charges_2026_04")
    assert story.rows("SELECT to_regclass('billing.charges_2026_04')") == [(None,)]
    assert kinds(story.audit()) == {}


def test_all_that_a_stream_ever_did_may_go(story: LongStory) -> None:
    """Its checkpoint is where the pruned evidence ended, and it goes on from there."""
    story.prove(JULY)
    result = story.prune(JULY, is_dropping=True)
    assert [month.is_dropped for month in result.months] == [True, True]
    assert story.rows(COUNT) == [(0, 0)]
    assert kinds(story.audit()) == {}
    story.node.flow(story.streams[0], 5, 7)
    story.node.snapshot(JULY)
    story.catch_up(JULY + timedelta(minutes=2))
    assert kinds(story.audit()) == {}
    ((records, charges),) = story.rows(COUNT)
    assert records == charges > 0


def test_a_dry_run_says_what_would_go_and_changes_nothing(story: LongStory) -> None:
    """Before the rows get partitions, and when they have them, as in real life."""
    (april,) = story.prune(JUNE, dry_run=True).months
    assert (april.month, [(april.charges,)]) == (MAY - timedelta(days=30), story.rows(COUNT_APRIL))
    story.prune(MAY)  # Nothing is older than a month yet; the rows get their partitions.
    before = story.rows(COUNT)
    result = story.prune(JUNE, dry_run=True)
    assert [f"{month.month:%Y-%m}" for month in result.months] == ["2026-04"]
    assert result.months[0].disk_bytes > 0
    assert (story.rows(COUNT), story.rows("SELECT count(*) FROM billing.pruned")) == (
        before,
        [(0,)],
    )


def test_late_minutes_of_a_pruned_month_are_billed_audited_and_pruned(story: LongStory) -> None:
    """A source that answers again months later is no violation, and its minutes go as well."""
    story.prune(JUNE)
    pruned = story.rows("SELECT sum(bucket_bytes) FROM billing.pruned")
    late = story.fleet.add_node("us-1", node_id="us-1.example", env="prod")
    for user in story.users:
        late.add_stream(user.uuid, "xhttp")
    late.run(story.minutes(6), poll_seconds=60)
    late.snapshot(story.minutes(6))
    story.catch_up(story.minutes(21), since=story.start)
    assert story.rows(COUNT_APRIL) != [(0,)]
    assert kinds(story.audit()) == {}
    assert story.job(verify, JUNE).findings == []
    for user in story.users:
        assert kinds(story.audit(account=user.uuid)) == {}

    story.prove(JUNE)
    result = story.prune(JUNE)
    assert result.moved_rows > 0
    assert story.rows(COUNT_APRIL) == [(0,)]
    assert story.rows("SELECT sum(bucket_bytes) FROM billing.pruned") > pruned
    assert kinds(story.audit()) == {}
    assert story.job(verify, JUNE).findings == []
    assert story.prune(JUNE).moved_rows == 0


def test_damage_to_late_minutes_of_a_pruned_month_is_found(story: LongStory) -> None:
    """Their evidence is compared by its sums, as that of the rest of their month."""
    story.prune(JUNE)
    late = story.fleet.add_node("us-1", node_id="us-1.example", env="prod")
    late.add_stream(story.users[0].uuid, "xhttp")
    late.run(story.minutes(6), poll_seconds=60)
    late.snapshot(story.minutes(6))
    story.catch_up(story.minutes(21), since=story.start)
    story.damage(
        "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1"
        " WHERE node_id = 'prod:us-1.example'"
    )
    assert kinds(story.audit()) == {"pruned_differs": 1}


def test_a_reader_is_waited_for_no_longer_than_the_lock_timeout(story: LongStory) -> None:
    """A long audit keeps its months: nothing is changed, and the next call prunes them."""
    story.prune(MAY)
    before = story.rows(COUNT)

    def impatient(context: JobContext, **options: Any) -> PruneResult:
        database = replace(context.database, lock_timeout_seconds=0.1)
        return prune(replace(context, database=database), **options)

    job: Any = story.job
    story.job_url = story.database_url
    with psycopg.connect(story.database_url) as reader:
        reader.execute("SELECT count(*) FROM billing.usage_records")
        with pytest.raises(BillingError, match="lock timeout"):
            job(impatient, JUNE, keep_months=1, is_archive_waived=True)
    assert (story.rows(COUNT), story.rows("SELECT count(*) FROM billing.pruned")) == (
        before,
        [(0,)],
    )
    assert len(story.prune(JUNE).months) == 1


def test_a_role_that_does_not_own_the_tables_is_refused(story: LongStory) -> None:
    """The role of the jobs may delete nothing."""
    job: Any = story.job
    with pytest.raises(ConfigurationError, match="prune runs as the role that migrates"):
        job(prune, JUNE, keep_months=1)


def test_what_was_not_proven_does_not_go(story: LongStory) -> None:
    """An audit after its end must have found nothing; or somebody says that this is meant."""
    with pytest.raises(BillingError, match="not audited since: run `billing audit` first"):
        story.prune(JULY + timedelta(days=40))
    story.execute("UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1")
    story.prove(JUNE)
    with pytest.raises(BillingError, match=r"the last audit found \d+ violations"):
        story.prune(JUNE)
    assert len(story.prune(JUNE, is_unproven_meant=True).months) == 1


def test_a_held_delta_that_waits_keeps_its_month(story: LongStory) -> None:
    """Whoever decides looks at what was around it."""
    story.damage(
        "INSERT INTO billing.held_deltas (stream_id, bucket_start, from_at, reset_epoch, to_at,"
        " uplink_start, uplink_end, downlink_start, downlink_end)"
        " SELECT stream_id, first_seen_at, first_seen_at, 0, first_seen_at, 0, 1, 0, 1"
        " FROM billing.streams LIMIT 1"
    )
    with pytest.raises(BillingError, match="1 held deltas of months that would go wait"):
        story.prune(JUNE)


@pytest.mark.parametrize(("statements", "kind"), DAMAGES)
def test_damage_is_found_after_pruning_as_well(
    story: LongStory, statements: str, kind: str
) -> None:
    """A head that was pruned is told from one that is missing; what is left of a month counts."""
    story.prune(JUNE)
    story.damage(statements)
    assert kind in kinds(story.audit())


@pytest.mark.parametrize("sums", ["", EARLIER_SUMS], ids=["traffic", "of an earlier version"])
def test_rows_of_others_in_a_pruned_month_are_no_damage(story: LongStory, sums: str) -> None:
    """Some were there when it was pruned, others come afterwards; traffic still counts."""
    story.execute(REFUND)
    story.prune(JUNE)
    if sums:
        story.execute(sums)
    story.execute(REFUND)
    assert "pruned_differs" not in kinds(story.audit())
    story.damage(
        "DELETE FROM public.billing_ledger WHERE entry_type = 'traffic_charge'"
        " AND bucket_start < '2026-05-01T00:00:00Z'"
    )
    assert "pruned_differs" in kinds(story.audit())


def test_a_top_up_is_all_that_is_told_of_the_balances(story: LongStory) -> None:
    """Charges of a pruned month that were written later stand between those that are left."""
    story.execute("UPDATE public.account_quota_states SET current_balance = current_balance + 1")
    story.prove(JUNE)
    before = kinds(story.audit())
    story.prune(JUNE)
    assert kinds(story.audit()) == before == {"balance_outside": len(story.users)}


def test_pruned_minutes_are_told_and_neither_rated_nor_compared_again(story: LongStory) -> None:
    """Explain says from when on there is evidence; re-rating and reconciling refuse."""
    story.prune(JUNE)
    job: Any = story.job
    text = text_of(
        explain_parts(
            job(explain, JUNE, account=story.users[0].uuid, since=MAY - timedelta(minutes=5))
        )
    )
    assert "evidence of minutes before 2026-05-01T00:00:00Z was pruned" in text
    order = Order(MAY - timedelta(minutes=5), JUNE, "v2", "a test")
    for work, options in ((rerate, {"order": order}), (reconcile, {"since": order.since})):
        with pytest.raises(UsageError, match="evidence of earlier minutes was pruned"):
            job(work, JUNE, **options)
    # What reaches back over the end of the month can't be compared, and is left as it is.
    result = story.reconcile(story.minutes(21), since=MAY)
    assert (result.status, result.corrections) == ("ok", 0)
    assert kinds(story.audit()) == {}


def test_charges_of_a_pruned_month_are_not_explained_as_those_of_another_writer(
    story: LongStory,
) -> None:
    """The ledger rows of other kinds are still shown as such."""
    story.prune(JUNE)
    story.execute(REFUND.replace("T12:00:00Z", "T23:55:00Z"))
    job: Any = story.job
    since = MAY - timedelta(minutes=8)
    explanation = job(explain, JUNE, account=story.users[0].uuid, since=since, until=MAY)
    assert len(explanation.minutes) > 1
    foreign = [entry.entry_type for minute in explanation.minutes for entry in minute.foreign]
    assert foreign == ["refund"]


def test_run_history_resolved_gaps_and_daily_sums_of_that_time_go_as_well(story: LongStory) -> None:
    """What is still open stays, however old it is."""
    story.execute(
        "INSERT INTO billing.gaps (source_id, kind, from_at, to_at, resolved_at)"
        " VALUES ('old', 'late', '2026-01-01', '2026-01-02', now()),"
        " ('open', 'late', '2026-01-01', '2026-01-02', NULL)"
    )
    story.execute(
        "INSERT INTO billing.daily_charges (day, kind, name, amount)"
        " VALUES ('2026-04-30', 'node', 'old', 1), ('2026-05-01', 'node', 'kept', 1)"
    )
    gone = story.rows(
        "SELECT (SELECT count(*) FROM billing.runs WHERE started_at < '2026-05-01T00:00:00Z'),"
        " (SELECT count(*) FROM billing.gaps WHERE to_at < '2026-05-01T00:00:00Z'"
        " AND resolved_at IS NOT NULL)"
    )
    result = story.prune(JUNE)
    assert [(result.deleted_runs, result.deleted_gaps)] == gone
    assert story.rows("SELECT count(*) FROM billing.gaps WHERE source_id = 'open'") == [(1,)]
    assert story.rows("SELECT name FROM billing.daily_charges") == [("kept",)]
    assert story.rows("SELECT job, status FROM billing.runs WHERE job = 'prune'") == [
        ("prune", "ok")
    ]


def test_a_statement_of_charges_that_were_pruned_is_refused(story: LongStory) -> None:
    """Minutes of April that were booked in June are in the archive, and not in June's sum."""
    keys, account = generate_key("example.com/billing"), story.users[0].uuid
    story.job_url = story.database_url
    for later in (timedelta(), timedelta(days=1)):
        story.job(lambda context: seal(context, keys), JUNE + later)

    def june(context: JobContext) -> Any:
        return statement(context, account, JUNE.date())

    assert story.job(june, JUNE + timedelta(days=2))["days"][0]["sealed"]
    story.prune(JUNE)
    with pytest.raises(UsageError, match="2026-05-01T00:00:00Z were pruned: see their archive"):
        story.job(june, JUNE + timedelta(days=2))


def test_months_are_counted_back_from_this_one() -> None:
    """This month is kept, and so many whole ones before it."""
    assert kept_since(JUNE + timedelta(days=14), 18).isoformat() == "2024-12-01T00:00:00+00:00"
    assert kept_since(JUNE, 0) == JUNE
    assert months_of("18mo") == 18
    for wrong in ("18", "0mo", "-1mo", "1y", "18 mo"):
        with pytest.raises(ValueError, match="no number of months such as 18mo"):
            months_of(wrong)


def test_what_is_charged_while_prune_waits_for_its_locks_goes_too(
    story: LongStory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as pruned, not as lost."""
    lock_tables = store.lock_tables

    def lock_late(connection: psycopg.Connection, tables: Any) -> None:
        monkeypatch.undo()
        connection.execute("SELECT now()")
        order = Order(MAY - timedelta(minutes=5), MAY, "v2", "a test")
        assert story.job(dearer, JUNE, order=order).corrections
        lock_tables(connection, tables)

    def dearer(context: JobContext, order: Order) -> Any:
        tariff = replace(context.tariff, price_per_byte=2 * context.tariff.price_per_byte)
        jobs = Database(told_job_url)
        return rerate(replace(context, tariff=tariff, database=jobs), order)

    told_job_url = story.job_url
    monkeypatch.setattr(store, "lock_tables", lock_late)
    story.prune(JUNE)
    assert story.rows(COUNT_APRIL) == [(0,)]
    assert story.job(verify, JUNE).findings == []
