"""Peak hours: half-open daily ranges of wall clock time."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo, available_timezones

import pytest

from billing_cli.core.peak import PeakHours, parse_ranges


@pytest.mark.parametrize(
    ("ranges", "clock", "peak"),
    [
        ("18:00-23:30", "17:59:59", False),
        ("18:00-23:30", "18:00:00", True),
        ("18:00-23:30", "23:29:59", True),
        ("18:00-23:30", "23:30:00", False),
        ("22:00-06:00", "21:59:59", False),
        ("22:00-06:00", "22:00:00", True),
        ("22:00-06:00", "00:00:00", True),
        ("22:00-06:00", "05:59:59", True),
        ("22:00-06:00", "06:00:00", False),
        ("18:00-24:00", "23:59:59", True),
        ("18:00-24:00", "00:00:00", False),
        ("00:00-06:00", "00:00:00", True),
        ("00:00-24:00", "00:00:00", True),
        ("00:00-24:00", "12:00:00", True),
        ("07:00-09:00,18:00-20:00", "08:00:00", True),
        ("07:00-09:00, 18:00-20:00", "19:00:00", True),
        ("07:00-09:00,18:00-20:00", "12:00:00", False),
    ],
)
def test_a_range_holds_its_start_and_not_its_end(ranges: str, clock: str, *, peak: bool) -> None:
    """A range is half open, and goes past midnight where it does not end after its start."""
    moment = datetime.fromisoformat(f"2026-04-08T{clock}+00:00")
    assert PeakHours(parse_ranges(ranges), UTC).contains(moment) is peak


def test_the_configured_zone_decides() -> None:
    """A moment is peak in whichever zone it is written."""
    peak = PeakHours(parse_ranges("18:00-19:00"), timezone(timedelta(hours=2)))
    moment = datetime(2026, 7, 1, 16, 30, tzinfo=UTC)
    assert peak.contains(moment)
    assert peak.contains(moment.astimezone(timezone(timedelta(hours=9))))
    assert not peak.contains(moment + timedelta(hours=2))


@pytest.mark.skipif("Europe/Berlin" not in available_timezones(), reason="needs a zone database")
def test_a_range_keeps_its_wall_clock_hours_when_the_clocks_change() -> None:
    """18:30 local time is peak both before and after summer time begins."""
    peak = PeakHours(parse_ranges("18:00-19:00"), ZoneInfo("Europe/Berlin"))
    assert peak.contains(datetime(2026, 3, 28, 17, 30, tzinfo=UTC))
    assert peak.contains(datetime(2026, 3, 29, 16, 30, tzinfo=UTC))
    assert not peak.contains(datetime(2026, 3, 29, 17, 30, tzinfo=UTC))


def test_no_range_is_never_peak() -> None:
    """Without a range, every moment is off-peak."""
    assert not PeakHours((), UTC).contains(datetime(2026, 4, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    ["", "18:00", "18:00-", "18-23", "8:00-9:00", "24:00-01:00", "18:00-24:01", "18:60-19:00",
     "25:00-26:00", "18:00-19:00,", "18:00\u201319:00", "18:00-18:00", "0\u0667:00-08:00"],
)  # fmt: skip
def test_what_is_no_range_is_refused(text: str) -> None:
    """A part that can't be read, or that would be empty, is an error that names it."""
    with pytest.raises(ValueError, match=r"is not a range|is empty"):
        parse_ranges(text)


@pytest.mark.parametrize("text", ["18:00-23:30", "22:00-06:00, 12:00-24:00", "00:00-24:00"])
def test_a_text_of_ranges_survives_the_round_trip(text: str) -> None:
    """What is shown is what was configured."""
    assert str(PeakHours(parse_ranges(text), UTC)) == text


def test_ranges_are_pairs_of_clock_times() -> None:
    """24:00 is midnight, which is the end of the day because it is not after the start."""
    assert parse_ranges("18:00-24:00") == ((time(18), time(0)),)
