"""Which restarts show in a node's snapshots, where there are several."""

from __future__ import annotations

import pytest

from billing_cli.core.times import MINUTE
from billing_cli.simulator.restarts import restarts_in
from billing_cli.simulator.traffic import Fleet


@pytest.mark.parametrize(("total", "visibility"), [(10, "ambiguous"), (0, "shown")])
def test_another_restart_that_does_not_show_leaves_the_first_one_open(
    total: int, visibility: str
) -> None:
    """All counters are back above their totals of before both: nothing tells that they began."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    stream = node.add_stream(fleet.add_user().uuid)
    for minute, flowed in enumerate((9, 1, total)):
        if minute:
            node.restart_xray(fleet.start + minute * MINUTE)
        node.flow(stream, flowed, flowed)
        node.snapshot(fleet.start + minute * MINUTE)
    assert next(restarts_in(node.snapshots)).visibility == visibility
