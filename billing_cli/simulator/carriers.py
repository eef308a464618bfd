"""Which snapshot reports which bytes, and of which bytes none ever can.

No difference of counters is taken to find what flowed: each movement in a stream's log is carried
by the first snapshot that could report it.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from billing_cli.simulator.process import Bytes, Life, Movement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from billing_cli.simulator.history import Snapshot
    from billing_cli.simulator.process import Stream
    from billing_cli.simulator.traffic import Node

Reason = Literal["baseline", "unseen", "reset", "hidden_reset", "unresolved"]
"""Why bytes are not billed.

baseline: they flowed before the first snapshot that a biller saw of the source.
unseen: no snapshot within the bounds reports them yet.
reset: they flowed between the last snapshot seen and a restart of the counters.
hidden_reset: the counters had overtaken their old values when they were next seen, so that the
restart cannot be noticed and as many bytes as the old totals go missing.
unresolved: the sample's uuid belongs to no account.
"""


def follow(
    node: Node,
    stream: Stream,
    visible: Sequence[Snapshot],
    *,
    noticed: Collection[int] = (),
    charge_first_snapshot: bool = False,
) -> Iterator[tuple[Snapshot | None, Reason | None, Bytes]]:
    """Yield a stream's bytes by the snapshot that carries them, and the reason against billing.

    `visible` are the snapshots that a biller read, in true order. `noticed` are the restarts, by
    number, that other streams of the node show; any other restart shows only where this stream's
    own totals decrease.
    """
    reported, reported_life = Bytes(), Life(0)
    for carrier, movements in _carried(node, stream, visible):
        moved = total(movements.values())
        if carrier is None:
            yield None, "unseen", moved
            continue
        life = stream.life_at(carrier.index, carrier.restarts)
        current = _of_life(movements, life)
        if carrier is visible[0] and not charge_first_snapshot:
            yield carrier, "baseline", moved
        else:
            overtaken = _overtaken(reported, reported_life, current, life)
            passed = range(reported_life.restarts + 1, life.restarts + 1)
            if any(
                restart in noticed
                and (current != reported or _vanishes_with(stream, visible, restart))
                for restart in passed
            ):
                overtaken = Bytes()
            yield carrier, "reset", moved.minus(current)
            yield carrier, "hidden_reset", overtaken
            yield carrier, None, current.minus(overtaken)
        reported = _continued(reported, reported_life, life).plus(current)
        reported_life = life
    yield None, "unseen", stream.spliced


def _vanishes_with(stream: Stream, visible: Sequence[Snapshot], restart: int) -> bool:
    """Return whether the first snapshot after a restart leaves out a stream of before."""
    place = next(at for at, snapshot in enumerate(visible) if snapshot.restarts >= restart)
    return visible[place - 1].holds(stream) and not visible[place].holds(stream)


def _carried(
    node: Node, stream: Stream, visible: Sequence[Snapshot]
) -> Iterator[tuple[Snapshot | None, dict[Life, Bytes]]]:
    """Group a stream's movements by the snapshot that reports them, each by the counters' life.

    A restart is reported as well, by zero bytes: a snapshot at 0 shows it, whatever comes later.
    """
    restarts = [index for index, _ in node.restarts]
    events = stream.movements_by_life()
    for index in (*restarts, *(index for _, index, _ in stream.resets)):
        life = stream.life_at(index, sum(restart <= index for restart in restarts))
        events.append(Movement(index, life, Bytes()))
    events.sort(key=itemgetter(0, 1))
    remaining = iter(visible)
    carrier: Snapshot | None = next(remaining, None)
    group: dict[Life, Bytes] = {}
    for index, life, moved in events:
        moved_on = carrier
        while moved_on is not None and (moved_on.index < index or not moved_on.holds(stream)):
            moved_on = next(remaining, None)
        if moved_on is not carrier and group:
            yield carrier, group
            group = {}
        carrier = moved_on
        group[life] = group.get(life, Bytes()).plus(moved)
    if group:
        yield carrier, group


def _of_life(movements: Mapping[Life, Bytes], life: Life) -> Bytes:
    """Return what is still in the counters of that life, by direction."""
    current = Bytes()
    for moved_in, moved in movements.items():
        if moved_in.restarts == life.restarts:
            current = current.plus(
                Bytes(
                    moved.uplink if moved_in.uplink_resets == life.uplink_resets else 0,
                    moved.downlink if moved_in.downlink_resets == life.downlink_resets else 0,
                )
            )
    return current


def _continued(reported: Bytes, reported_life: Life, life: Life) -> Bytes:
    """Return what was reported of counters that still go on in that life."""
    if reported_life.restarts != life.restarts:
        return Bytes()
    return Bytes(
        reported.uplink if reported_life.uplink_resets == life.uplink_resets else 0,
        reported.downlink if reported_life.downlink_resets == life.downlink_resets else 0,
    )


def _overtaken(reported: Bytes, reported_life: Life, current: Bytes, life: Life) -> Bytes:
    """Return what was reported of counters that began again and have passed it unnoticed.

    `current` is what flowed in that life since; a restart shows where either direction is below.
    """
    if reported_life.restarts != life.restarts:
        covers = current.uplink >= reported.uplink and current.downlink >= reported.downlink
        return reported if covers else Bytes()
    ended = reported.minus(_continued(reported, reported_life, life))
    return Bytes(
        ended.uplink if current.uplink >= ended.uplink else 0,
        ended.downlink if current.downlink >= ended.downlink else 0,
    )


def total(parts: Iterable[Bytes]) -> Bytes:
    """Return the sum by direction."""
    added = Bytes()
    for part in parts:
        added = added.plus(part)
    return added
