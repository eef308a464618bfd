"""`billing status` reads what runs have stored, and tells what needs a look."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.cli.printing import text_of
from billing_cli.features.status.job import status
from billing_cli.features.status.result import DayTotals, StatusReport, status_object
from billing_cli.features.status.text import status_parts
from billing_cli.simulator.publication import merged
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.source_status import SourceStatus
    from tests.support.story import Story

MAX_LAG_SECONDS = 300.0


def report_of(story: Story, now: datetime | None = None) -> StatusReport:
    """Return what the command shows a little later than all that was told, or at `now`."""
    context = story.context()
    if now is not None:
        context = replace(context, clock=lambda: now)
    return status(context, max_lag_seconds=MAX_LAG_SECONDS)


def only(report: StatusReport) -> SourceStatus:
    """Return the one source."""
    (source,) = report.sources
    return source


def test_a_source_is_shown_as_its_last_run_left_it(story: Story) -> None:
    """Whose counters it carries, how far it is, and when it was last asked and answered."""
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 40, 60))
    story.collect()
    report = report_of(story)
    source = only(report)
    assert (source.source_id, source.node_id, source.env) == ("jp-1", "jp-1.svc.plus", "prod")
    assert (source.contract, source.watermark) == ("window", START + MINUTE)
    assert source.lag_seconds == (report.checked_at - START - MINUTE).total_seconds()
    assert source.last_attempted_at == source.last_succeeded_at == report.checked_at
    assert (source.last_error, source.gaps, report.findings) == ("", {}, ())
    assert [(run.job, run.status, run.written_minutes) for run in report.runs] == [
        ("collect", "ok", 1)
    ]


def test_a_source_that_was_never_collected_is_shown_too(story: Story) -> None:
    """It is configured, so somebody expects something of it."""
    story.add_node("jp-1")
    (finding,) = report_of(story).findings
    assert finding.text == "nothing collected yet"


def test_a_failure_is_shown_beside_the_last_success(story: Story) -> None:
    """When it was last well, when it was last tried, and what went wrong then."""
    story.add_node("jp-1")
    story.minute()
    story.collect()
    story.minute()
    story.running["jp-1"].status = 500
    story.collect()
    report = report_of(story)
    source = only(report)
    assert source.last_succeeded_at is not None
    assert source.last_attempted_at == source.last_succeeded_at + MINUTE
    assert "500" in source.last_error
    (finding,) = report.findings
    assert finding.text == f"last attempt failed: {source.last_error}"


def test_what_waits_for_somebody_is_counted(story: Story) -> None:
    """Held deltas, streams of unknown accounts, and gaps until they are resolved."""
    node = story.add_node("jp-1")
    stream = node.add_stream(story.add_user().uuid, "xhttp")
    stranger = node.add_stream(story.fleet.new_uuid(), "xhttp")
    story.minute()
    story.minute((stream, 10**6, 0), (stranger, 10, 10))
    node.restart_xray(story.now + timedelta(seconds=20))
    story.minute((stream, 5, 5), (stranger, 1, 1))
    story.collect()
    waiting = only(report_of(story))
    assert (waiting.waits_for_successor, waiting.gaps) == (True, {})
    assert "waits for the node's next snapshot" in text_of(status_parts(report_of(story)))
    story.minute((stream, 1, 1))
    story.collect()
    source = only(report_of(story))
    assert (source.waits_for_successor, source.unresolved_streams) == (False, 1)
    assert source.held_deltas > 0
    assert source.held_bytes >= 10**6
    assert source.gaps == {"reset": 1}
    assert "`billing held list --source jp-1`" in report_of(story).findings[0].advice
    story.connection.execute("UPDATE billing.gaps SET resolved_at = now()")
    assert only(report_of(story)).gaps == {}


def test_an_account_that_can_not_be_charged_needs_a_look(story: Story) -> None:
    """One that does not exist any more waits without that."""
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 0))
    story.collect()
    story.connection.execute("UPDATE public.account_quota_states SET current_balance = 'NaN'")
    story.minute((stream, 10, 0))
    story.collect()
    report = report_of(story)
    assert report.needs_attention
    assert [finding.text for finding in report.findings] == [
        "1 account can't be charged: usage is pending"
    ]
    story.connection.execute("DELETE FROM public.users")
    assert not report_of(story).needs_attention


def test_successions_are_counted_for_a_day(story: Story) -> None:
    """With their uncertain bytes, by source; the line below the table says what they are."""
    user, node = story.add_user(), story.add_node("jp-1")
    streams = [node.add_stream(user.uuid, tag) for tag in ("tcp", "xhttp")]
    story.minute()
    story.minute(*((stream, 10, 20) for stream in streams))
    node.naming = merged
    story.minute((streams[0], 1, 2))
    result = story.collect()
    assert (result.successions, result.sources[0].successions) == (1, 1)
    source = only(report_of(story))
    assert (source.successions, source.succession_uncertain_bytes) == (1, 0)
    assert not report_of(story).needs_attention
    assert "jp-1: 1 succession in 24 h, 0 B uncertain" in text_of(status_parts(report_of(story)))
    assert status_object(report_of(story))["sources"][0]["successions"] == 1
    story.connection.execute("UPDATE billing.successions SET found_at = now() - interval '2 days'")
    assert only(report_of(story)).successions == 0


def test_the_last_hour_is_shown_in_parts(story: Story) -> None:
    """What the runs charged and the largest lag that they left, the newest part last."""
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 40, 60))
    story.collect()
    (hour,) = report_of(story).last_hour.values()
    assert hour.charged_bytes == (*[0] * 11, 100)
    assert hour.lag_seconds[:11] == (None,) * 11
    assert hour.lag_seconds[11] is not None
    later = report_of(story, story.now + timedelta(minutes=30)).last_hour["jp-1"]
    assert later.charged_bytes.index(100) < 7
    assert report_of(story, story.now + timedelta(hours=2)).last_hour == {}


def test_a_source_behind_its_time_needs_a_look(story: Story) -> None:
    """The limit is the caller's; the lag is from the watermark to now."""
    story.add_node("jp-1")
    story.minute()
    story.collect()
    at_the_limit = START + timedelta(seconds=MAX_LAG_SECONDS)
    assert not report_of(story, at_the_limit).needs_attention
    assert report_of(story, at_the_limit + timedelta(seconds=1)).needs_attention


def test_today_is_what_was_billed_for_the_minutes_since_midnight_utc(story: Story) -> None:
    """Included bytes, bytes that were paid for, and what they cost; tomorrow begins with none."""
    story.quota = 130
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 40, 60))
    story.minute((stream, 20, 30))
    story.collect()
    midnight = START.replace(hour=0)
    assert report_of(story).today == DayTotals(midnight, 130, 20, Decimal("0.02"))
    tomorrow = midnight + timedelta(days=1)
    assert report_of(story, tomorrow).today == DayTotals(tomorrow)


def test_today_holds_what_corrections_gave_back(story: Story) -> None:
    """A charge and what was taken back of it are one figure."""
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 500, 500))
    story.collect()
    before = report_of(story).today
    story.connection.execute(
        """INSERT INTO billing.charges
                  (ledger_id, entry_type, adjusts, bucket_start, stored_node_id, account_uuid,
                   region, line_code, included_bytes, rated_bytes, price_per_byte, multiplier,
                   amount_delta, quota_before, balance_before, pricing_rule_version, run_id, reason)
           SELECT gen_random_uuid(), 'traffic_adjustment', ledger_id, bucket_start, stored_node_id,
                  account_uuid, region, line_code, 0, -rated_bytes / 2, price_per_byte,
                  multiplier, -amount_delta / 2, quota_before, balance_before,
                  pricing_rule_version, run_id, 'a test'
             FROM billing.charges"""
    )
    after = report_of(story).today
    story.connection.execute(
        "ALTER TABLE billing.charges DISABLE TRIGGER USER;"
        "DELETE FROM billing.charges WHERE entry_type = 'traffic_adjustment'"
    )
    assert (after.charged_bytes, after.amount) == (before.charged_bytes / 2, before.amount / 2)


def test_a_month_without_a_partition_needs_a_look(story: Story) -> None:
    """Its minutes are stored all the same; the next collect tries to make it."""
    assert not report_of(story).missing_partitions
    ((name, month),) = story.rows(
        "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'),"
        " to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')"
    )
    story.connection.execute(f"DROP TABLE billing.charges_{name}".encode())
    report = report_of(story)
    assert (report.missing_partitions, report.needs_attention) == ((month,), True)
    assert status_object(report)["missing_partitions"] == [month]
    assert f"no partition for the evidence of {month}" in text_of(status_parts(report))


def test_the_newest_runs_are_shown_first(story: Story) -> None:
    """Five of them, with how each ended."""
    story.add_node("jp-1")
    for _ in range(7):
        story.minute()
        story.collect()
    started = [run.started_at for run in report_of(story).runs]
    assert len(started) == 5
    assert started == sorted(started, reverse=True)
