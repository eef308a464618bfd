"""What readings out of order may have been charged twice: they look like a restart.

The docs say which ("what cannot be told apart"): several readings of another clock that count more
than the minute after them, readings of a process that had ended, sorted after those of the next
one, and readings under names that an upgrade has ended since, several at a time or of before the
first one. Nothing else is allowed for here, and only where billing did take them for a restart.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.simulator.process import Bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from billing_cli.simulator.traffic import Snapshot, Stream


# So long without a successor, a reading decides alone.
STALLED_NANOSECONDS = 300 * 10**9


class _Older(NamedTuple):
    """Older readings in a row, the newest one that was read before, and the next newer one."""

    before: Snapshot
    readings: list[Snapshot]
    after: Snapshot | None


def doubled(
    streams: Sequence[Stream],
    collected: Sequence[Snapshot],
    restarts: Collection[datetime],
    revoked: Collection[datetime],
) -> Iterator[tuple[Stream, Bytes]]:
    """Yield what each stream may have been charged beyond what flowed, in bytes.

    `restarts` are the stamps at which billing found one, `revoked` those at which it took one back.
    """
    for older in _older_in_a_row(collected):
        read = [older.before, *older.readings, *[older.after] * bool(older.after)]
        is_of_several = len({snapshot.restarts for snapshot in read}) > 1
        is_restart = any(snapshot.collected_at in restarts for snapshot in read[1:])
        is_revoked = older.after is not None and older.after.collected_at in revoked
        is_first = older.readings[-1].index < collected[0].index
        is_renamed = _is_renamed(older.before, older.readings[0])
        is_unknown = is_renamed and (is_first or len(older.readings) > 1)
        is_heavy = is_restart and not is_revoked and _is_heavy(streams, older)
        affected = [
            stream
            for stream in streams
            if is_of_several
            or is_unknown
            or is_heavy
            or (is_restart and not older.before.holds(stream))
        ]
        ends = read[:: len(read) - 1] if older.after else []
        for stream in affected:
            charged = _charged(streams, stream, read, _totals(stream, older.before))
            # One that was left out before had counted as much, and may be charged from zero.
            flowed = _charged(streams, stream, ends, _counted(stream, older.before))
            yield stream, _beyond(charged, flowed)


def _older_in_a_row(collected: Sequence[Snapshot]) -> Iterator[_Older]:
    before = collected[0]
    readings: list[Snapshot] = []
    for snapshot in collected[1:]:
        if snapshot.index < before.index:
            readings.append(snapshot)
            continue
        if readings:
            yield _Older(before, readings, snapshot)
        before, readings = snapshot, []
    if readings:
        yield _Older(before, readings, None)


def _is_heavy(streams: Sequence[Stream], older: _Older) -> bool:
    """Tell whether the reading after several older ones does not show that there was no restart.

    It does not where some stream counted more in them than after them, or where names change. A
    single one is decided about alone where nothing follows for long, or the next is stamped ahead.
    """
    after, last = older.after, older.readings[-1]
    if after is None:
        return False
    waited_nanoseconds = max(
        after.published_nanoseconds - last.published_nanoseconds,
        after.stamp_nanoseconds - last.stamp_nanoseconds,
    )
    if len(older.readings) == 1 and waited_nanoseconds < STALLED_NANOSECONDS:
        return False
    pairs = [
        (_totals(stream, last), _totals(stream, after))
        for stream in streams
        if last.holds(stream) and after.holds(stream)
    ]
    return _is_renamed(last, after) or any(
        not _covers(now.minus(before), before) for before, now in pairs
    )


def _is_renamed(before: Snapshot, after: Snapshot) -> bool:
    former, later = before.published().keys(), after.published().keys()
    return bool(former - later and later - former)


def _charged(
    streams: Sequence[Stream], stream: Stream, read: Sequence[Snapshot], last: Bytes
) -> Bytes:
    """Return what is charged of a stream where every counter that falls is a restart of all.

    One that is absent then begins at zero as well.
    """
    charged = Bytes()
    for before, after in pairwise(read):
        fell = any(_has_fallen(other, before, after) for other in streams)
        if not after.holds(stream):
            last = Bytes() if fell else last
        elif _totals(stream, after) != last:
            charged = charged.plus(_totals(stream, after).minus(Bytes() if fell else last))
            last = _totals(stream, after)
    return charged


def _has_fallen(stream: Stream, before: Snapshot, after: Snapshot) -> bool:
    is_in_both = before.holds(stream) and after.holds(stream)
    return is_in_both and not _covers(_totals(stream, after), _totals(stream, before))


def _beyond(charged: Bytes, flowed: Bytes) -> Bytes:
    return Bytes(*(max(0, size_bytes) for size_bytes in charged.minus(flowed)))


def _covers(totals: Bytes, others: Bytes) -> bool:
    return totals.uplink >= others.uplink and totals.downlink >= others.downlink


def _totals(stream: Stream, snapshot: Snapshot) -> Bytes:
    """Return what a snapshot reports of a stream."""
    return _counted(stream, snapshot) if snapshot.holds(stream) else Bytes()


def _counted(stream: Stream, snapshot: Snapshot) -> Bytes:
    totals = snapshot.totals[2 * stream.index : 2 * stream.index + 2]
    return Bytes(*totals) if totals else Bytes()
