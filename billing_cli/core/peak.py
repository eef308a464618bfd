"""Peak hours: the daily stretches of wall clock time in which the peak multiplier applies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, tzinfo  # all at run time: pydantic looks annotations up

MIDNIGHT = time.min

_RANGE = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24:00))", re.ASCII)


@dataclass(frozen=True, slots=True)
class PeakHours:
    """Half-open ranges of local time in one zone.

    A range whose end is not after its start goes on past midnight; one that ends where it starts
    is the whole day. Wall clock time decides, so a range keeps its hours when the zone's clocks
    change.
    """

    ranges: tuple[tuple[time, time], ...]
    timezone: tzinfo

    def __str__(self) -> str:
        return ", ".join(
            f"{start:%H:%M}-{'24:00' if end == MIDNIGHT else format(end, '%H:%M')}"
            for start, end in self.ranges
        )

    def contains(self, moment: datetime) -> bool:
        """Return whether an aware moment lies in peak hours."""
        clock = moment.astimezone(self.timezone).time()
        return any(
            start <= clock < end if start < end else clock >= start or clock < end
            for start, end in self.ranges
        )


def parse_ranges(text: str) -> tuple[tuple[time, time], ...]:
    """Return the ranges of a text such as `18:00-23:30, 06:00-09:00`.

    `24:00` is accepted as an end. Raises ValueError naming the part that is no range.
    """
    return tuple(_parse_range(part.strip()) for part in text.split(","))


def _parse_range(text: str) -> tuple[time, time]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a range such as 18:00-23:30")
    start = time(int(match[1]), int(match[2]))
    end = MIDNIGHT if match[5] else time(int(match[3]), int(match[4]))
    if start == end and not match[5]:
        raise ValueError(f"{text!r} is empty (00:00-24:00 is the whole day)")
    return start, end
