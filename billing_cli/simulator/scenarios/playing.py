"""Plays a scenario: traffic and events minute by minute, and what a biller is to make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from billing_cli.core.times import closed_until
from billing_cli.simulator.expectation import Expected, expected_by_account, snapshots_read
from billing_cli.simulator.limits import Limits
from billing_cli.simulator.publication import Naming, as_counted
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from billing_cli.core.model import Snapshot
    from billing_cli.simulator.process import Stream
    from billing_cli.simulator.traffic import Node, User

MINUTE = timedelta(minutes=1)
SETTLE = timedelta(seconds=30)
"""How long after its end a minute is closed."""
RUNS_AFTER = timedelta(seconds=40)
"""When within a minute the collector runs."""

Counted = Literal["account", "proxy", "unresolved"]
"""By which uuid xray knows a user: the account's, its proxy uuid, or one without an account."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the node: the inbounds through which they come in, and how they are known."""

    inbounds: tuple[str, ...] = ("xhttp",)
    counted: Counted = "account"
    is_idle: bool = False


@dataclass(slots=True)
class Stage:
    """Where a scenario plays: the node, its users by name, and their streams by user and inbound.

    `now` is the true time. `factor` scales the traffic of a minute; 0 is silence.
    """

    fleet: Fleet
    node: Node
    now: datetime
    users: dict[str, User] = field(default_factory=dict)
    uuids: dict[str, str] = field(default_factory=dict)
    streams: dict[tuple[str, str], Stream] = field(default_factory=dict)
    factor: int = 1

    def add_stream(self, person: str, inbound: str, *, is_idle: bool = False) -> Stream:
        """Let a user come in through one more inbound."""
        stream = self.node.add_stream(self.uuids[person], inbound, idle=is_idle)
        self.streams[person, inbound] = stream
        return stream


Action = Callable[[Stage], None]
"""Something that happens half-way between two polls."""

USERS: Mapping[str, Person] = {
    "alice": Person(("xhttp", "tcp")),
    "bob": Person(),
    "idle": Person(is_idle=True),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A situation in words and in data. Minutes count from the first poll.

    `events` happen half-way before the poll of their minute. In `missed` minutes the exporter
    takes no snapshot, in `quiet` ones nothing flows, and in `away` ones the collector does not
    run. `opening` are the lifetime totals at the start, `naming` the names at the start.
    `is_exact` says that one figure only is right for each account when the collector runs every
    minute.
    """

    name: str
    description: str
    events: Mapping[int, Sequence[Action]]
    users: Mapping[str, Person] = field(default_factory=lambda: USERS)
    minutes: int = 20
    missed: Sequence[int] = ()
    quiet: Sequence[int] = ()
    away: Sequence[int] = ()
    naming: Naming = as_counted
    opening: int = 1_000_000
    truncates_stamps: bool = True
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario with its whole history, to be walked through from moment to moment."""

    scenario: Scenario
    stage: Stage

    @property
    def fleet(self) -> Fleet:
        """The fleet of one node; set its `present` to walk through what it serves."""
        return self.stage.fleet

    @property
    def node(self) -> Node:
        """The node."""
        return self.stage.node

    def moment(self, minute: int) -> datetime:
        """Return when the collector runs in a minute."""
        return self.fleet.start + minute * MINUTE + RUNS_AFTER

    @property
    def moments(self) -> tuple[datetime, ...]:
        """All moments at which the collector may run, two after the last poll included."""
        away = set(self.scenario.away)
        minutes = range(self.scenario.minutes + 3)
        return tuple(self.moment(minute) for minute in minutes if minute not in away)

    def cuttings(self) -> dict[str, tuple[datetime, ...]]:
        """Return ways to cut the history into runs, by name: the moments of the runs."""
        first, *later = (moment for moment in self.moments if moment > self.moment(0))
        ways = {
            "every minute": self.moments,
            "once at the end": (later[-1],),
            "first and last": (first, later[-1]),
        }
        for step in (2, 3, 7):
            for begin in range(step):
                between = later[begin:-1:step]
                ways[f"every {step} minutes from {begin}"] = (first, *between, later[-1])
        return ways

    def answer(self, moment: datetime) -> list[Snapshot]:
        """Return what the exporter offers of closed minutes, decoded, oldest stamp first."""
        end = closed_until(moment, SETTLE)
        return [
            taken.decoded() for taken in self.node.published(moment) if taken.collected_at < end
        ]

    def expected(self, moments: Sequence[datetime]) -> dict[str, Expected]:
        """Return what must be charged to each account when the collector ran at these moments.

        Users without an account are listed by the uuid that xray knows them by.
        """
        read = snapshots_read(self.node, moments, SETTLE)
        return expected_by_account(self.fleet, self.node, read, Limits())

    def accounts(self) -> dict[str, str]:
        """Map every published uuid to its account, or to itself where it has none."""
        owners = {user.uuid: user.uuid for user in self.fleet.users}
        return {user.proxy_uuid: user.uuid for user in self.fleet.users} | owners


def play(scenario: Scenario) -> Played:
    """Let everything happen, from the first poll to the last."""
    fleet = Fleet(seed=3)
    node = fleet.add_node("jp-1")
    node.naming = scenario.naming
    node.truncates_stamps, node.takes_older_stamps = scenario.truncates_stamps, True
    stage = Stage(fleet, node, fleet.start)
    for name, person in scenario.users.items():
        _enter(stage, name, person)
    for stream in stage.streams.values():
        node.flow(stream, scenario.opening * (stream.index + 1), 7 * scenario.opening)
    for minute in range(scenario.minutes + 1):
        stage.now = fleet.start + minute * MINUTE - MINUTE / 2
        _flow(stage, minute, scenario.quiet)
        for action in scenario.events.get(minute, ()):
            action(stage)
        _flow(stage, minute, scenario.quiet)
        if minute not in scenario.missed:
            # Some milliseconds after the minute, and never the same.
            node.snapshot(
                fleet.start + minute * MINUTE + (minute * 7919 % 400 + 1) * MINUTE / 60_000
            )
    return Played(scenario, stage)


def _enter(stage: Stage, name: str, person: Person) -> None:
    if person.counted == "unresolved":
        stage.uuids[name] = stage.fleet.new_uuid()
    else:
        user = stage.fleet.add_user()
        stage.users[name] = user
        stage.uuids[name] = user.uuid if person.counted == "account" else user.proxy_uuid
    for inbound in person.inbounds:
        stage.add_stream(name, inbound, is_idle=person.is_idle)


def _flow(stage: Stage, minute: int, quiet: Sequence[int]) -> None:
    """Let half a minute's bytes flow: other figures for each stream, direction and minute."""
    if minute in quiet:
        return
    for stream in stage.node.streams:
        if not stream.idle:
            uplink = 1_000 * (stream.index + 1) + 37 * minute
            stage.node.flow(stream, stage.factor * uplink, stage.factor * (9 * uplink + minute))
