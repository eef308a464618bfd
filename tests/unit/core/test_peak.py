"""Peak hours as text: what is read of a range, and what is said of a wrong one."""

from __future__ import annotations

from datetime import UTC, datetime, time

import pytest

from billing_cli.core.peak import PeakHours, parse_ranges


def test_ranges_have_minutes_at_both_ends() -> None:
    """Each of the four figures is read for itself."""
    assert parse_ranges("18:15-23:45, 06:07-08:09") == (
        (time(18, 15), time(23, 45)),
        (time(6, 7), time(8, 9)),
    )
    peak = PeakHours(parse_ranges("18:15-23:45"), UTC)
    assert not peak.contains(datetime(2026, 4, 8, 18, 14, 59, tzinfo=UTC))
    assert peak.contains(datetime(2026, 4, 8, 18, 15, tzinfo=UTC))


def test_a_range_may_be_a_single_minute_long_or_short_of_a_day_by_one() -> None:
    """Only a range that ends just where it starts is refused as empty."""
    assert parse_ranges("18:00-18:01") == ((time(18), time(18, 1)),)
    assert parse_ranges("18:01-18:00") == ((time(18, 1), time(18)),)


def test_a_wrong_range_is_named_in_part_only() -> None:
    """A long text does not fill the log, and the part is told that is wrong."""
    with pytest.raises(ValueError, match="is not a range") as refused:
        parse_ranges(f"18:00-19:00, {'9' * 1_000}")
    assert str(refused.value) == f"'{'9' * 40}' is not a range such as 18:00-23:30"


def test_an_empty_range_is_refused_with_what_may_have_been_meant() -> None:
    """From an hour to itself could be nothing or everything, so it has to be said."""
    with pytest.raises(ValueError, match="is empty") as refused:
        parse_ranges("18:30-18:30")
    assert str(refused.value) == "'18:30-18:30' is empty (00:00-24:00 is the whole day)"
