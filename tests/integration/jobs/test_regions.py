"""A region that is configured anew: minutes that are on record keep theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.jobs.reconcile import reconcile
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import Node, Stream, User
    from tests.support.story import Story

READ_BUCKETS = """
SELECT region, uplink_bytes, downlink_bytes FROM public.traffic_minute_buckets
 WHERE bucket_start = %s ORDER BY 1
"""


class Late:
    """An account in region zz whose proxy uuid is known only after the region was changed to aa."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.user: User = story.add_user()
        self.node: Node = story.add_node("jp-1")
        self.proxy = story.fleet.new_uuid()
        self.own: Stream = self.node.add_stream(self.user.uuid, "xhttp")
        self.late: Stream = self.node.add_stream(self.proxy, "xhttp")
        story.region = "zz"
        story.minute()

    def settle(self) -> None:
        """Collect; then let the region change, the proxy uuid be known, and collect again."""
        self.story.collect()
        self.story.region = "aa"
        self.story.connection.execute(
            "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s", (self.proxy, self.user.uuid)
        )
        self.story.minute()
        self.story.collect()

    def assert_charged(self, size_bytes: int) -> None:
        """The account has paid for so many bytes, and an audit finds nothing."""
        assert self.story.paid(self.user) == size_bytes * self.story.price
        assert audit(self.story.context()).violations == 0


@pytest.fixture
def late(story: Story) -> Late:
    """Return the account, before its first minute."""
    return Late(story)


@pytest.fixture
def of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let late usage be charged in the region of today, as version 0.2.0 did."""
    monkeypatch.setattr(
        "billing_cli.jobs.step.late_in_recorded_regions",
        lambda _connection, late, regions, default_region: [
            usage._replace(region=regions.get(usage.source_id, default_region)) for usage in late
        ],
    )


def test_late_usage_goes_to_the_region_that_is_on_record(story: Story, late: Late) -> None:
    """A minute that was not charged has today's region."""
    first = story.minute((late.own, 100, 0), (late.late, 70, 0))
    second = story.minute((late.late, 5, 0))
    late.settle()
    assert story.rows(READ_BUCKETS, first) == [("zz", 170, 0)]
    assert story.rows(READ_BUCKETS, second) == [("aa", 5, 0)]
    late.assert_charged(175)


@pytest.mark.usefixtures("of_today")
def test_reverse_takes_from_each_region_what_it_charged(story: Story, late: Late) -> None:
    """No bucket falls below 0, and all money goes back."""
    minute = story.minute((late.own, 10, 90), (late.late, 60, 10))
    late.settle()
    assert story.rows(READ_BUCKETS, minute) == [("aa", 60, 10), ("zz", 10, 90)]
    result = reverse(story.context(), Order("jp-1", START, None, None, "it was compromised"))
    assert result.status == "ok"
    assert story.rows(READ_BUCKETS, minute) == [("aa", 0, 0), ("zz", 0, 0)]
    late.assert_charged(0)
    assert reconcile(story.context(), since=START).corrections == 2
    late.assert_charged(170)


@pytest.mark.usefixtures("of_today")
def test_reconcile_takes_from_each_region_what_it_charged(story: Story, late: Late) -> None:
    """Bytes that belong to another minute leave as many in each bucket as it had at least."""
    first = story.minute((late.own, 100, 0), (late.late, 300, 0))
    late.node.withhold(first, first + MINUTE, START + 10 * MINUTE)
    second = story.minute((late.own, 20, 0), (late.late, 5, 0))
    late.settle()
    assert story.rows(READ_BUCKETS, second) == [("aa", 305, 0), ("zz", 120, 0)]
    while story.now < START + 10 * MINUTE:
        story.minute()
    assert reconcile(story.context(), since=START).corrections == 4
    assert story.rows(READ_BUCKETS, first) == [("aa", 400, 0)]
    assert story.rows(READ_BUCKETS, second) == [("aa", 0, 0), ("zz", 25, 0)]
    late.assert_charged(425)
