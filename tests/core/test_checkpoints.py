"""What an account's streams on a node come to."""

from __future__ import annotations

import pytest

from billing_cli.core.checkpoints import sum_by_account
from billing_cli.core.model import MAX_TOTAL, Checkpoint, Totals
from billing_cli.core.times import parse_rfc3339

EARLY, LATE = parse_rfc3339("2026-04-08T12:00:00Z"), parse_rfc3339("2026-04-08T12:01:00Z")


def test_streams_of_an_account_are_summed() -> None:
    """Totals are added, the last stamp and the highest epoch count; others are by themselves."""
    assert sum_by_account(
        [
            ("a", Checkpoint(EARLY, Totals(1, 20), 3)),
            ("b", Checkpoint(LATE, Totals(7, 7), 9)),
            ("b", Checkpoint(EARLY, Totals(1, 2), 8)),
            ("a", Checkpoint(LATE, Totals(300, 4000), 2)),
            ("a", Checkpoint(EARLY, Totals(50000, 600000), 4)),
        ]
    ) == {
        "a": Checkpoint(LATE, Totals(50301, 604020), 4),
        "b": Checkpoint(LATE, Totals(8, 9), 9),
    }


@pytest.mark.parametrize(
    ("totals", "sums"),
    [
        (Totals(MAX_TOTAL - 1, 1), Totals(MAX_TOTAL, 2)),
        (Totals(MAX_TOTAL, MAX_TOTAL - 1), Totals(MAX_TOTAL, MAX_TOTAL)),
        (Totals(1, MAX_TOTAL), Totals(2, MAX_TOTAL)),
    ],
)
def test_a_sum_that_no_counter_could_carry_is_the_largest(totals: Totals, sums: Totals) -> None:
    """The column of the sum is no larger than those of its parts."""
    streams = [("a", Checkpoint(EARLY, totals)), ("a", Checkpoint(EARLY, Totals(1, 1)))]
    assert sum_by_account(streams)["a"].totals == sums
