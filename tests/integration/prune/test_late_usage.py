"""Usage that waited for its account until its month was pruned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from billing_cli.database.connecting import Database
from billing_cli.features.audit.job import audit
from billing_cli.features.prune.job import prune
from tests.support.story import open_story

MAY = datetime(2026, 5, 1, tzinfo=UTC)


def test_it_is_charged_in_the_first_minute_that_is_kept(database_url: str, job_url: str) -> None:
    """Nobody knows any more who charged its own minute, and what corrected it."""
    with open_story(database_url, job_url) as story:
        user, node = story.add_user(), story.add_node("jp-1")
        proxy_uuid = story.fleet.new_uuid()
        stream, other = node.add_stream(user.uuid, "x"), node.add_stream(proxy_uuid, "x")
        story.minute()
        story.minute((stream, 100, 0), (other, 70, 0))
        story.collect()
        later = replace(
            story.context(),
            database=Database(story.database_url),
            clock=lambda: datetime(2026, 7, 1, 12, tzinfo=UTC),
        )
        prune(later, 1, is_unproven_meant=True, is_archive_waived=True, is_dropping=False)
        story.connection.execute(
            "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s", (proxy_uuid, user.uuid)
        )
        story.minute((stream, 1, 0))
        story.collect()
        waiting = story.rows("SELECT FROM billing.pending_usage WHERE billed_at IS NULL")
        assert waiting == []
        charged = story.rows(
            "SELECT bucket_start, total_bytes::bigint FROM public.traffic_minute_buckets"
            " ORDER BY total_bytes"
        )
        assert charged == [(story.now, 1), (MAY, 70), (charged[2][0], 100)]
        assert [one for one in audit(story.context()).findings if one.is_violation] == []
