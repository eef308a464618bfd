from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.simulator.stamps import format_stamp, moment_of, nanoseconds_of, parse_stamp

NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "2026-04-08T12:00:00Z"),
        (500_000_000, "2026-04-08T12:00:00.5Z"),
        (123_456_789, "2026-04-08T12:00:00.123456789Z"),
        (1, "2026-04-08T12:00:00.000000001Z"),
    ],
)
def test_stamps_carry_the_digits_they_need(nanoseconds: int, text: str) -> None:
    """Exporters write no trailing zeros, so anything from 0 to 9 digits is met."""
    assert format_stamp(nanoseconds_of(NOON) + nanoseconds) == text


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_a_stamp_survives_its_text(nanoseconds: int) -> None:
    """Nothing of the nine digits is lost on the way through RFC 3339."""
    assert parse_stamp(format_stamp(nanoseconds)) == nanoseconds


def test_a_moment_is_the_stamp_cut_to_microseconds() -> None:
    """The digits beyond microseconds are cut, never rounded up."""
    stamp = nanoseconds_of(NOON) + 999_999_999
    assert moment_of(stamp) == NOON.replace(microsecond=999_999)
