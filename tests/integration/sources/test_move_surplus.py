"""What a revoked restart charged beyond goes along when a node gets another id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.features.audit.job import audit
from billing_cli.features.sources.job import move_source

if TYPE_CHECKING:
    from tests.support.story import Story

READ_SURPLUS = """
SELECT state, surplus_uplink FROM billing.streams WHERE surplus_uplink IS NOT NULL
"""
FORMER = "jp-1.svc.plus"


@pytest.mark.parametrize(
    "moves",
    [
        [("b", 10_100)],
        [("b", 10_100), (FORMER, 10_100)],
        [("b", 10_150), (FORMER, 10_250)],
        [("b", 10_700), (FORMER, 10_900)],
    ],
    ids=["once", "there and back", "and some is absorbed", "and all is absorbed"],
)
def test_growth_is_not_charged_again_after_a_move(
    story: Story, moves: list[tuple[str, int]]
) -> None:
    """A restart charged 300 bytes, then it was revoked, and 100 bytes had flowed."""
    node = story.add_node("jp-1")
    stream = node.add_stream(story.add_user().uuid, "x")

    def tell(total: int) -> int:
        stream.uplink_total = total
        story.minute()
        assert story.collect().status == "ok"
        assert audit(story.context()).findings == ()
        ((charged,),) = story.rows(
            "SELECT coalesce(sum(total_bytes), 0) FROM public.traffic_minute_buckets"
        )
        return int(charged)

    baseline = 10_000
    assert [tell(total) for total in (baseline, 100, 300, 10_100)][-1] == 300
    assert story.rows(READ_SURPLUS) == [("active", 200)]
    for name, total in moves:
        node.rename(name)
        moved = move_source(story.context(), "jp-1", f"prod:{name}", is_same_counters=True)
        assert moved.status == "ok"
        assert tell(total) == max(300, total - baseline)
        left = 300 - (total - baseline)
        assert story.rows(READ_SURPLUS) == ([("active", left)] if left > 0 else [])
    assert tell(11_500) == 1_500
