from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator.traffic import Fleet
from billing_cli.simulator.wire import WindowQuery, window_page

if TYPE_CHECKING:
    from billing_cli.simulator.wire import Order


@pytest.mark.parametrize(
    ("order", "told"),
    [("rising", [0, 1, 2]), ("twice", [0, 0, 1, 1, 2, 2]), ("reversed", [2, 1, 0])],
)
def test_a_page_tells_its_snapshots_in_the_order_that_is_asked_for(
    order: Order, told: list[int]
) -> None:
    """Twice or backwards, the cursor stays that of the page in its right order."""
    node = Fleet().add_node("jp-1")
    taken = [node.snapshot(node.start + timedelta(minutes=n)) for n in range(4)]
    query = WindowQuery(0, 2**63, 3, "")
    page = json.loads(window_page(node, taken, query, "after", order=order))
    right = json.loads(window_page(node, taken, query, "after"))
    stamps = [one["collected_at"] for one in right["snapshots"]]
    assert [one["collected_at"] for one in page["snapshots"]] == [stamps[n] for n in told]
    assert page["next_cursor"] == right["next_cursor"]
