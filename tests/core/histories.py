"""Random histories of a source, ways to cut them into runs, and a naive account of their bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from hypothesis import strategies as st

from billing_cli.core.model import DeltaPolicy, Snapshot, StreamName, Totals, UsageRecord
from tests.core.stories import ALICE, ALICE_TCP, BOB, NODE, NOON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

STREAMS = (ALICE, ALICE_TCP, BOB)

# Quarters of a second are exact in binary, so that a limit computed in floats has no other value
# than the fractions here. From polls every few seconds to gaps of several minutes.
PAUSES_SECONDS = (0.25, 1, 7, 15, 29.75, 60, 60, 60, 61.5, 119, 300, 1200)

# 1,000 bytes a second: small and middling growth is plausible, the large one never is.
RATES_BITS_PER_SECOND = (8_000, 8_000, 0)
GROWTHS_BYTES = (0, 1, 2, 17, 999, 1_000, 60_000, 60_001, 10**7, 10**13)


class Event(NamedTuple):
    """What happens to a stream before a snapshot."""

    kind: Literal["grows", "restarts", "is absent"]
    uplink: int = 0
    downlink: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Snapshots of one node, and the policy that they are read with."""

    snapshots: tuple[Snapshot, ...]
    policy: DeltaPolicy


class Bytes(NamedTuple):
    """Bytes by direction."""

    uplink: int
    downlink: int


@dataclass(frozen=True, slots=True)
class Account:
    """What a history's bytes amount to, by stream and minute."""

    charged: dict[tuple[StreamName, datetime], Bytes]
    held: dict[tuple[StreamName, datetime], Bytes]
    resets: int


growths = st.sampled_from(GROWTHS_BYTES)
events = st.one_of(
    st.just(Event("grows")),
    st.builds(Event, st.just("grows"), growths, growths),
    st.builds(Event, st.just("restarts"), growths, growths),
    st.just(Event("is absent")),
)


@st.composite
def histories(draw: st.DrawFn, *, min_snapshots: int = 1) -> History:
    """Return a history of up to 25 snapshots of three streams."""
    ticks = draw(
        st.lists(
            st.tuples(st.sampled_from(PAUSES_SECONDS), st.tuples(*[events] * len(STREAMS))),
            min_size=min_snapshots,
            max_size=25,
        )
    )
    policy = DeltaPolicy(
        account_rate_bits_per_second=draw(st.sampled_from(RATES_BITS_PER_SECOND)),
        charge_first_snapshot=draw(st.booleans()),
    )
    at, counters, snapshots = NOON, dict.fromkeys(STREAMS, Totals(0, 0)), []
    for pause, happened in ticks:
        at += timedelta(seconds=pause)
        present = {}
        for name, event in zip(STREAMS, happened, strict=True):
            before = Totals(0, 0) if event.kind == "restarts" else counters[name]
            counters[name] = Totals(before.uplink + event.uplink, before.downlink + event.downlink)
            if event.kind != "is absent":
                present[name] = counters[name]
        snapshots.append(Snapshot(at, NODE, present))
    return History(tuple(snapshots), policy)


def runs_of(data: st.DataObject, snapshots: Sequence[Snapshot]) -> list[list[Snapshot]]:
    """Return the snapshots cut into consecutive runs, each of whole minutes, as drawn."""
    runs: list[list[Snapshot]] = []
    for minute in by_minute(snapshots):
        joins = data.draw(st.booleans())
        if runs and joins:
            runs[-1].extend(minute)
        else:
            runs.append(list(minute))
    return runs


def by_minute(snapshots: Iterable[Snapshot]) -> list[list[Snapshot]]:
    """Return the snapshots grouped by the UTC minute that holds them."""
    groups: dict[datetime, list[Snapshot]] = {}
    for one in snapshots:
        groups.setdefault(whole_minute(one.collected_at), []).append(one)
    return list(groups.values())


def naive_account(history: History) -> Account:
    """Compute each stream's bytes from its own snapshots alone, by the rules in words.

    A total of the source's first snapshot counts only where the policy says so; a stream that
    comes later began at zero, after the snapshot before. Between two sightings the difference
    counts, or the new totals where one of them fell. More than the line's rate is held.
    """
    account = Account({}, {}, 0)
    rate = history.policy.account_rate_bits_per_second
    for name in STREAMS:
        for at, since, moved, is_reset in movements(history, name):
            seconds = 0 if since is None else max(Fraction(1), seconds_between(since, at))
            is_held = rate > 0 and since is not None and 8 * sum(moved) > rate * seconds
            books = account.held if is_held else account.charged
            if moved != (0, 0):
                add(books, (name, whole_minute(at)), moved)
            account = replace(account, resets=account.resets + is_reset)
    return account


def movements(
    history: History, name: StreamName
) -> Iterator[tuple[datetime, datetime | None, Bytes, bool]]:
    """Yield a stream's steps as (at, since, bytes, is a reset); `since` None is unknown."""
    stamps = [one.collected_at for one in history.snapshots]
    seen = [(one.collected_at, one.totals[name]) for one in history.snapshots if name in one.totals]
    for first_at, first in seen[:1]:
        if first_at != stamps[0]:
            yield first_at, stamps[stamps.index(first_at) - 1], Bytes(*first), False
        elif history.policy.charge_first_snapshot:
            yield first_at, None, Bytes(*first), False
    for (since, old), (at, new) in pairwise(seen):
        if new.uplink >= old.uplink and new.downlink >= old.downlink:
            yield at, since, Bytes(new.uplink - old.uplink, new.downlink - old.downlink), False
        else:
            yield at, since, Bytes(*new), True


def bytes_of(records: Iterable[UsageRecord]) -> dict[tuple[StreamName, datetime], Bytes]:
    """Return the records' bytes by stream and minute."""
    books: dict[tuple[StreamName, datetime], Bytes] = {}
    for one in records:
        add(books, (one.name, one.bucket_start), Bytes(one.uplink_bytes, one.downlink_bytes))
    return books


def add(
    books: dict[tuple[StreamName, datetime], Bytes], key: tuple[StreamName, datetime], moved: Bytes
) -> None:
    """Add bytes to those of a stream's minute."""
    before = books.get(key, Bytes(0, 0))
    books[key] = Bytes(before.uplink + moved.uplink, before.downlink + moved.downlink)


def seconds_between(since: datetime, at: datetime) -> Fraction:
    """Return the elapsed seconds, exactly."""
    return Fraction((at - since) // timedelta.resolution, 10**6)


def whole_minute(moment: datetime) -> datetime:
    """Return the moment without its seconds, by arithmetic of its own."""
    return NOON + (moment - NOON) // timedelta(minutes=1) * timedelta(minutes=1)
