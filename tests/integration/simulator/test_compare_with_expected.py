from __future__ import annotations

import pytest

from billing_cli.simulator.expectation import Expected
from billing_cli.simulator.invariants import compare_with_expected
from billing_cli.simulator.process import Bytes
from billing_cli.simulator.traffic import Fleet
from tests.integration.simulator.planted import NODE, planted_books

BILLED, LESS = Bytes(11, 22), Bytes(10, 20)


@pytest.mark.parametrize(
    ("node", "expected", "problems"),
    [
        (NODE, Expected(BILLED, BILLED), 0),
        (NODE, Expected(LESS, BILLED), 0),
        (NODE, Expected(LESS, LESS), 1),
        ("prod:other", Expected(BILLED, BILLED), 1),
    ],
)
def test_the_bytes_of_each_account_on_a_node_are_compared_with_what_is_expected(
    database_url: str, node: str, expected: Expected, problems: int
) -> None:
    """An exact figure or an interval, whatever the minute and tag; unknown users pay nothing."""
    unknown = Fleet(seed=9).new_uuid()
    with planted_books(database_url) as planted:
        wanted = {planted.account: expected, unknown: Expected(BILLED, BILLED)}
        found = compare_with_expected(planted.connection, node, wanted)
        assert len(found) == problems
        assert all(planted.account in one for one in found)
