from __future__ import annotations

from datetime import timedelta

import pytest

from billing_cli.simulator.limits import Limits, held_minutes
from billing_cli.simulator.process import Bytes
from billing_cli.simulator.scenarios.library import BY_NAME
from billing_cli.simulator.scenarios.playing import play
from billing_cli.simulator.traffic import Fleet

MINUTE = timedelta(minutes=1)
BYTE_A_SECOND = Limits(account_rate=8, line_rate=16)
DAY = 24 * 60


@pytest.mark.parametrize(
    ("at", "held"),
    [
        pytest.param({1: {"a": 60}}, [], id="all at the rate"),
        pytest.param({1: {"a": 61}}, [("a", 61)], id="a byte above it"),
        pytest.param({1: {"a": 60}, 2: {"a": 61}}, [("a", 61)], id="spent before"),
        pytest.param({1: {"a": 0}, 2: {"a": 120}}, [], id="saved before"),
        pytest.param({1: {"a": 61}, 2: {"a": 120}}, [("a", 61)], id="held bytes spend nothing"),
        pytest.param({DAY: {"a": 7201}}, [("a", 7201)], id="two hours are the most"),
        pytest.param(
            {1: {"a": 60, "b": 60, "c": 1}},
            [("a", 60), ("b", 60), ("c", 1)],
            id="above the rate of the node",
        ),
        pytest.param(
            {1: {"a": 61, "b": 60, "c": 60}}, [("a", 61)], id="the node without what is held"
        ),
    ],
)
def test_a_minute_above_the_credit_is_held(
    at: dict[int, dict[str, int]], held: list[tuple[str, int]]
) -> None:
    """An account's minute, or the node's with all its accounts; credit begins at 0."""
    node = Fleet().add_node("jp-1")
    read = [node.snapshot(node.start)]
    movements = []
    for minute, accounts in at.items():
        read.append(node.snapshot(node.start + minute * MINUTE))
        movements += [(read[-1], name, Bytes(0, amount)) for name, amount in accounts.items()]
    found = held_minutes(BYTE_A_SECOND, read, movements)
    assert [(account, sum(amount)) for account, amount in found] == held
    assert list(held_minutes(Limits(0, 0), read, movements)) == []


def test_what_a_spliced_connection_reports_is_held_soon_after_the_baseline_only() -> None:
    """The same 40 GB are plausible after an hour."""
    for name, is_held in (
        ("spliced_connection", False),
        ("spliced_connection_soon_after_baseline", True),
    ):
        played = play(BY_NAME[name])
        expected = played.expected(played.moments)[played.stage.users["alice"].uuid]
        held = [
            sum(exemption.bytes) for exemption in expected.exemptions if exemption.why == "held"
        ]
        assert [amount > 40 * 10**9 for amount in held] == ([True] if is_held else [])
