"""Minutes: which steps are one record, and what is charged or held of a minute."""

from __future__ import annotations

import pytest

from billing_cli.core.minutes import Minutes
from billing_cli.core.model import DeltaPolicy, HeldDelta, UsageRecord
from billing_cli.core.plausibility import FULL_CREDIT, NodeCredit
from tests.unit.core.stories import ALICE, BELIEVE_ALL, BOB, after_noon, record


def minutes(policy: DeltaPolicy = BELIEVE_ALL, credit: NodeCredit = FULL_CREDIT) -> Minutes:
    """Return minutes of a node on which each uuid is an account."""
    return Minutes(policy, credit, lambda name: name.sample_uuid)


FIRST = record(ALICE, ("00:30", "01:10"), (0, 0), (5, 5))


@pytest.mark.parametrize(
    ("second", "is_joined"),
    [
        pytest.param(record(ALICE, ("01:10", "01:40"), (5, 5), (7, 9)), True, id="it goes on"),
        pytest.param(record(ALICE, ("01:10", "01:40"), (5, 5), (7, 9), 1), False, id="an epoch"),
        pytest.param(record(ALICE, ("01:10", "01:40"), (4, 5), (7, 9)), False, id="taken over"),
        pytest.param(record(BOB, ("01:10", "01:40"), (5, 5), (7, 9)), False, id="another stream"),
    ],
)
def test_steps_of_a_minute_are_one_record_where_they_follow_each_other(
    second: UsageRecord, *, is_joined: bool
) -> None:
    """In one epoch of one stream; another minute is another record."""
    books = minutes()
    books.enter(after_noon("01:10"))
    books.add(FIRST, "active")
    books.enter(after_noon("01:40"))
    books.add(second, "active")
    third = record(ALICE, ("01:40", "02:10"), (7, 9), (8, 9))
    books.enter(after_noon("02:10"))
    books.add(third, "active")
    books.close()
    joined = record(ALICE, ("00:30", "01:40"), (0, 0), (7, 9))
    assert books.records == [*([joined] if is_joined else [FIRST, second]), third]


def test_duplicates_are_held_once_minute_by_minute() -> None:
    """Beside what is charged."""
    books = minutes()
    copy = FIRST._replace(name=BOB)
    books.enter(after_noon("01:10"))
    books.add(copy, "duplicate")
    books.add(FIRST, "active")
    books.enter(after_noon("02:10"))
    books.close()
    assert books.records == [FIRST]
    assert books.held == [HeldDelta(copy, "duplicate")]


def test_credit_is_that_of_a_minutes_last_snapshot() -> None:
    """110 seconds after the baseline, at a kilobyte a second."""
    policy = DeltaPolicy(
        account_rate_bits_per_second=8_000, line_rate_bits_per_second=0, burst_hours=1
    )
    for size_bytes, is_charged in ((110_000, True), (110_001, False)):
        books = minutes(policy, NodeCredit(since=after_noon("00:00")))
        books.enter(after_noon("01:00"))
        books.enter(after_noon("01:50"))
        step = record(ALICE, ("01:00", "01:50"), (0, 0), (size_bytes, 0))
        books.add(step, "active")
        books.close()
        assert books.records == ([step] if is_charged else [])
        assert books.held == ([] if is_charged else [HeldDelta(step, "account_rate")])
