"""What an exporter's history says by itself: its snapshots in order, and where counters restarted.

`reconcile` reads the same history again that `collect` applied, or more of it. It goes by the same
rules: snapshots of another clock are left out, and a restart is what `core.restart` decides.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from billing_cli.core.deltas import NodeState
from billing_cli.core.succession import taken_over
from billing_cli.core.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from billing_cli.core.model import DeltaPolicy, Snapshot, StreamName, Totals


@dataclass(frozen=True, slots=True)
class History:
    """A node's snapshots in the order in which they were taken, without those of another clock.

    `restarts` are the stamps at which each stream's counters were found to have restarted, with
    what they go on from: zero, but for a direction that did not restart with the other.
    `continued` are those at which a stream was found to go on from more than its own totals: from
    counters of other names, or from before a restart that was none. The restarts of `unsure`
    streams are none, if their totals of before the history say so.
    """

    snapshots: tuple[Snapshot, ...]
    restarts: Mapping[StreamName, Mapping[datetime, Totals]]
    continued: Mapping[StreamName, Mapping[datetime, Totals]]
    unsure: frozenset[StreamName] = frozenset()


def read_history(
    snapshots: Sequence[Snapshot],
    accounts: Mapping[str, str],
    policy: DeltaPolicy,
    earlier: Mapping[StreamName, Totals] = MappingProxyType({}),
) -> History:
    """Return a node's history, from its snapshots oldest first.

    `earlier` are totals of LONGEST_DISORDER before, needed for `unsure` streams only. The last
    snapshot decides alone, as what comes after it is not known here. Where it can be an earlier
    reading, it is left out.
    """
    walk = Walk(NodeState(earlier=earlier), accounts, policy, is_lost=False)
    walk.apply_all(snapshots, len(snapshots), decide_now=True, is_cut=False)
    continued: defaultdict[StreamName, dict[datetime, Totals]] = defaultdict(dict)
    for at, together in groupby(walk.successions, attrgetter("at")):
        for name, totals in taken_over(together).items():
            continued[name][at] = totals
    return History(tuple(walk.applied), walk.restarts, continued, frozenset(walk.unsure))
