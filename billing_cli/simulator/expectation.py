"""What each account must be charged for its use of a node: an exact figure, or an interval.

The truth is what flowed through the node's counting processes between the first and the last
snapshot that a biller read, whatever the names were. Each exception that the design allows is
listed with its bytes. Exceptions that are certain lower the figure; those that depend on what
cannot be decided (decision 6a: the smaller amount is charged) open an interval.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.core.model import Totals
from billing_cli.core.times import closed_until, minute_of
from billing_cli.simulator.carriers import Reason, follow, total
from billing_cli.simulator.limits import Limits, held_minutes
from billing_cli.simulator.oracle import accounts_by_uuid
from billing_cli.simulator.process import Bytes
from billing_cli.simulator.restarts import covers, restarts_in, returns_in, totals_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from billing_cli.core.model import StreamName
    from billing_cli.simulator.history import Snapshot
    from billing_cli.simulator.process import Stream
    from billing_cli.simulator.restarts import Restart, Return
    from billing_cli.simulator.traffic import Fleet, Node

Why = Reason | Literal["held", "uncertain_restart", "uncertain_return", "uncertain_order"]
"""Why bytes may be missing. In addition to the reasons of `carriers`:

held: an account or the node moved more in a minute than is plausible.
uncertain_restart: new counters are at or above the former ones, though they began at zero.
uncertain_return: former names return above their former totals, though they began at zero.
uncertain_order: only snapshots out of order, around a restart, report them.
"""


NO_LIMITS = Limits(account_rate=0, line_rate=0)


class Exemption(NamedTuple):
    """Bytes that are not charged, or (`is_certain` False) need not be."""

    why: Why
    account: str
    bytes: Bytes
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be charged, by direction, and why it is not all that flowed.

    `high` is what flowed less the certain exemptions, `low` is that less the others.
    """

    low: Bytes
    high: Bytes
    exemptions: tuple[Exemption, ...] = field(default=(), compare=False)

    @property
    def is_exact(self) -> bool:
        """Whether one figure only is right."""
        return self.low == self.high

    def allows(self, charged: Bytes) -> bool:
        """Return whether the bytes are within the bounds, in each direction."""
        return all(
            low <= moved <= high
            for low, moved, high in zip(self.low, charged, self.high, strict=True)
        )


def snapshots_read(node: Node, moments: Iterable[datetime], settle: timedelta) -> list[Snapshot]:
    """Return what a biller that runs at these moments reads, in the order in which it does.

    Each run reads the closed minutes after the last one that it has read.
    """
    read: list[Snapshot] = []
    for moment in moments:
        end = closed_until(moment, settle)
        read += [
            snapshot
            for snapshot in node.published(moment)
            if snapshot.collected_at < end
            and (not read or minute_of(snapshot.collected_at) > minute_of(read[-1].collected_at))
        ]
    return read


def expected_by_account(
    fleet: Fleet, node: Node, read: Sequence[Snapshot], limits: Limits = NO_LIMITS
) -> dict[str, Expected]:
    """Return what the snapshots that were read make of each account's use of the node.

    Users without an account are listed by their own uuid: their usage waits for an account.
    """
    accounts = accounts_by_uuid(fleet)
    in_order = _in_true_order(read)
    all_read = sorted(
        (snapshot for snapshot in read if snapshot.index >= in_order[0].index),
        key=attrgetter("index"),
    )
    restarts = list(restarts_in(in_order))
    flowed: defaultdict[str, Bytes] = defaultdict(Bytes)
    exemptions: defaultdict[str, list[Exemption]] = defaultdict(list)
    moved_in: list[tuple[Snapshot, str, Bytes]] = []
    for stream in node.streams:
        account = accounts.get(stream.name.sample_uuid, stream.name.sample_uuid)
        flowed[account] = flowed[account].plus(stream.flowed())
        for carrier, why, moved in follow(node, stream, all_read, noticed=_decided(restarts)):
            if why is not None:
                exemptions[account].append(Exemption(why, account, moved, is_certain=True))
            elif carrier is not None:
                moved_in.append((carrier, account, moved))
        lost = _lost(node, stream, in_order).minus(_lost(node, stream, all_read))
        exemptions[account].append(Exemption("uncertain_order", account, lost, is_certain=False))
    for restart in restarts:
        for account, moved in _may_be_hidden(restart, accounts).items():
            uncertain = Exemption("uncertain_restart", account, moved, is_certain=False)
            exemptions[account].append(uncertain)
    for returned in returns_in(in_order):
        for account, moved in _may_continue(returned, accounts).items():
            exemptions[account].append(
                Exemption("uncertain_return", account, moved, is_certain=False)
            )
    for account, moved in held_minutes(limits, read, moved_in):
        exemptions[account].append(Exemption("held", account, moved, is_certain=True))
    return {account: _expected(flowed[account], exemptions[account]) for account in flowed}


def _in_true_order(read: Sequence[Snapshot]) -> list[Snapshot]:
    """Leave out what was taken before something that had been read already."""
    in_order: list[Snapshot] = []
    for snapshot in read:
        if not in_order or snapshot.index > in_order[-1].index:
            in_order.append(snapshot)
    return in_order


def _decided(restarts: Iterable[Restart]) -> set[int]:
    """Return the restarts that do not hide earlier totals, or may not: all but the hidden ones."""
    return {
        number
        for restart in restarts
        if restart.visibility != "hidden" or restart.is_with_upgrade
        for number in restart.numbers
    }


def _lost(node: Node, stream: Stream, visible: Sequence[Snapshot]) -> Bytes:
    """Return what flowed between the last snapshot before a restart and the restart."""
    return total(moved for _, why, moved in follow(node, stream, visible) if why == "reset")


def _may_be_hidden(restart: Restart, accounts: Mapping[str, str]) -> dict[str, Bytes]:
    """Return what new counters may conceal by account: earlier totals that they have reached."""
    before, after = totals_of(restart.before), totals_of(restart.after)
    sums_before, sums_after = (_by_account(totals, accounts) for totals in (before, after))
    if restart.visibility != "ambiguous" and not restart.is_with_upgrade:
        # A new line looks like a part of a counter that an upgrade has split.
        begun = {name: totals for name, totals in after.items() if name not in restart.earlier}
        return {
            account: sums_before[account]
            for account in _by_account(begun, accounts)
            if restart.visibility == "shown" and _covers(sums_after[account], sums_before[account])
        }
    hidden: defaultdict[str, Bytes] = defaultdict(Bytes)
    for account, earlier in sums_before.items():
        now = sums_after.get(account, Bytes())
        if not restart.is_with_upgrade or _covers(now, earlier):
            hidden[account] = earlier
        elif restart.visibility == "ambiguous":
            # One direction fell: it begins at zero alone, and the other goes on.
            hidden[account] = Bytes(
                *(had if has >= had else 0 for has, had in zip(now, earlier, strict=True))
            )
    if restart.visibility == "shown":
        return dict(hidden)
    kept = {
        name: totals
        for name, totals in restart.earlier.items()
        if name in after and covers(after[name], totals)
    }
    for account, earlier in _by_account(kept, accounts).items():
        hidden.setdefault(account, earlier)
    return dict(hidden)


def _may_continue(returned: Return, accounts: Mapping[str, str]) -> dict[str, Bytes]:
    """Return what names that return conceal by account, if they go on from their own totals."""
    ended = _by_account(returned.ended, accounts)
    return {
        account: Bytes(*(max(0, had) for had in earlier.minus(ended.get(account, Bytes()))))
        for account, earlier in _by_account(returned.earlier, accounts).items()
    }


def _by_account(
    totals: Mapping[StreamName, Totals], accounts: Mapping[str, str]
) -> dict[str, Bytes]:
    sums: defaultdict[str, Bytes] = defaultdict(Bytes)
    for name, counted in totals.items():
        account = accounts.get(name.sample_uuid, name.sample_uuid)
        sums[account] = sums[account].plus(Bytes(*counted))
    return sums


def _covers(sums: Bytes, earlier: Bytes) -> bool:
    return covers(Totals(*sums), Totals(*earlier))


def _expected(flowed: Bytes, exemptions: Sequence[Exemption]) -> Expected:
    listed = tuple(exemption for exemption in exemptions if any(exemption.bytes))
    high = flowed.minus(total(exemption.bytes for exemption in listed if exemption.is_certain))
    low = high.minus(total(exemption.bytes for exemption in listed if not exemption.is_certain))
    return Expected(Bytes(max(low.uplink, 0), max(low.downlink, 0)), high, listed)
