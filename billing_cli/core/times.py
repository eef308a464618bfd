"""Times on the wire and minutes in the books: RFC 3339 in, UTC out, cut to microseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

EARLIEST = datetime.min.replace(tzinfo=UTC)

# What `fromisoformat` takes beyond RFC 3339, and what it makes of 24:00 or +05:60, depends on
# Python's version; so hours and the zone's minutes have their bounds here.
_HOUR = r"(?:[01]\d|2[0-3])"
_RFC3339 = re.compile(
    rf"\d{{4}}-\d\d-\d\d[Tt ]{_HOUR}:\d\d:\d\d(?:\.\d{{1,9}})?(?:[Zz]|[+-]{_HOUR}:[0-5]\d)",
    re.ASCII,
)
_DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": MINUTE,
    "h": timedelta(hours=1),
    "d": DAY,
    "w": 7 * DAY,
}


def parse_time(text: str, now: datetime) -> datetime:
    """Return the UTC datetime that an operator means.

    That is an RFC 3339 time, a duration back from `now` such as `90s`, `15m`, `2h`, `3d` or `1w`,
    or the start of the UTC day `today` or `yesterday`. Raises ValueError for anything else.
    """
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": midnight, "yesterday": midnight - DAY}
    if text in days:
        return days[text]
    if duration := _DURATION.fullmatch(text):
        try:
            return now.astimezone(UTC) - int(duration[1]) * _UNITS[duration[2]]
        except OverflowError:
            raise ValueError(f"{text!r} is before the first time that exists") from None
    return parse_rfc3339(text)


def parse_rfc3339(text: str) -> datetime:
    """Return the UTC datetime of an RFC 3339 stamp with 0 to 9 fractional digits.

    Digits beyond microseconds are cut, never rounded, so that a stamp compares equal to what
    Python and PostgreSQL keep of it. Raises ValueError where the text is no stamp or has no zone.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 time with a zone")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time that exists") from None


def format_rfc3339(moment: datetime) -> str:
    """Return a UTC stamp such as `2026-04-08T12:00:00.123456Z`; whole seconds have no fraction."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def minute_of(moment: datetime) -> datetime:
    """Return the start of the UTC minute that holds the moment."""
    return moment.replace(second=0, microsecond=0)


def closed_until(now: datetime, settle: timedelta) -> datetime:
    """Return the boundary before which every minute is closed: nothing more is expected for it."""
    return minute_of(now - settle)


def just_before(at: datetime) -> datetime:
    """Return where the record of a charged first snapshot begins: nothing is known before it.

    Records of a stream are distinguished by where they begin, and the next one begins at `at`.
    """
    return at - min(timedelta.resolution, at - EARLIEST)
