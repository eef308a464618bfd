"""Usage of an account that was deleted and created again, beside what its former life was charged.

The evidence of a former life stays, and has the ids of its minutes: nothing is added to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.errors import BillingError
from billing_cli.features.audit.job import audit
from billing_cli.features.held.job import list_held, reject_held, release_held
from billing_cli.features.verify.job import verify
from billing_cli.simulator.accounts import save_users
from tests.support.story import MINUTE, open_story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from billing_cli.core.result import RunResult
    from billing_cli.simulator.traffic import Node, Stream, User
    from tests.support.story import Story

WAITING = "SELECT count(*) FROM billing.pending_usage WHERE billed_at IS NULL"
NOTE = "was deleted and created again"


class Reborn:
    """A user whose proxy uuid is not known yet, and another user, on one node."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.user, self.other = story.add_user(), story.add_user()
        self.node: Node = story.add_node("jp-1")
        self.proxy_uuid = story.fleet.new_uuid()
        self.own = self.node.add_stream(self.user.uuid, "x")
        self.proxy = self.node.add_stream(self.proxy_uuid, "x")
        self.others = self.node.add_stream(self.other.uuid, "x")
        story.minute()

    def charge(self, *moves: tuple[Stream, int, int]) -> datetime:
        """Let bytes flow for a minute and collect; return the minute."""
        at = self.story.minute(*moves)
        assert self.story.collect().status == "ok"
        return at

    def create_again(self) -> None:
        """Delete the account, and create it with its proxy uuid."""
        self.story.connection.execute("DELETE FROM public.users WHERE uuid = %s", (self.user.uuid,))
        save_users(self.story.connection, [self.user])
        self.story.connection.execute(
            "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s",
            (self.proxy_uuid, self.user.uuid),
        )

    def buckets(self, user: User) -> list[tuple[Any, ...]]:
        """Return the minutes of a user, and the bytes of each."""
        return self.story.rows(
            "SELECT bucket_start, total_bytes::bigint FROM public.traffic_minute_buckets"
            " WHERE account_uuid = %s ORDER BY 1",
            user.uuid,
        )

    def collect_after(self, *moves: tuple[Stream, int, int]) -> RunResult:
        """Let bytes flow for a minute, and collect."""
        self.story.minute(*moves)
        return self.story.collect()


@pytest.fixture
def reborn(database_url: str, job_url: str) -> Iterator[Reborn]:
    """Return an account to be created again; afterwards the books agree, and stay as they are."""
    with open_story(database_url, job_url) as story:
        told = Reborn(story)
        yield told
        before = told.story.facts()
        told.story.collect()
        assert told.story.facts() == before
        found = audit(told.story.context()).findings
        assert [one for one in found if one.is_violation] == []
        assert verify(told.story.context()).findings == []
        assert told.story.rows(
            "SELECT sum(uplink_end - uplink_start)::bigint FROM billing.usage_records"
        ) == told.story.rows(
            "SELECT sum(included_bytes + rated_bytes)::bigint FROM billing.charges"
        )


def test_late_usage_of_a_minute_that_was_charged_before_waits_for_the_next(
    reborn: Reborn,
) -> None:
    """A note says so, and others are charged as ever."""
    reborn.charge((reborn.own, 1000, 0), (reborn.proxy, 700, 0))
    reborn.create_again()

    result = reborn.collect_after((reborn.own, 1, 0), (reborn.others, 5, 0))
    assert result.status == "partial"
    assert [NOTE in note for note in result.sources[0].notes] == [True]
    first = reborn.story.now
    assert reborn.buckets(reborn.other) == [(first, 5)]
    assert reborn.buckets(reborn.user) == [(first, 1)]

    assert reborn.collect_after((reborn.own, 2, 0)).status == "ok"
    assert reborn.buckets(reborn.user) == [(first, 701), (reborn.story.now, 2)]
    assert reborn.story.rows(WAITING) == [(0,)]
    assert reborn.story.paid(reborn.user) == 703 * reborn.story.price


def test_late_usage_of_a_minute_without_a_charge_is_billed_there(reborn: Reborn) -> None:
    """What flowed in charged ones is billed in the newest of its node, as what was held is."""
    reborn.charge((reborn.own, 1000, 0), (reborn.proxy, 700, 0))
    idle = reborn.charge((reborn.proxy, 30, 0))
    reborn.charge((reborn.proxy, 2, 0))
    reborn.charge((reborn.own, 1000, 0), (reborn.proxy, 4, 0))
    last = reborn.charge((reborn.own, 0, 0))
    reborn.create_again()
    reborn.story.collect()
    assert reborn.buckets(reborn.user) == [(idle, 30), (idle + MINUTE, 2), (last, 704)]
    assert reborn.story.rows(WAITING) == [(0,)]


def test_a_later_snapshot_of_a_minute_that_was_charged_before_is_billed_in_the_next(
    reborn: Reborn,
) -> None:
    """The minute of a watermark is over, whoever was charged in it."""
    at = reborn.charge((reborn.own, 1000, 0))
    reborn.create_again()
    reborn.node.flow(reborn.own, 7, 0)
    reborn.node.snapshot(at + MINUTE / 2)
    assert reborn.story.collect().status == "ok"
    assert reborn.collect_after().status == "ok"
    assert reborn.buckets(reborn.user) == [(reborn.story.now, 7)]


def test_a_held_delta_is_released_after_the_minutes_that_were_charged_before(
    reborn: Reborn,
) -> None:
    """Until then the release says what it waits for, and changes nothing."""
    reborn.collect_after((reborn.own, 10_000_000, 0))
    reborn.charge((reborn.own, 1000, 0))
    (held,) = list_held(reborn.story.context()).deltas
    reborn.create_again()
    before = reborn.story.facts()
    with pytest.raises(BillingError, match=NOTE):
        release_held(reborn.story.context(), [held.held_id], "an upgrade")
    assert reborn.story.facts() == before

    reborn.charge((reborn.others, 5, 0))
    release_held(reborn.story.context(), [held.held_id], "an upgrade")
    assert reborn.buckets(reborn.user) == [(reborn.story.now, 10_000_000)]


def test_a_checkpoint_that_went_with_the_former_life_is_not_missed(reborn: Reborn) -> None:
    """Another node's usage may be billed in minutes of before the deletion since."""
    other_node = reborn.story.add_node("us-1")
    late = other_node.add_stream(reborn.user.uuid, "x")
    reborn.charge()
    at = reborn.story.minute((late, 50, 0), (reborn.own, 10_000_000, 0))
    other_node.withhold(at, at + MINUTE, at + 3 * MINUTE)
    reborn.story.collect()
    (held,) = list_held(reborn.story.context()).deltas
    reject_held(reborn.story.context(), [held.held_id], "a leap")
    reborn.create_again()
    reborn.story.now += 3 * MINUTE
    reborn.story.fleet.present = reborn.story.now + 2 * MINUTE
    reborn.story.collect()
    assert reborn.buckets(reborn.user) == [(at, 50)]
