"""What an audit tells that is no error: what others may rightly change."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.simulator.accounts import save_users
from tests.integration.audit.full_story import kinds
from tests.integration.takeover.test_takeover import OlderWriter

if TYPE_CHECKING:
    from tests.integration.audit.full_story import FullStory


def test_a_top_up_is_a_notice_with_its_amount(billed: FullStory) -> None:
    """A balance that someone else changed is told, wherever in time that was."""
    charged = billed.users[0].uuid
    top_up = "UPDATE public.account_quota_states SET current_balance = current_balance + 12.5"
    for stream in billed.streams:
        billed.node.flow(stream, 1000, 1000)
    billed.node.snapshot(billed.minutes(21))
    billed.execute(top_up)
    billed.catch_up(billed.minutes(22.7))
    billed.execute(top_up)

    report = billed.audit()

    assert kinds(report) == {"balance_outside": 2 * len(billed.users)}
    found = [finding for finding in report.findings if finding.account_uuid == charged]
    assert [one.found["difference"] for one in found] == [Decimal("12.5"), Decimal("12.5")]
    assert "found_at" in found[0].keys  # Between two charges ...
    assert "found_at" not in found[1].keys  # ... and after the last one.
    account = next(one for one in report.accounts if one.account_uuid == charged)
    assert account.outside == 25
    assert account.opening_balance == 5


@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_a_row_of_no_time_stops_no_audit(billed: FullStory, moment: str) -> None:
    """It explains no change of a balance, and takes nothing from the other accounts."""
    charged = billed.users[0].uuid
    billed.execute(
        "INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,"
        " rated_bytes, amount_delta, balance_after, created_at)"
        f" SELECT gen_random_uuid(), '{charged}', now(), now(), 'topup', 0, 1, 0, '{moment}'"
    )
    report = billed.audit()
    assert len(report.accounts) == len(billed.users)
    assert {finding.account_uuid for finding in report.findings} <= {charged}


def test_a_renewed_quota_is_a_notice_with_its_bytes(billed: FullStory) -> None:
    """A quota that someone else changed is told."""
    billed.execute("UPDATE public.account_quota_states SET remaining_included_quota = 7")

    report = billed.audit()

    assert kinds(report) == {"quota_outside": len(billed.users)}
    assert {finding.found["difference"] for finding in report.findings} == {7}


def test_a_deleted_account_is_a_notice(billed: FullStory) -> None:
    """Its facts are gone with it, its evidence stays and agrees with itself."""
    gone = billed.users[1].uuid
    with psycopg.connect(billed.database_url) as connection:
        connection.execute("DELETE FROM public.users WHERE uuid = %s", (gone,))

    report = billed.audit()

    assert kinds(report) == {"account_deleted": 1}
    assert report.findings[0].account_uuid == gone
    assert billed.audit(account=gone).totals.recorded_bytes > 0


def test_an_account_that_is_created_again_is_a_notice(billed: FullStory) -> None:
    """The rows that its deletion cascaded to are not missed; what follows is audited as ever."""
    again = billed.users[1].uuid
    with psycopg.connect(billed.database_url) as connection:
        connection.execute("DELETE FROM public.users WHERE uuid = %s", (again,))
        save_users(connection, billed.users)

    report = billed.audit()

    assert kinds(report) == {"account_recreated": 1}
    assert report.findings[0].account_uuid == again
    assert kinds(billed.audit(account=again)) == {"account_recreated": 1}

    for stream in billed.streams:
        billed.node.flow(stream, 1000, 1000)
    billed.node.snapshot(billed.minutes(21))
    billed.catch_up(billed.minutes(22.7))
    assert billed.audit().violations == 0
    billed.damage(
        "DELETE FROM public.billing_ledger WHERE account_uuid = (SELECT max(account_uuid::text)"
        "::uuid FROM billing.charges WHERE bucket_start ="
        " (SELECT max(bucket_start) FROM billing.charges))"
    )
    assert "ledger_missing" in kinds(billed.audit())


def test_the_checkpoint_of_an_idle_account_may_go_with_it(story: FullStory) -> None:
    """One that moved nothing since it was first seen has no evidence that tells of its deletion."""
    *others, idle = story.streams[:3]
    for stream in (*others, idle):
        story.node.flow(stream, 1000, 1000)
    story.node.snapshot(story.minutes(1))
    story.catch_up(story.minutes(2))
    for stream in others:
        story.node.flow(stream, 1000, 1000)
    story.node.snapshot(story.minutes(3))
    story.catch_up(story.minutes(4))
    with psycopg.connect(story.database_url) as connection:
        connection.execute("DELETE FROM public.users WHERE uuid = %s", (idle.name.sample_uuid,))
        save_users(connection, story.users)

    assert story.audit().violations == 0


def test_charges_stamped_out_of_order_are_no_notice(billed: FullStory) -> None:
    """Runs that wait for each other stamp their charges before they wait for an account."""
    billed.damage(
        "UPDATE billing.charges AS charge SET created_at = other.created_at"
        "  FROM billing.charges AS other, (SELECT array_agg(ledger_id ORDER BY created_at)"
        "         AS ids FROM billing.charges GROUP BY account_uuid LIMIT 1) AS of"
        " WHERE (charge.ledger_id, other.ledger_id)"
        "    IN ((of.ids[1], of.ids[2]), (of.ids[2], of.ids[1]), (of.ids[4], of.ids[6]),"
        "        (of.ids[6], of.ids[4]))"
    )

    assert kinds(billed.audit()) == {}


def test_what_an_older_writer_left_is_a_notice(billed: FullStory) -> None:
    """Its ledger rows and buckets have no evidence of ours, and need none."""
    billed.execute(
        "INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end,"
        " entry_type, rated_bytes, amount_delta, balance_after, created_at)"
        " SELECT gen_random_uuid(), uuid, at, at + interval '1 minute', 'traffic_charge', 10,"
        " -0.5, 0, at + interval '1 minute'"
        " FROM public.users, generate_series('2026-04-08 10:00Z'::timestamptz,"
        " '2026-04-08 11:59Z', '1 minute') AS at;"
        "INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid,"
        " uplink_bytes, downlink_bytes, total_bytes)"
        " SELECT bucket_start, 'prod:jp-1.example', account_uuid, 4, 6, 10"
        " FROM public.billing_ledger WHERE bucket_start < '2026-04-08 12:00Z'",
    )

    report = billed.audit()

    accounts = len(billed.users)
    assert kinds(report) == {"other_writer_ledger": accounts, "other_writer_buckets": accounts}
    ledger = next(finding for finding in report.findings if finding.kind == "other_writer_ledger")
    assert (ledger.found["rows"], ledger.found["amount_delta"]) == (120, Decimal(-60))


def test_taking_over_from_an_older_writer_leaves_notices_alone(story: FullStory) -> None:
    """Its minutes, its totals and its balance are no violation; damage to ours still is one."""
    story.quota = 0
    story.register_stranger()
    story.node.run(story.end, poll_seconds=60)
    older = OlderWriter(story)
    older.play(story.minutes(8))
    for at, accounts in older.readings(story.minutes(10), since=story.minutes(8)):
        for account, totals in accounts.items():
            older.charge(at, account, totals)  # And killed before it wrote its checkpoints.
    older.connection.close()
    story.catch_up(story.end)

    report = story.audit()

    assert report.counts.keys() <= {
        "other_writer_ledger",
        "other_writer_buckets",
        "shared_minutes",
    }
    assert report.counts["other_writer_ledger"] == len(story.users)

    story.execute(
        "UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1"
        " WHERE bucket_start = (SELECT max(bucket_start) FROM public.traffic_minute_buckets)"
    )
    assert story.audit().counts["bucket_differs"] > 0


@pytest.mark.parametrize("lost", ["", "traffic_minute_buckets"])
def test_an_older_writer_without_checkpoints_leaves_notices_alone(
    story: FullStory, lost: str
) -> None:
    """What it charged is its own, with buckets and without; what we charged is still proven."""
    story.quota = 0
    story.register_stranger()
    story.node.run(story.end, poll_seconds=60)
    older = OlderWriter(story)
    older.play(story.minutes(8))
    older.connection.execute(
        "TRUNCATE traffic_stat_checkpoints, billing_source_sync_state" + (lost and f", {lost}")
    )
    older.connection.close()
    story.catch_up(story.end)

    report = story.audit()

    assert report.violations == 0
    assert report.counts["other_writer_ledger"] == len(story.users)

    story.damage("DELETE FROM billing.charges")
    damaged = story.audit().counts
    assert damaged["ledger_unproven"] > 0
    assert damaged["charges_differ"] > 0


def test_a_bucket_of_ours_that_is_dated_back_is_still_proven(billed: FullStory) -> None:
    """It is not a legacy writer's, because the first charge for its minute is ours."""
    billed.damage(
        "UPDATE public.traffic_minute_buckets SET created_at = created_at - interval '1 year',"
        " uplink_bytes = uplink_bytes + 5, total_bytes = total_bytes + 5"
        " WHERE ctid = (SELECT min(ctid) FROM public.traffic_minute_buckets)"
    )
    assert billed.audit().counts == {"bucket_differs": 1}
