"""Late minutes that used the quota of a former period, in a month that was pruned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from billing_cli.database.connecting import Database
from billing_cli.features.audit.job import audit
from billing_cli.features.prune.job import prune
from billing_cli.features.repair.job import repair_balances
from billing_cli.simulator import read_service
from tests.support.story import open_story

MAY = datetime(2026, 5, 1, tzinfo=UTC)
MONTH = timedelta(days=31)


def test_they_are_no_lost_charges(database_url: str, job_url: str) -> None:
    """The stored quota was that of the present period, which they did not touch."""
    with open_story(database_url, job_url) as story:
        read_service.add_period_columns(story.connection)
        story.connection.execute("GRANT SELECT, UPDATE ON public.account_quota_states TO PUBLIC")
        story.quota = 1_000
        user, node = story.add_user(), story.add_node("jp-1")
        proxy_uuid = story.fleet.new_uuid()
        stream, late = node.add_stream(user.uuid, "x"), node.add_stream(proxy_uuid, "x")
        story.minute()
        story.minute((stream, 400, 0), (late, 50, 0))
        story.collect()
        story.now = MAY + timedelta(hours=12)
        read_service.renew_quota(story.connection, user.uuid, 1_000, MAY, MAY + MONTH)
        story.minute((stream, 10, 0))
        story.collect()
        story.connection.execute(
            "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s", (proxy_uuid, user.uuid)
        )
        for _ in range(2):
            story.minute((stream, 10, 0))
            story.collect()
        assert audit(story.context()).findings == ()
        later = replace(
            story.context(),
            database=Database(story.database_url),
            clock=lambda: datetime(2026, 7, 1, 12, tzinfo=UTC),
        )
        prune(later, 1, is_unproven_meant=True, is_archive_waived=True, is_dropping=False)

        assert [one.kind for one in audit(story.context()).findings] == []
        assert repair_balances(story.context(), "none was lost").corrections == 0
        assert story.funds(user).quota == 970
