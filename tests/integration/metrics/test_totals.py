"""The totals of each job: the sums over its runs in the run history, kept as they are written."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.result import RunResult, SourceResult
from billing_cli.database.connection import Session
from billing_cli.database.source_status import read_source_status
from billing_cli.database.totals import read_totals
from billing_cli.errors import BillingError
from billing_cli.features.audit.findings import AuditResult
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.run_history import record_failure, record_run
from billing_cli.simulator.publication import merged
from tests.support.story import START

if TYPE_CHECKING:
    from billing_cli.core.result import RunStatus
    from billing_cli.core.source_status import SourceStatus
    from billing_cli.core.totals import JobTotals
    from tests.support.story import Story

READ_JOURNAL = """
SELECT job, count(*), sum((result ->> 'processed_samples')::bigint)::bigint,
       sum((result ->> 'written_minutes')::bigint)::bigint,
       sum((result ->> 'included_bytes')::bigint)::bigint,
       sum((result ->> 'charged_bytes')::bigint)::bigint,
       sum((result ->> 'amount')::numeric), sum((result ->> 'corrections')::bigint)::bigint
  FROM billing.runs GROUP BY job ORDER BY job
"""

RESULT = RunResult("collect", "", "ok", START, START + timedelta(seconds=2))


def test_the_totals_are_the_sum_of_the_run_history(story: Story) -> None:
    """Whatever jobs there were, in however many steps, and whether they charged or gave back."""
    story.quota = 500
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    for minute in range(12):
        story.minute((stream, 100 * minute, 10))
        if minute < 4:
            story.collect()
    small = replace(story.context().fetching, step_max_samples=2)
    assert catch_up(replace(story.context(), fetching=small)).steps > 1
    story.price /= 2
    order = Order(START, story.now, "v2", "cheaper", ())
    assert rerate(story.context(), order, step_buckets=3).steps > 1
    with pytest.raises(BillingError):
        failing_run(story)

    found = [
        (
            one.job,
            one.runs,
            one.samples,
            one.written_minutes,
            one.included_bytes - one.returned_included_bytes,
            one.charged_bytes - one.returned_charged_bytes,
            one.charged_amount - one.returned_amount,
            one.corrections,
        )
        for one in totals_of(story).values()
    ]
    assert found == story.rows(READ_JOURNAL)
    assert [one[0] for one in found] == ["catch-up", "collect", "rerate"]
    assert totals_of(story)["rerate"].returned_amount > 0


def test_what_was_charged_for_a_source_is_counted(story: Story) -> None:
    """Bytes, money, new streams and successions of all runs that moved it."""
    story.quota = 500
    user, node = story.add_user(), story.add_node("jp-1")
    streams = [node.add_stream(user.uuid, tag) for tag in ("tcp", "xhttp")]
    for minute in range(6):
        story.minute((streams[0], 100 * minute, 10), (streams[1], 1, 1))
        if minute < 3:
            story.collect()
    assert read_metrics_of(story).most_account_streams == len(streams)
    node.naming = merged
    story.minute((streams[0], 7, 0))
    small = replace(story.context().fetching, step_max_samples=3)
    assert catch_up(replace(story.context(), fetching=small)).steps > 1
    found = read_metrics_of(story)
    charged = story.rows(
        "SELECT sum(included_bytes + rated_bytes)::bigint, -sum(amount_delta) FROM billing.charges"
    )
    assert [(found.charged_bytes_total, found.amount_total)] == charged
    assert (found.new_streams_total, found.successions_total) == (3, 1)


def test_a_run_counts_once_however_many_steps_it_takes(story: Story) -> None:
    """Each step writes what the run has come to; the totals grow by what is new in that."""
    source = SourceResult("jp-1", resets=1, gaps=2, rejected_samples=3, held_deltas=4)
    record(story, replace(RESULT, processed_samples=10, corrections=1, sources=(source,)))
    steps = (
        replace(RESULT, run_id="r", processed_samples=5, written_minutes=1),
        replace(RESULT, run_id="r", processed_samples=7, written_minutes=3, sources=(source,)),
    )
    context = story.context()
    for step in steps:
        record(story, step, context)
    totals = totals_of(story)["collect"]
    assert (totals.runs, totals.samples, totals.written_minutes, totals.corrections) == (
        2,
        17,
        3,
        1,
    )
    assert (totals.resets, totals.gaps) == (2, 4)
    assert (totals.rejected_samples, totals.held_deltas) == (6, 8)


def test_what_is_given_back_is_counted_by_itself(story: Story) -> None:
    """No total ever falls: a run that takes 5 and then gives back 7 counts both."""
    context = story.context()
    for amount in (Decimal(5), Decimal("-2.000000001")):
        size = int(amount * 10)
        step = replace(RESULT, amount=amount, charged_bytes=size, included_bytes=-size)
        record(story, step, context)
    totals = totals_of(story)["collect"]
    assert (totals.charged_amount, totals.returned_amount) == (Decimal(5), Decimal("7.000000001"))
    assert (totals.charged_bytes, totals.returned_charged_bytes) == (50, 70)
    assert (totals.included_bytes, totals.returned_included_bytes) == (70, 50)


def test_a_failed_run_keeps_what_its_steps_did(story: Story) -> None:
    """The run history tells of the failure, and still of what stands; so do the totals."""
    context = story.context()
    done = replace(RESULT, processed_samples=5, charged_bytes=7, amount=Decimal(1))
    record(story, done, context)
    with Session(context.database) as session:
        record_failure(context, session, "collect", START, BillingError("the disk is full"))
    ((status, error, result),) = story.rows("SELECT status, error, result FROM billing.runs")
    assert (status, error) == ("error", "the disk is full")
    assert (result["status"], result["error"]["message"]) == ("error", "the disk is full")
    assert (result["processed_samples"], result["amount"]) == (5, "1")
    totals = totals_of(story)["collect"]
    assert (totals.runs, totals.failed_runs, totals.samples, totals.charged_bytes) == (1, 1, 5, 7)


def test_the_last_success_outlasts_failures_and_busy_runs(story: Story) -> None:
    """A partial run is one: what it did is stored."""
    record(story, replace(RESULT, status="partial"))
    statuses: tuple[RunStatus, ...] = ("busy", "error")
    for minutes, status in enumerate(statuses, start=1):
        ended = RESULT.finished_at + timedelta(minutes=minutes)
        record(story, replace(RESULT, status=status, finished_at=ended))
    totals = totals_of(story)["collect"]
    assert (totals.last_status, totals.runs, totals.failed_runs) == ("error", 3, 1)
    assert totals.last_success_at == RESULT.finished_at
    assert totals.last_finished_at == RESULT.finished_at + timedelta(minutes=2)


def test_a_dry_run_is_not_counted_and_holds_nobody_up(story: Story) -> None:
    """It may take long, with all its locks: a real run next to it is counted meanwhile."""
    context = story.context()
    with Session(context.database, dry_run=True) as trying:
        tried = replace(RESULT, dry_run=True)
        trying.transaction(lambda connection: record_run(context, connection, tried))
        story.lock_timeout_seconds = 0.5
        record(story, RESULT)
    assert totals_of(story)["collect"].runs == 1


def test_a_run_that_is_undone_is_not_counted(story: Story) -> None:
    """What is tried again counts when it is there to stay."""
    context = story.context()
    attempts = []

    def work(connection: psycopg.Connection[Any]) -> None:
        record_run(context, connection, replace(RESULT, processed_samples=5))
        attempts.append(connection)
        if len(attempts) < 3:
            raise psycopg.errors.SerializationFailure

    with Session(context.database, pause=lambda _: None) as session:
        session.transaction(work)
    totals = totals_of(story)["collect"]
    assert (totals.runs, totals.samples) == (1, 5)


def test_runs_side_by_side_are_all_counted(story: Story) -> None:
    """Three hosts that collect at the same time lose none of each other's counts."""

    def many() -> None:
        for _ in range(20):
            record(story, replace(RESULT, processed_samples=3))

    hosts = [threading.Thread(target=many) for _ in range(3)]
    for host in hosts:
        host.start()
    for host in hosts:
        host.join()
    totals = totals_of(story)["collect"]
    assert (totals.runs, totals.samples) == (60, 180)


def test_the_last_audit_is_kept(story: Story) -> None:
    """What it found stands until the next one; other jobs have no such figure."""
    for violations in (3, 0):
        record(
            story, AuditResult("audit", "", "ok", START, START, violations=violations, notices=2)
        )
    record(story, RESULT)
    totals = totals_of(story)
    assert (totals["audit"].violations, totals["audit"].notices) == (0, 2)
    assert (totals["collect"].violations, totals["collect"].notices) == (None, None)


def record(story: Story, result: RunResult, context: Any = None) -> None:
    """Write a run's row in the run history, of a new run where no context is given."""
    given = context or story.context()
    with Session(given.database) as session:
        session.transaction(lambda connection: record_run(given, connection, result))


def totals_of(story: Story) -> dict[str, JobTotals]:
    """Return the totals as they are stored."""
    return {one.job: one for one in read_totals(story.connection)}


def read_metrics_of(story: Story) -> SourceStatus:
    """Return what is stored of the one source."""
    (found,) = read_source_status(story.connection, ["jp-1"])
    return found


def failing_run(story: Story) -> None:
    """Run a catch-up that can't write its ledger rows in time."""
    user = story.add_user()
    late = story.fleet.nodes["jp-1"].add_stream(user.uuid, "late")
    story.minute((late, 1000, 0))
    story.collect()
    story.minute((late, 1000, 0))
    story.lock_timeout_seconds = 0.05
    with psycopg.connect(story.database_url) as other, other.transaction():
        other.execute("LOCK TABLE public.billing_ledger IN SHARE MODE")
        catch_up(story.context())
