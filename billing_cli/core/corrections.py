"""Reconciling evidence with history that was read again: what flowed in which minute after all.

The unit is a *cell*: one usage record, which says what a stream's totals were at two snapshots.
Snapshots that history holds inside the cell, and that were not seen when it was written, split it
into smaller steps. Both ends of a cell stay what they are, so the sum of a cell's minutes changes
only where a counter restart hid inside it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from billing_cli.core.model import Totals
from billing_cli.core.plausibility import plausible_bytes
from billing_cli.core.succession import ZERO, covers, minus, total_of
from billing_cli.core.times import minute_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import DeltaPolicy, UsageRecord

NOTHING: Mapping[datetime, Totals] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Cell:
    """A usage record, the totals seen where it begins, and what is on record for it by minute.

    `before` differs from the record's `start` where a counter restarted: the record starts at
    zero then, but the stream had been seen at `before`. `recorded` are the bytes of the record
    and of all corrections to it so far; with `has_reversal` the newest one of a minute took
    bytes back. `taken_over` is what the record's `start` holds by successions found after
    `from_at`, up to `to_at`: totals of other counters, or of before a restart that was none.
    """

    record: UsageRecord
    before: Totals
    recorded: Mapping[datetime, Totals]
    has_reversal: bool = False
    taken_over: Totals = ZERO

    @property
    def is_reversed(self) -> bool:
        """Whether bytes of it were taken back, some or all."""
        has_bytes = self.record.start != self.record.end
        return has_bytes and (self.has_reversal or not any(map(any, self.recorded.values())))


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes of a cell in one minute: what is on record, and what history shows."""

    cell: Cell
    minute: datetime
    recorded: Totals
    shown: Totals


def differences(
    cell: Cell,
    history: Iterable[tuple[datetime, Totals]],
    restarts: Mapping[datetime, Totals],
    policy: DeltaPolicy,
    continued: Mapping[datetime, Totals] = NOTHING,
) -> list[Difference] | None:
    """Compare a cell with the snapshots that history holds of its stream, oldest first.

    Of a cell that was taken back, history alone says what flowed in it: what it has at both ends.
    Only what the record took over stays taken over where history has the record's end.

    `restarts` are the stamps at which the stream's counters restarted, as history shows it, with
    what they go on from; `continued` those at which it takes over totals in addition to its own. A
    cell that begins at zero may not know of that.
    Returns the minutes that differ, in time order; None where nothing can be concluded, because
    history shows a step above the plausible rate, a decrease that is no restart, or other totals
    at the cell's own end.

    Where history holds nothing inside the cell, or less than an earlier comparison was made with,
    the record stands: what is known is never forgotten again.
    """
    if cell.is_reversed:
        return _charged_again(cell, list(history), restarts, policy, continued)
    inside, is_start_known = [], False
    for at, totals in history:
        if cell.record.from_at < at < cell.record.to_at:
            inside.append((at, totals))
        elif at == cell.record.from_at:
            is_start_known = totals == cell.before
        elif at == cell.record.to_at and totals != cell.record.end:
            return None
    if not inside:
        return []
    ends = (*inside, (cell.record.to_at, cell.record.end))
    start = cell.record.from_at, cell.before
    shown = _minutes_shown(start, ends, restarts, policy, continued, is_start_known=is_start_known)
    if shown is None:
        return None
    if _knows_less(cell, shown):
        return []
    return _compared(cell, shown)


def _charged_again(
    cell: Cell,
    history: Sequence[tuple[datetime, Totals]],
    restarts: Mapping[datetime, Totals],
    policy: DeltaPolicy,
    continued: Mapping[datetime, Totals],
) -> list[Difference] | None:
    begin, end = cell.record.from_at, cell.record.to_at
    within = [(at, totals) for at, totals in history if begin <= at <= end]
    if not within or within[-1][0] != end:
        return None
    if within[0][0] != begin:
        start, rest = (begin, cell.before), within
        shown = _minutes_shown(
            start,
            rest,
            restarts,
            policy,
            continued,
            is_start_known=False,
            believed_bytes=cell.record.total_bytes,
        )
    else:
        (_, totals), *rest = within
        owed = _still_taken_over(cell, within, continued)
        shown = _minutes_shown(
            (begin, total_of((totals, owed))),
            rest,
            restarts,
            policy,
            continued,
            is_start_known=owed == ZERO,
            takes_over=True,
            believed_bytes=cell.record.total_bytes,
        )
    return None if shown is None else _compared(cell, shown)


def _still_taken_over(
    cell: Cell,
    within: Sequence[tuple[datetime, Totals]],
    continued: Mapping[datetime, Totals],
) -> Totals:
    """Return what the record took over beyond what history shows inside the cell."""
    if within[-1][1] != cell.record.end:
        return ZERO
    shown = total_of(continued[at] for at, _ in within[1:] if at in continued)
    left = minus(cell.taken_over, shown)
    return Totals(max(0, left.uplink), max(0, left.downlink))


def _compared(cell: Cell, shown: Mapping[datetime, Totals]) -> list[Difference]:
    compared = (
        Difference(cell, minute, cell.recorded.get(minute, ZERO), shown.get(minute, ZERO))
        for minute in sorted(cell.recorded.keys() | shown.keys())
    )
    return [cell for cell in compared if cell.recorded != cell.shown]


def _knows_less(cell: Cell, shown: Mapping[datetime, Totals]) -> bool:
    """Return whether history lacks what an earlier comparison saw.

    Further snapshots can only find a counter restart, and with it more bytes. So fewer bytes mean
    that the snapshots which showed a restart are gone; a minute that has lost all of its bytes
    means that those of a corrected cell are.
    """
    is_corrected = len(cell.recorded) > 1
    gone = cell.recorded.keys() - shown.keys()
    if is_corrected and any(cell.recorded[minute] != ZERO for minute in gone):
        return True
    known = cell.recorded.values()
    uplink = sum(cell.uplink for cell in shown.values())
    downlink = sum(cell.downlink for cell in shown.values())
    return uplink < sum(cell.uplink for cell in known) or downlink < sum(
        cell.downlink for cell in known
    )


def _minutes_shown(
    start: tuple[datetime, Totals],
    rest: Sequence[tuple[datetime, Totals]],
    restarts: Mapping[datetime, Totals],
    policy: DeltaPolicy,
    continued: Mapping[datetime, Totals],
    *,
    is_start_known: bool,
    takes_over: bool = False,
    believed_bytes: int = 0,
) -> dict[datetime, Totals] | None:
    """Return the bytes of each minute; None where nothing can be concluded.

    `is_start_known` says that history has the start too. Where it has not, the restart that it
    shows in the first step may have been before the start: a total above it is then no restart.
    Without `takes_over`, the start holds what is `continued` before the first restart. As many as
    `believed_bytes` were charged once: xray counts a spliced connection when it closes, so that
    their steps may be above the plausible rate.
    """
    uplink: defaultdict[datetime, int] = defaultdict(int)
    downlink: defaultdict[datetime, int] = defaultdict(int)
    at, totals = start
    is_plausible = True
    for next_at, next_totals in rest:
        before = totals
        if next_at in restarts and (is_start_known or not covers(next_totals, totals)):
            before, takes_over = restarts[next_at], True
        if takes_over or before == ZERO:
            before = total_of((before, continued.get(next_at, ZERO)))
        if not covers(next_totals, before):
            return None
        up, down = next_totals.uplink - before.uplink, next_totals.downlink - before.downlink
        is_plausible &= up + down <= plausible_bytes(policy, at, next_at)
        if up or down:
            minute = minute_of(next_at)
            uplink[minute] += up
            downlink[minute] += down
        at, totals, is_start_known = next_at, next_totals, True
    if not is_plausible and sum((*uplink.values(), *downlink.values())) > believed_bytes:
        return None
    return {minute: Totals(uplink[minute], downlink[minute]) for minute in uplink}
