"""Random histories of a node by counting process: the truth, and what an exporter publishes of it.

An xray process counts bytes per account and inbound. The exporter publishes the counters under
names: each inbound by itself, or merged into one, under one uuid of the account or the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from hypothesis import strategies as st

from billing_cli.core.model import Snapshot, StreamName, Totals
from tests.unit.core.stories import NODE, NOON

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNTS = tuple(f"{number}" * 8 + "-1111-1111-1111-111111111111" for number in (1, 2, 3))
PROXIES = {account: "9" + account[1:] for account in ACCOUNTS}
ACCOUNT_OF = {**{one: one for one in ACCOUNTS}, **{PROXIES[one]: one for one in ACCOUNTS}}
INBOUNDS = ("xhttp", "tcp")

Naming = Literal["inbounds", "merged", "renamed"]
Counter = tuple[str, str]


@dataclass(frozen=True, slots=True)
class History:
    """A node's snapshots, and the bytes that each account moved after the first of them."""

    snapshots: tuple[Snapshot, ...]
    truth: Mapping[str, tuple[int, int]]


def publish(
    counters: Mapping[Counter, tuple[int, int]], naming: Naming, *, by_proxy: bool
) -> dict[StreamName, Totals]:
    """Return what an exporter reports of a process's counters."""
    published: dict[StreamName, Totals] = {}
    for (account, inbound), (uplink, downlink) in counters.items():
        tag = {"inbounds": inbound, "merged": "", "renamed": f"{inbound}-v2"}[naming]
        name = StreamName(tag, PROXIES[account] if by_proxy else account)
        before = published.get(name, Totals(0, 0))
        published[name] = Totals(before.uplink + uplink, before.downlink + downlink)
    return published


# A process has counted far more before the history than it counts in it, so that a restart and a
# continued counter can't be mistaken for each other.
LIFETIMES = st.integers(10**6, 10**9)
GROWTHS = st.integers(1, 900)


@st.composite
def histories(draw: st.DrawFn, *, restarts: bool = True) -> History:
    """Return up to 12 snapshots with upgrades, idle users, missed polls and restarts.

    A restarted process is seen by at least two snapshots before the next event, and every user of
    it moves something at once: otherwise nobody could tell what happened.
    """
    counters = {
        (account, inbound): (draw(LIFETIMES), draw(LIFETIMES))
        for account in ACCOUNTS
        for inbound in INBOUNDS
    }
    naming: Naming = "inbounds"
    by_proxy, at = draw(st.booleans()), NOON
    truth = {account: [0, 0] for account in ACCOUNTS}
    snapshots = [Snapshot(at, NODE, publish(counters, naming, by_proxy=by_proxy))]
    kinds = ["grow", "grow", "upgrade", "uuid", "empty", *(["restart"] if restarts else [])]
    has_restarted = False
    for _ in range(draw(st.integers(1, 11))):
        kind = draw(st.sampled_from(kinds))
        at += timedelta(minutes=draw(st.sampled_from((1, 1, 2, 7))))
        if kind == "restart" and not has_restarted:
            counters, has_restarted = {}, True
            moved = [(account, inbound) for account in ACCOUNTS for inbound in INBOUNDS]
        elif has_restarted:
            kind, moved = "grow", draw(st.lists(st.sampled_from(sorted(counters)), unique=True))
        else:
            moved = draw(st.lists(st.sampled_from(sorted(counters)), unique=True))
        if kind == "empty":
            # What moves unseen is lost where the process restarts next.
            moved = []
        for account, inbound in moved:
            before = counters.get((account, inbound), (0, 0))
            grown = draw(GROWTHS), draw(GROWTHS)
            counters[account, inbound] = before[0] + grown[0], before[1] + grown[1]
            truth[account][0] += grown[0]
            truth[account][1] += grown[1]
        if kind == "upgrade":
            naming = draw(st.sampled_from(("inbounds", "merged", "renamed")))
        if kind == "uuid":
            by_proxy = not by_proxy
        totals = {} if kind == "empty" else publish(counters, naming, by_proxy=by_proxy)
        snapshots.append(Snapshot(at, NODE, totals))
    # A restart waits for its successor.
    for _ in range(2):
        at += timedelta(minutes=1)
        snapshots.append(Snapshot(at, NODE, publish(counters, naming, by_proxy=by_proxy)))
    return History(tuple(snapshots), {account: (up, down) for account, (up, down) in truth.items()})


def runs_of(data: st.DataObject, history: History) -> list[int]:
    """Return the numbers of snapshots that are there when each run looks, as drawn."""
    count = len(history.snapshots)
    looks = data.draw(st.lists(st.integers(1, count), unique=True))
    return sorted({*looks, count})
