"""Exporters that publish other names while a user of theirs moves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator.publication import as_counted, both, in_turn, merged, with_uuids

if TYPE_CHECKING:
    from tests.support.story import Story

READ_BUCKETS = """
SELECT total_bytes::bigint FROM public.traffic_minute_buckets WHERE account_uuid = %s
 ORDER BY bucket_start
"""


@pytest.mark.parametrize("bytes_moved", [0, 3])
def test_a_counter_of_an_idle_user_that_is_published_twice_is_charged_once(
    story: Story, bytes_moved: int
) -> None:
    """By its proxy uuid as before, and by the account's in addition."""
    user, busy, node = story.add_user(), story.add_user(), story.add_node("jp-1")
    stream, other = node.add_stream(user.proxy_uuid, "x"), node.add_stream(busy.uuid, "x")
    story.minute()
    story.minute((stream, 100, 200), (other, 5, 5))
    story.collect()
    node.naming = both(as_counted, in_turn(with_uuids({user.proxy_uuid: user.uuid}), merged))
    story.minute((stream, bytes_moved, 0), (other, 5, 5))
    story.collect()
    charged = [(300,), (bytes_moved,)] if bytes_moved else [(300,)]
    assert story.rows(READ_BUCKETS, user.uuid) == charged


def test_an_idle_user_goes_on_after_an_upgrade_that_was_rolled_back(story: Story) -> None:
    """The names change twice while nothing moves; what moves afterwards is charged."""
    user, busy, node = story.add_user(), story.add_user(), story.add_node("jp-1")
    stream, other = node.add_stream(user.proxy_uuid, "x"), node.add_stream(busy.uuid, "x")
    story.minute()
    story.minute((stream, 100, 200), (other, 5, 5))
    story.collect()
    for naming in (in_turn(with_uuids({user.proxy_uuid: user.uuid}), merged), as_counted):
        node.naming = naming
        story.minute((other, 5, 5))
        story.collect()
    story.minute((stream, 1_000, 1_000), (other, 5, 5))
    story.collect()
    assert story.rows(READ_BUCKETS, user.uuid) == [(300,), (2_000,)]
