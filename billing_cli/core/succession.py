"""Counter succession: counters of an account that continue under other names.

An exporter upgrade merges, splits or renames inbound counters, or publishes the account's uuid in
place of the proxy uuid. xray does not restart, so the lifetime totals go on. Names do not matter
here: what matters is whether an account's new totals can hold those that are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from billing_cli.core.model import StreamName, Succession, SuccessionSide, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from datetime import datetime

ZERO = Totals(0, 0)


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What changed between two snapshots of a node in the streams of one account.

    `gone` have their last totals, `new` their first ones; `growth` is how far streams grew that
    are in both snapshots. A stream may be gone and new under the same name: its counter fell.
    """

    gone: Mapping[StreamName, Totals]
    new: Mapping[StreamName, Totals]
    growth: Mapping[StreamName, Totals]


def succession_of(change: AccountChange, at: datetime) -> Succession | None:
    """Return how the streams that are gone continue, or None where they do not.

    They continue in the new streams where those are at or above them in both directions; else in
    an existing stream that grew by at least their totals; else in new and existing ones together.
    Below that, what is new started at zero.
    """
    gone = total_of(change.gone.values())
    if gone == ZERO:
        return None
    for candidates in (change.new, _largest(change.growth), {**change.growth, **change.new}):
        if covers(total_of(candidates.values()), gone):
            parts = distribute(change.gone, candidates)
            return Succession(
                kind="renamed",
                at=at,
                ended=tuple(SuccessionSide(name, totals) for name, totals in change.gone.items()),
                continued=tuple(
                    SuccessionSide(name, totals) for name, totals in parts.items() if any(totals)
                ),
            )
    return None


def distribute(
    gone: Mapping[StreamName, Totals], candidates: Mapping[StreamName, Totals]
) -> dict[StreamName, Totals]:
    """Return which part of the totals that are gone each candidate takes over, exact in sum.

    One to one where that fits. Otherwise the largest candidates take over as much as they hold,
    each direction by itself.
    """
    pairs = one_to_one(gone, candidates)
    if pairs:
        return {name: gone[former] for name, former in pairs.items()}
    left = total_of(gone.values())
    parts = {}
    for name in sorted(candidates, key=lambda name: (-sum(candidates[name]), name)):
        parts[name] = smaller(candidates[name], left)
        left = minus(left, parts[name])
    return parts


def one_to_one(
    gone: Mapping[StreamName, Totals], candidates: Mapping[StreamName, Totals]
) -> dict[StreamName, StreamName]:
    """Return which stream that is gone each candidate continues, by inbound tag, else by size.

    Nothing where they are not as many, or where a candidate is below the one that it continues.
    """
    for pairs in (_by_tag(gone, candidates), _by_size(gone, candidates)):
        if all(covers(candidates[name], gone[former]) for name, former in pairs.items()) and pairs:
            return pairs
    return {}


def duplicates(
    totals: Mapping[StreamName, Totals],
    new: Collection[StreamName],
    account_of: Callable[[StreamName], str],
) -> set[StreamName]:
    """Return the new streams whose bytes another stream of the same snapshot counts already.

    That is one of the same account with equal totals, both above 0, that was there before, or
    that has the same inbound tag under another uuid; or all that were there before, in sum.
    """
    twins: dict[tuple[str, Totals], list[StreamName]] = {}
    for name, counted in totals.items():
        if counted.uplink and counted.downlink:
            twins.setdefault((account_of(name), counted), []).append(name)
    found = set()
    for (account, _), names in twins.items():
        # Where both are new, the one with the account's own uuid is kept.
        kept, *others = sorted(
            names, key=lambda name: (name in new, name.sample_uuid != account, name)
        )
        found |= {
            name
            for name in others
            if name in new and (kept not in new or kept.inbound_tag == name.inbound_tag)
        }
    return found | _sums(totals, new, account_of)


def _sums(
    totals: Mapping[StreamName, Totals],
    new: Collection[StreamName],
    account_of: Callable[[StreamName], str],
) -> set[StreamName]:
    """Return the new streams that are the sum of their account's other streams."""
    accounts = {account_of(name) for name in new}
    former: dict[str, list[Totals]] = {}
    for name, counted in totals.items():
        if name not in new and account_of(name) in accounts:
            former.setdefault(account_of(name), []).append(counted)
    sums = {account: total_of(counted) for account, counted in former.items()}
    return {
        name for name in new if all(totals[name]) and sums.get(account_of(name)) == totals[name]
    }


def with_uncertainty(
    successions: Iterable[Succession], totals: Mapping[StreamName, Totals], plausible_bytes: int
) -> list[Succession]:
    """State how many bytes are not charged that would be, had the counters started at zero.

    None where `totals`, those of the whole snapshot, hold more than can have moved since.
    """
    tags_left = {name.inbound_tag for name in totals}
    found = []
    for succession in successions:
        counted = total_of(totals[side.name] for side in succession.continued)
        uncertain_bytes = sum(total_of(side.totals for side in succession.continued))
        if (succession.kind == "renamed" and _is_certain(succession, tags_left)) or (
            sum(counted) > plausible_bytes
        ):
            uncertain_bytes = 0
        found.append(replace(succession, uncertain_bytes=uncertain_bytes))
    return found


def _is_certain(succession: Succession, tags_left: set[str]) -> bool:
    """Return whether the names explain a succession, so that nothing can have started at zero.

    They do where the inbound tags that are gone are gone from the whole node (`tags_left` are
    those that it still has), or where the same tags go on under another uuid.
    """
    ended = {side.name.inbound_tag for side in succession.ended}
    continued = {side.name.inbound_tag for side in succession.continued}
    return ended == continued or not ended & tags_left


def taken_over(successions: Iterable[Succession]) -> dict[StreamName, Totals]:
    """Return what each stream takes over by all of the successions."""
    taken: dict[StreamName, Totals] = {}
    for succession in successions:
        for name, totals in succession.continued:
            taken[name] = total_of((taken.get(name, ZERO), totals))
    return taken


def covers(totals: Totals, others: Totals) -> bool:
    """Return whether totals are at or above others in both directions."""
    return totals.uplink >= others.uplink and totals.downlink >= others.downlink


def restarted_from(former: Totals, totals: Totals) -> Totals:
    """Return what a counter continues from: each direction that decreased continues from zero."""
    return Totals(
        former.uplink if totals.uplink >= former.uplink else 0,
        former.downlink if totals.downlink >= former.downlink else 0,
    )


def total_of(totals: Iterable[Totals]) -> Totals:
    """Return the sum by direction."""
    uplink = downlink = 0
    for up, down in totals:
        uplink += up
        downlink += down
    return Totals(uplink, downlink)


def minus(totals: Totals, others: Totals) -> Totals:
    """Return the difference by direction."""
    return Totals(totals.uplink - others.uplink, totals.downlink - others.downlink)


def smaller(totals: Totals, others: Totals) -> Totals:
    """Return the smaller one of each direction."""
    return Totals(min(totals.uplink, others.uplink), min(totals.downlink, others.downlink))


def _largest(growth: Mapping[StreamName, Totals]) -> dict[StreamName, Totals]:
    if not growth:
        return {}
    name = min(growth, key=lambda name: (-sum(growth[name]), name))
    return {name: growth[name]}


def _by_tag(
    gone: Mapping[StreamName, Totals], candidates: Mapping[StreamName, Totals]
) -> dict[StreamName, StreamName]:
    """Pair streams of equal tags, where each tag is there once on both sides."""
    by_tag = {name.inbound_tag: name for name in gone}
    tags = {name.inbound_tag for name in candidates}
    if len(by_tag) != len(gone) or len(tags) != len(candidates) or tags != by_tag.keys():
        return {}
    return {name: by_tag[name.inbound_tag] for name in candidates}


def _by_size(
    gone: Mapping[StreamName, Totals], candidates: Mapping[StreamName, Totals]
) -> dict[StreamName, StreamName]:
    """Pair streams in the order of their totals, where there are as many on both sides."""
    if len(gone) != len(candidates):
        return {}
    ended = sorted(gone, key=lambda name: (sum(gone[name]), name))
    names = sorted(candidates, key=lambda name: (sum(candidates[name]), name))
    return dict(zip(names, ended, strict=True))
