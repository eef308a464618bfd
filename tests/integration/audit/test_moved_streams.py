"""Streams that have another account now: what they were charged for stays with the former one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.reverse.job import Order, reverse
from tests.integration.audit.full_story import kinds
from tests.support.story import START, told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.simulator.traffic import Stream, User
    from tests.support.story import Story


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story that begins."""
    with told_story(database_url, job_url) as begun:
        yield begun


class Moved:
    """Proxy uuids of `former` that `later` has now; `former` was charged 1000 bytes for them."""

    def __init__(self, story: Story, *, keeps_one: bool) -> None:
        self.former: User = story.add_user()
        self.later: User = story.add_user()
        node = story.add_node("jp-1")
        moving: list[Stream] = [
            node.add_stream(self.former.proxy_uuid, tag) for tag in ("tcp", "xhttp")
        ]
        if keeps_one:
            kept = node.add_stream(self.former.uuid, "xhttp")
            story.minute()
            story.minute((kept, 7, 0), (moving[0], 100, 200))
        else:
            story.minute()
            story.minute((moving[0], 100, 200))
        story.minute((moving[1], 300, 400))
        story.collect()
        give = "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s"
        story.connection.execute(give, (story.fleet.new_uuid(), self.former.uuid))
        story.connection.execute(give, (self.former.proxy_uuid, self.later.uuid))
        story.minute((moving[0], 1, 2), (moving[1], 3, 4))
        story.collect()


@pytest.mark.parametrize("keeps_one", [False, True])
def test_both_accounts_are_clean(story: Story, keeps_one: bool) -> None:
    """Also after the minutes of both were reversed."""
    moved = Moved(story, keeps_one=keeps_one)
    accounts = {moved.former.uuid: 1000 + 7 * keeps_one, moved.later.uuid: 10}
    for account, charged in accounts.items():
        report = audit(story.context(), account=account)
        assert kinds(report) == {}
        assert (report.totals.recorded_bytes, report.totals.rated_bytes) == (charged, charged)
    reverse(story.context(), Order("jp-1", START, None, None, "the node was compromised"))
    for account in (*accounts, None):
        report = audit(story.context(), account=account)
        assert kinds(report) == {}
        assert (report.totals.recorded_bytes, report.totals.rated_bytes) == (0, 0)


def test_damage_is_found_as_by_an_audit_of_everything(story: Story) -> None:
    """A bucket of the former account was changed."""
    moved = Moved(story, keeps_one=False)
    change = (
        "UPDATE public.traffic_minute_buckets"
        " SET uplink_bytes = uplink_bytes + %s, total_bytes = total_bytes + %s"
        " WHERE account_uuid = %s AND line_code = 'tcp'"
    )
    story.connection.execute(change, (5, 5, moved.former.uuid))
    found = audit(story.context(), account=moved.former.uuid).findings
    assert [finding.kind for finding in found] == ["bucket_differs"]
    assert found == audit(story.context()).findings
    story.connection.execute(change, (-5, -5, moved.former.uuid))
