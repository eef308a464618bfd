"""Stamps on the wire and minutes in the books."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.times import (
    EARLIEST,
    MINUTE,
    closed_until,
    format_rfc3339,
    just_before,
    minute_of,
    parse_rfc3339,
    parse_time,
)
from tests.unit.core.examples import examples

NOON = datetime(2026, 4, 8, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fraction", "microseconds"),
    [
        ("", 0),
        (".1", 100_000),
        (".12", 120_000),
        (".123", 123_000),
        (".1234", 123_400),
        (".12345", 123_450),
        (".123456", 123_456),
        (".1234567", 123_456),
        (".12345678", 123_456),
        (".123456789", 123_456),
        (".999999999", 999_999),
        (".000000999", 0),
    ],
)
def test_digits_beyond_microseconds_are_cut_not_rounded(fraction: str, microseconds: int) -> None:
    """A stamp compares equal to the watermark that was stored from it."""
    assert parse_rfc3339(f"2026-04-08T12:00:00{fraction}Z") == NOON.replace(
        microsecond=microseconds
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-04-08T12:00:00Z",
        "2026-04-08t12:00:00z",
        "2026-04-08 12:00:00Z",
        "2026-04-08T12:00:00+00:00",
        "2026-04-08T12:00:00-00:00",
        "2026-04-08T20:00:00+08:00",
        "2026-04-08T17:45:00.000+05:45",
        "2026-04-07T12:01:00-23:59",
    ],
)
def test_every_zone_is_read_as_utc(text: str) -> None:
    """The same instant is the same value, and says so in UTC."""
    moment = parse_rfc3339(text)
    assert moment == NOON
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-04-08",
        "2026-04-08T12:00:00",
        "2026-04-08T12:00:00.5",
        "2026-04-08T12:00Z",
        "2026-04-08T12:00:00.Z",
        "2026-04-08T12:00:00,5Z",
        "2026-04-08T12:00:00.1234567890Z",
        "2026-04-08T12:00:00+0800",
        "2026-04-08T12:00:00+08",
        "2026-04-08T12:00:00+24:00",
        "2026-04-08T12:00:00+05:60",
        "2026-04-08T12:00:00 Z",
        "2026-04-08T12:00:00ZZ",
        " 2026-04-08T12:00:00Z",
        "2026-04-08T12:00:00Z\n",
        "20260408T120000Z",
        "26-04-08T12:00:00Z",
        "12026-04-08T12:00:00Z",
        "2026-W15-3T12:00:00Z",
        "2026-04-08T24:00:00Z",
        "\u0662\u0660\u0662\u0666-04-08T12:00:00Z",
        "1775649600",
    ],
)
def test_what_is_no_stamp_with_a_zone_is_refused(text: str) -> None:
    """Half a stamp could be another instant than its sender meant."""
    with pytest.raises(ValueError, match="is not an RFC 3339 time with a zone"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T12:00:00Z",
        "2026-00-08T12:00:00Z",
        "2026-13-08T12:00:00Z",
        "2026-04-31T12:00:00Z",
        "2026-04-08T12:60:00Z",
        "2026-06-30T23:59:60Z",
        "0000-04-08T12:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
    ],
)
def test_a_moment_that_does_not_exist_is_refused(text: str) -> None:
    """Python knows no leap second, no year 0, and nothing beyond year 9999 in UTC."""
    with pytest.raises(ValueError, match="is not a time that exists"):
        parse_rfc3339(text)


def test_a_leap_day_exists_in_its_years() -> None:
    """29 February is a date in 2024 and 2000."""
    assert parse_rfc3339("2024-02-29T00:00:00Z") == datetime(2024, 2, 29, tzinfo=UTC)
    assert parse_rfc3339("2000-02-29T00:00:00Z") == datetime(2000, 2, 29, tzinfo=UTC)


def test_the_first_and_last_moments_are_read() -> None:
    """The bounds are those of the calendar in UTC."""
    assert parse_rfc3339("0001-01-01T00:00:00Z") == datetime.min.replace(tzinfo=UTC)
    assert parse_rfc3339("9999-12-31T23:59:59.999999999Z") == datetime.max.replace(tzinfo=UTC)


def test_a_refused_stamp_is_shown_in_part_only() -> None:
    """A long text from a stranger does not fill the log."""
    with pytest.raises(ValueError, match="is not an RFC 3339 time") as refused:
        parse_rfc3339("9" * 10_000)
    assert str(refused.value) == f"'{40 * '9'}' is not an RFC 3339 time with a zone"


def test_a_moment_that_does_not_exist_is_shown_whole() -> None:
    """It has the length of a stamp, and any part of it may be wrong."""
    longest = "2026-02-29T12:00:00.123456789+00:00"
    with pytest.raises(ValueError, match="is not a time") as refused:
        parse_rfc3339(longest)
    assert str(refused.value) == f"'{longest}' is not a time that exists"


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOON, "2026-04-08T12:00:00Z"),
        (NOON.replace(microsecond=123_456), "2026-04-08T12:00:00.123456Z"),
        (NOON.replace(microsecond=500_000), "2026-04-08T12:00:00.500000Z"),
        (NOON.astimezone(timezone(timedelta(hours=-5))), "2026-04-08T12:00:00Z"),
        (datetime(987, 1, 2, tzinfo=UTC), "0987-01-02T00:00:00Z"),
    ],
)
def test_a_moment_is_written_in_utc(moment: datetime, text: str) -> None:
    """Whole seconds have no fraction, whatever zone the moment came in."""
    assert format_rfc3339(moment) == text


@examples()
@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_written_can_be_read_again(moment: datetime) -> None:
    """Every moment survives the round trip."""
    assert parse_rfc3339(format_rfc3339(moment)) == moment


@examples()
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but a ValueError comes of a text that is no stamp."""
    try:
        moment = parse_rfc3339(text)
    except ValueError:
        return
    assert moment.tzinfo is UTC


def test_a_minute_is_half_open() -> None:
    """Its first instant belongs to it, the first of the next does not."""
    assert minute_of(NOON) == NOON
    assert minute_of(NOON + timedelta(seconds=59, microseconds=999_999)) == NOON
    assert minute_of(NOON + timedelta(seconds=60)) == NOON + MINUTE


@pytest.mark.parametrize(
    ("now", "settle", "boundary"),
    [(29.999, 30, -1), (30, 30, 0), (89.999, 30, 0), (90, 30, 1), (0, 0, 0), (0, 90, -2)],
)
def test_a_minute_is_closed_once_it_has_settled(now: float, settle: int, boundary: int) -> None:
    """The boundary is the last whole minute at least the settle time ago."""
    moment = NOON + timedelta(seconds=now)
    expected = NOON + timedelta(minutes=boundary)
    assert closed_until(moment, timedelta(seconds=settle)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-04-08T14:00:00+02:00", NOON),
        ("90s", NOON + timedelta(hours=3, minutes=28, seconds=30)),
        ("15m", NOON + timedelta(hours=3, minutes=15)),
        ("2h", NOON + timedelta(hours=1, minutes=30)),
        ("3d", NOON + timedelta(days=-3, hours=3, minutes=30)),
        ("1w", NOON + timedelta(days=-7, hours=3, minutes=30)),
        ("today", datetime(2026, 4, 8, tzinfo=UTC)),
        ("yesterday", datetime(2026, 4, 7, tzinfo=UTC)),
    ],
)
def test_an_operator_may_count_back_from_now(text: str, expected: datetime) -> None:
    """Days are days of UTC, wherever the clock of the operator stands."""
    now = (NOON + timedelta(hours=3, minutes=30)).astimezone(timezone(timedelta(hours=9)))
    assert parse_time(text, now) == expected


@pytest.mark.parametrize("text", ["", "h", "-2h", "2.5h", "2H", "2y", "Today", "99999999w", "now"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r"is not an RFC 3339 time|before the first time"):
        parse_time(text, NOON)


def test_a_day_begins_at_midnight() -> None:
    """Whatever second and microsecond it is."""
    now = datetime(2026, 4, 8, 12, 34, 56, 789, tzinfo=UTC)
    assert parse_time("today", now) == datetime(2026, 4, 8, tzinfo=UTC)
    assert parse_time("yesterday", now) == datetime(2026, 4, 7, tzinfo=UTC)


def test_a_duration_has_plain_digits_and_reaches_no_further_than_time() -> None:
    """Digits of other scripts are no duration."""
    now = datetime(2026, 4, 8, tzinfo=UTC)
    with pytest.raises(ValueError, match=r"^'9999999w' is before the first time that exists$"):
        parse_time("9999999w", now)
    with pytest.raises(ValueError, match="is not an RFC 3339 time"):
        parse_time("\u0665m", now)


def test_the_record_of_a_first_snapshot_begins_just_before_it() -> None:
    """By the smallest step, but not before the first time that exists."""
    at = datetime(2026, 4, 8, tzinfo=UTC)
    assert just_before(at) == at - timedelta(microseconds=1)
    assert just_before(EARLIEST) == EARLIEST
