"""Restart detection: what a snapshot means in which a counter decreased.

xray's counters only grow and start again from zero with the process. But a history can also hold
snapshots of another clock, or in the wrong order, and an exporter can report a single counter
wrongly. The snapshots after it decide, never the one snapshot alone.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.core.succession import ZERO, covers, total_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from billing_cli.core.changes import Changes
    from billing_cli.core.model import Checkpoint, Snapshot, StreamName, Succession, Totals


# A clock is not set back by more: after that, the counters did restart.
LONGEST_DISORDER = timedelta(hours=1)

MOST_SUCCESSORS = 240
"""How many snapshots after a decrease are looked at: an hour of one every 15 seconds.

Each decrease looks at its own, so a node that sends thousands must not make that quadratic.
"""

NEVER = -1


class Verdict(NamedTuple):
    """What to do about a snapshot in which a counter decreased, or seems lost.

    `disorder`: ignore it and the `ignored - 1` snapshots after it. `restart`: the process
    restarted, every stream continues from zero. `single`: the counters that decreased continue
    from zero, each by itself. `wait`: nothing is certain before the node's next snapshot.
    """

    kind: Literal["disorder", "restart", "single", "wait"]
    ignored: int = 0


def judge(
    history: Sequence[Snapshot],
    decreased: Mapping[StreamName, Totals],
    floor: Mapping[StreamName, Totals],
    grown: int,
    account_of: Callable[[StreamName], str],
    *,
    decide_now: bool,
    has_more: bool = False,
    is_cut: bool = False,
    earlier: Mapping[StreamName, Totals] = MappingProxyType({}),
) -> Verdict:
    """Decide about the first one of the node's snapshots by the next, up to MOST_SUCCESSORS.

    `decreased` are the former totals of the streams of which a counter decreased; `floor` are
    totals that are known to be older than these; `grown` counts the streams that grew in the same
    snapshot. The floor may be a reading of another clock itself: where all counters are back at
    once, or the history `is_cut` before that, totals that are `earlier` than any such reading take
    its place. With `decide_now` the snapshot decides alone where it has no successor, unless it can
    be an earlier reading: the next run, whose `floor` are the totals before it, decides then. With
    `has_more` a later step can see more successors, and decides where these do not suffice.
    """
    snapshot, *successors = history
    if not successors and not decide_now:
        return Verdict("wait")
    returned_at = _first_return(history, decreased, account_of)
    if returned_at == 1:
        return Verdict("disorder", ignored=returned_at)
    before = {**floor, **earlier}
    if returned_at > 1 and _is_older(history[:returned_at], decreased, before):
        return Verdict("disorder", ignored=returned_at)
    may_return = has_more or _is_older(history, decreased, before if is_cut else floor)
    if returned_at == 0 and may_return and _can_be_longer(history):
        return Verdict("wait")
    witness = successors[0] if successors else snapshot
    fell = sum(
        _is_below(witness.totals.get(name) or snapshot.totals[name], before)
        for name, before in decreased.items()
    )
    # A counter that an exporter reports wrongly restarts alone: most of the others grow with it.
    return Verdict("restart" if fell and len(decreased) >= grown else "single")


def may_be_earlier(
    history: Sequence[Snapshot],
    decreased: Mapping[StreamName, Totals],
    account_of: Callable[[StreamName], str],
    *,
    is_cut: bool,
) -> bool:
    """Return whether a restart would be none if the totals of before were known to be smaller."""
    returned_at = _first_return(history, decreased, account_of)
    return returned_at > 1 or (returned_at == 0 and is_cut)


def _can_be_longer(history: Sequence[Snapshot]) -> bool:
    """Return whether earlier readings can last longer than these snapshots."""
    covered = history[-1].collected_at - history[0].collected_at
    return len(history) <= MOST_SUCCESSORS and covered < LONGEST_DISORDER


def former_names(
    changes: Changes, known: Mapping[StreamName, Checkpoint], absent: Collection[StreamName]
) -> dict[StreamName, Totals]:
    """Return the streams that may go by former names again: where no name is left, all of them."""
    former = dict(changes.new)
    if len(changes.gone) == len(known) - len(absent):
        former |= {name: totals for name, _, totals in changes.returned}
    return former


def lost_behind(
    former: Collection[StreamName],
    changes: Changes,
    successions: Sequence[Succession],
    known: Mapping[StreamName, Checkpoint],
    account_of: Callable[[StreamName], str],
) -> dict[StreamName, Totals]:
    """Return what seems lost of the accounts that go by former names: it continues nowhere."""
    kept = {side.name for succession in successions for side in succession.ended}
    accounts = {account_of(name) for name in former}
    return {
        name: totals
        for name, totals in changes.gone.items()
        if any(totals)
        and name not in kept
        and known[name].state == "active"
        and account_of(name) in accounts
    }


def judge_names(
    history: Sequence[Snapshot],
    lost: Mapping[StreamName, Totals],
    former: Collection[StreamName],
    account_of: Callable[[StreamName], str],
    *,
    decide_now: bool,
    has_more: bool = False,
) -> Verdict:
    """Decide about the first one of several snapshots by which streams are `lost`, none decreased.

    They are older readings under the names of before an upgrade where all these streams are back
    at once, within an hour, and until then the `former` names of each account counted no more than
    the lost ones had. Else each stream goes on by itself.
    """
    single = Verdict("single")
    first = next(iter(lost))
    place = next((at for at, snapshot in enumerate(history) if first in snapshot.totals), 0)
    if place:
        after = history[place]
        lasts = after.collected_at - history[0].collected_at
        is_back = all(covers(after.totals.get(name, ZERO), lost[name]) for name in lost)
        if lasts > LONGEST_DISORDER or not is_back:
            return single
    elif not (has_more and _can_be_longer(history)) and (decide_now or len(history) > 1):
        return single
    had = _sums(lost, account_of)
    for snapshot in history[: place or None]:
        if not lost.keys().isdisjoint(snapshot.totals):
            return single
        begun = {name: snapshot.totals[name] for name in former if name in snapshot.totals}
        counted = _sums(begun, account_of)
        if not all(
            covers(had[account], counted[account]) for account in had.keys() & counted.keys()
        ):
            return single
    return Verdict("disorder", ignored=place) if place else Verdict("wait")


def _sums(
    totals: Mapping[StreamName, Totals], account_of: Callable[[StreamName], str]
) -> dict[str, Totals]:
    sums: dict[str, Totals] = {}
    for name, counted in totals.items():
        account = account_of(name)
        sums[account] = total_of((sums[account], counted)) if account in sums else counted
    return sums


def _first_return(
    history: Sequence[Snapshot],
    decreased: Mapping[StreamName, Totals],
    account_of: Callable[[StreamName], str],
) -> int:
    """Return the place of the first snapshot in which all are back in one step.

    In one step: up to the snapshot before, none was above its earlier totals, as no older reading
    can be. A stream that is left out shows nothing; where all are, names of their accounts that are
    new since may hold their totals. 0 where not all are back yet, `NEVER` where they come back one
    by one.
    """
    for place, snapshot in enumerate(history[1:], start=1):
        present = [
            (snapshot.totals[name], before)
            for name, before in decreased.items()
            if name in snapshot.totals
        ]
        if not present and _is_renamed(snapshot, history[0], decreased, account_of):
            return place
        back = [(now, before) for now, before in present if covers(now, before)]
        if back and len(back) == len(present):
            return place
        if any(now != before for now, before in back):
            return NEVER
    return 0


def _is_renamed(
    snapshot: Snapshot,
    earlier: Snapshot,
    decreased: Mapping[StreamName, Totals],
    account_of: Callable[[StreamName], str],
) -> bool:
    """Return whether the names that a snapshot has beyond an earlier one hold the former totals."""
    begun = {name: totals for name, totals in snapshot.totals.items() if name not in earlier.totals}
    counted, had = _sums(begun, account_of), _sums(decreased, account_of)
    return all(covers(counted.get(account, ZERO), had[account]) for account in had)


def _is_older(
    snapshots: Sequence[Snapshot],
    decreased: Mapping[StreamName, Totals],
    floor: Mapping[StreamName, Totals],
) -> bool:
    """Return whether snapshots can be earlier readings of the process: none is below `floor`."""
    return all(
        name in floor
        and any(floor[name])
        and (name not in snapshot.totals or covers(snapshot.totals[name], floor[name]))
        for snapshot in snapshots
        for name in decreased
    )


def _is_below(totals: Totals, before: Totals) -> bool:
    """Return whether both directions are below; one that had counted nothing decides nothing."""
    pairs = zip(totals, before, strict=True)
    return all(now < then or not then for now, then in pairs)
