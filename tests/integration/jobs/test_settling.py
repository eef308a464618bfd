"""Usage that waits is charged in the end, whatever became of its node or of others."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.database import sources
from billing_cli.features.audit.job import audit
from billing_cli.jobs.collect import collect
from billing_cli.simulator.accounts import save_users

if TYPE_CHECKING:
    import pytest

    from billing_cli.simulator.traffic import Node, User
    from tests.support.story import Story

READ_BUCKETS = """
SELECT node_id, total_bytes::bigint FROM public.traffic_minute_buckets WHERE account_uuid = %s
 ORDER BY bucket_start
"""
NAN = Decimal("NaN")

READ_WAITING = "SELECT count(*) FROM billing.pending_usage WHERE billed_at IS NULL"


def set_balance(story: Story, user: User, balance: Decimal) -> None:
    """Write a balance; NaN is one that money can't be computed with."""
    story.connection.execute(
        "UPDATE public.account_quota_states SET current_balance = %s WHERE account_uuid = %s",
        (balance, user.uuid),
    )


def let_usage_wait(story: Story, user: User, node: Node) -> None:
    """Charge 10 bytes of a user, and have 5,000 more that can't be charged."""
    stream = node.add_stream(user.uuid, "x")
    story.minute()
    story.minute((stream, 10, 0))
    story.collect()
    set_balance(story, user, NAN)
    story.minute((stream, 5_000, 0))
    story.collect()


def test_usage_that_waits_is_charged_though_its_node_was_replaced(story: Story) -> None:
    """The account could not be charged before the source got another node."""
    user, node = story.add_user(), story.add_node("jp-1")
    let_usage_wait(story, user, node)
    other = story.add_node("jp-2")
    stream = other.add_stream(user.uuid, "x")
    for balance in (NAN, Decimal("4.99")):
        set_balance(story, user, balance)
        story.minute((stream, 7, 0))
        context = story.context()
        first, second = context.sources
        source = replace(first, base_url=second.base_url, expected_node_id=second.expected_node_id)
        assert collect(replace(context, sources=(source,))).status in {"ok", "partial"}
    assert story.rows(READ_WAITING) == [(0,)]
    former, present = node.identity.stored, other.identity.stored
    assert story.rows(READ_BUCKETS, user.uuid) == [(former, 10), (former, 5_000), (present, 7)]
    assert audit(story.context()).findings == ()


def test_a_run_that_charges_what_waited_is_no_failed_one_though_its_source_fails(
    story: Story,
) -> None:
    """Exit code 1 says that nothing is stored."""
    user, node = story.add_user(), story.add_node("jp-1")
    let_usage_wait(story, user, node)
    set_balance(story, user, Decimal("4.99"))
    story.running["jp-1"].down = True
    result = story.collect()
    assert (result.status, result.written_minutes) == ("partial", 1)
    assert [source.status for source in result.sources] == ["error"]


def test_usage_that_waits_is_charged_though_its_source_is_gone(story: Story) -> None:
    """A source that no run asked for a day is not waited for."""
    user, node, other = story.add_user(), story.add_node("jp-1"), story.add_node("us-1")
    other.add_stream(user.uuid, "x")
    let_usage_wait(story, user, node)
    set_balance(story, user, Decimal("4.99"))
    waiting = []
    for hours in (23, 2):
        story.now += timedelta(hours=hours)
        story.minute()
        context = story.context()
        collect(replace(context, sources=context.sources[1:]))
        waiting += story.rows(READ_WAITING)
    assert waiting == [(1,), (0,)]
    stored = node.identity.stored
    assert story.rows(READ_BUCKETS, user.uuid) == [(stored, 10), (stored, 5_000)]


def test_usage_that_can_t_be_charged_keeps_no_other_from_being_settled(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of it waits than a run looks at: streams take turns."""
    monkeypatch.setattr(sources, "MAX_BILLABLE_RECORDS", 2)
    unusable, node = story.add_user(), story.add_node("jp-1")
    streams = [node.add_stream(unusable.uuid, f"x{number}") for number in range(2)]
    unknown = node.add_stream(story.fleet.new_uuid(), "x")
    story.minute()
    story.minute((streams[0], 1, 0))
    story.collect()
    set_balance(story, unusable, NAN)
    for _ in range(3):
        story.minute(*((stream, 1, 0) for stream in streams))
        story.collect()
    story.minute((unknown, 10, 0))
    story.collect()
    late = story.fleet.add_user(unknown.name.sample_uuid)
    save_users(story.connection, [late])
    # Each run begins with any of the three.
    for _ in range(60):
        story.minute()
        story.collect()
        if story.rows(READ_BUCKETS, late.uuid):
            break
    assert story.rows(READ_BUCKETS, late.uuid) == [(node.identity.stored, 10)]
    set_balance(story, unusable, Decimal("4.999"))
    for _ in range(6):
        story.collect()
    assert story.rows(READ_WAITING) == [(0,)]
