"""Which restarts of a node's process show in its snapshots, by decision 6 of the design."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from billing_cli.core.model import StreamName, Totals
    from billing_cli.simulator.history import Snapshot

Visibility = Literal["shown", "hidden", "ambiguous"]
"""What the two snapshots with samples after a restart say of it.

shown: a stream is below its earlier totals in both directions in both of them, and at least as
many streams fell as grew.
hidden: no counter is below its earlier total, so that nothing says that there was a restart.
ambiguous: anything else; the smaller amount is to be charged.
"""


class Restart(NamedTuple):
    """Restarts between two snapshots that were read one after the other, in true order.

    `earlier` are the last totals by published name that were read before.
    """

    before: Snapshot
    after: Snapshot
    earlier: Mapping[StreamName, Totals]
    visibility: Visibility

    @property
    def is_with_upgrade(self) -> bool:
        """Whether the exporter changed its names at the same time."""
        return self.before.naming is not self.after.naming

    @property
    def numbers(self) -> range:
        """The restarts by number."""
        return range(self.before.restarts + 1, self.after.restarts + 1)


def restarts_in(visible: Sequence[Snapshot]) -> Iterator[Restart]:
    """Yield the restarts among snapshots that were read, in true order."""
    known: dict[StreamName, Totals] = {}
    for place, (before, after) in enumerate(pairwise(visible), start=1):
        known.update(totals_of(before))
        if after.restarts > before.restarts:
            earlier = dict(known)
            following = [snapshot for snapshot in visible[place:] if totals_of(snapshot)]
            restart = Restart(before, after, earlier, _visibility(before, earlier, following))
            if restart.visibility == "shown":
                # Who is absent begins at zero as well.
                known.clear()
            yield restart


class Return(NamedTuple):
    """Names that an upgrade gives back, and that were read last before a restart (decision 6a).

    Between two snapshots that were read one after the other, without a restart. Nothing shows that
    the counters of these names began at zero: they are at or above `earlier`, their last totals.
    `ended` are the last totals of the names that are gone.
    """

    earlier: Mapping[StreamName, Totals]
    ended: Mapping[StreamName, Totals]


def returns_in(visible: Sequence[Snapshot]) -> Iterator[Return]:
    """Yield the returns of former names among snapshots that were read, in true order."""
    if len({snapshot.restarts for snapshot in visible}) < 2:  # noqa: PLR2004 - one and another
        return
    shown = {
        restart.after.index for restart in restarts_in(visible) if restart.visibility == "shown"
    }
    known: dict[StreamName, tuple[int, Totals]] = {}
    for before, after in pairwise(visible):
        last, now = totals_of(before), totals_of(after)
        known.update((name, (before.restarts, totals)) for name, totals in last.items())
        if after.index in shown:
            known.clear()
        elif before.naming is not after.naming and before.restarts == after.restarts:
            earlier = {
                name: totals
                for name, (restarts, totals) in known.items()
                if restarts < after.restarts and name in now and covers(now[name], totals)
            }
            ended = {name: totals for name, totals in last.items() if name not in now}
            if earlier:
                yield Return(earlier, ended)


def noticed_restarts(visible: Sequence[Snapshot]) -> frozenset[int]:
    """Return the numbers of the restarts that show."""
    shown = (restart for restart in restarts_in(visible) if restart.visibility == "shown")
    return frozenset(number for restart in shown for number in restart.numbers)


def totals_of(snapshot: Snapshot) -> dict[StreamName, Totals]:
    """Return the published totals by name."""
    return {name: totals for name, (totals, _) in snapshot.published().items()}


def covers(totals: Totals, earlier: Totals) -> bool:
    """Return whether totals are at or above earlier ones in both directions."""
    return totals.uplink >= earlier.uplink and totals.downlink >= earlier.downlink


def _visibility(
    before: Snapshot, earlier: Mapping[StreamName, Totals], following: Sequence[Snapshot]
) -> Visibility:
    if not following:
        return "ambiguous"
    first, second = (_fallen(earlier, snapshot) for snapshot in (following[0], following[:2][-1]))
    if not first:
        # A stream that is not back yet may show it later.
        is_complete = totals_of(before).keys() <= totals_of(following[0]).keys()
        return "hidden" if is_complete else "ambiguous"
    stay = [name for name, is_in_both in first.items() if is_in_both and second.get(name)]
    is_common = len(first) >= _grown(before, following[0])
    is_shown = stay and is_common and not _return_at_once(earlier, first, following)
    return "shown" if is_shown else "ambiguous"


def _grown(before: Snapshot, after: Snapshot) -> int:
    """Return how many streams are above what they were: as many must fall (decision 6.1)."""
    totals = totals_of(after)
    return sum(
        name in totals and totals[name] != counted and covers(totals[name], counted)
        for name, counted in totals_of(before).items()
    )


def _fallen(earlier: Mapping[StreamName, Totals], snapshot: Snapshot) -> dict[StreamName, bool]:
    """Return the names that are below their earlier totals, and whether in both directions."""
    totals = totals_of(snapshot)
    return {
        name: totals[name].uplink < before.uplink and totals[name].downlink < before.downlink
        for name, before in earlier.items()
        if name in totals and not covers(totals[name], before)
    }


def _return_at_once(
    earlier: Mapping[StreamName, Totals],
    fallen: Iterable[StreamName],
    following: Sequence[Snapshot],
) -> bool:
    """Whether all that fell are back in one step, as if there had been no restart.

    Another restart in that step changes nothing where nothing shows it.
    """
    names = set(fallen)
    for snapshot, later in pairwise(following):
        if later.restarts != following[0].restarts and _fallen(totals_of(snapshot), later):
            return False
        below, still_below = (
            names & _fallen(earlier, either).keys() for either in (snapshot, later)
        )
        if below != names:
            return False
        if not still_below:
            return names <= totals_of(later).keys()
    return False
