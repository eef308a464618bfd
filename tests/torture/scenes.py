"""Fleets whose history leads right up to a job, so that the job has a bit of everything to do."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.core.times import format_rfc3339
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import DEFAULT_START, Fleet
from tests.cli.command import environment_of as command_environment
from tests.integration.jobs.world import World
from tests.support.relay import relayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from billing_cli.core.result import RunResult
    from billing_cli.features.rerate.report import RerateResult
    from billing_cli.jobs.context import JobContext
    from billing_cli.simulator.server import RunningFleet
    from tests.support.relay import Side
    from tests.torture.arena import Arena, Place

NODES = ("jp-1", "us-1")

# More than a node can have moved, whatever credit it has saved up: the account's minute is held.
HELD_BYTES = 40_000_000_000_000

DOUBLED_PRICE = 2

# A catch-up takes several of them.
SMALL_STEPS = FetchPolicy(step_max_samples=60, page_limit=3)


@dataclass(frozen=True, slots=True)
class Scene:
    """What comes before a job, and the job itself: called here, and as a command line.

    `blurred` says that until the job is done minutes may be coarser than the truth. `settings`
    are what the command needs to do the same as the call. Of a job that `takes_one_step` nothing
    is stored where it fails.
    """

    name: str
    prepare: Callable[[LimitedWorld], None]
    work: Callable[[LimitedWorld], RunResult | RerateResult]
    command: Callable[[LimitedWorld], list[str]]
    settings: Mapping[str, str] = field(default_factory=dict)
    blurred: bool = False
    takes_one_step: bool = False


class LimitedWorld(World):
    """A world whose jobs have limits of their own: fields of `Database` by their name.

    `is_live` says that they run now, and not at the time that the scene is set in.
    """

    def __init__(
        self, database_url: str, running: RunningFleet, connection: psycopg.Connection[Any]
    ) -> None:
        super().__init__(database_url, running, connection)
        self.limits: dict[str, float] = {}
        self.is_live = False

    def context(self, now: datetime) -> JobContext:
        """Return what a run at that time gets."""
        context = super().context(now)
        limits: dict[str, Any] = dict(self.limits)
        return replace(context, database=replace(context.database, **limits))


@contextmanager
def prepared(
    arena: Arena, scene: Scene, start: datetime = DEFAULT_START
) -> Iterator[tuple[LimitedWorld, Place]]:
    """Play a scene up to its job, and serve it as long as the block lasts.

    Nobody is connected to the place any more: it is there to be copied.
    """
    with arena.database() as place, played(scene, *place, start=start) as world:
        world.connection.close()
        yield world, place


@contextmanager
def played(
    scene: Scene, database_url: str, job_url: str, *, start: datetime = DEFAULT_START
) -> Iterator[LimitedWorld]:
    """Play a scene up to its job in an empty database, and serve it as long as the block lasts."""
    with (
        serve(Fleet(seed=11, start=start)) as running,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        world = LimitedWorld(job_url, running, connection)
        scene.prepare(world)
        yield world


@contextmanager
def copied(arena: Arena, world: LimitedWorld, place: Place) -> Iterator[tuple[LimitedWorld, Place]]:
    """Give the block the same world once more, in a copy of its database."""
    with (
        arena.database(copy_of=place) as copy,
        psycopg.connect(copy.database_url, autocommit=True) as connection,
    ):
        again = LimitedWorld(copy.job_url, world.running, connection)
        again.price, again.quota, again.fetching = world.price, world.quota, world.fetching
        again.watermarks = dict(world.watermarks)
        again.is_live = world.is_live
        yield again, copy


def messages_of(arena: Arena, scene: Scene, world: LimitedWorld, place: Place) -> dict[Side, int]:
    """Return how many messages either side sends in a run that nothing happens to."""
    with copied(arena, world, place) as (copy, _), relayed(copy.database_url) as relay:
        copy.database_url = relay.url
        scene.work(copy)
        return dict(relay.messages)


def environment_of(scene: Scene, world: LimitedWorld) -> dict[str, str]:
    """Return what configures the command."""
    return command_environment(world) | {"SOURCE_REVISION": "v1"} | dict(scene.settings)


def held_bytes(world: World) -> dict[str, int]:
    """Return how many bytes of which accounts no line can carry."""
    return {
        stream.name.sample_uuid: HELD_BYTES
        for node in world.fleet.nodes.values()
        for stream in node.streams
        if stream.downlink_total >= HELD_BYTES
    }


def _begin(world: World) -> None:
    """Bill some minutes of two nodes: several lines of a user, a proxy uuid, and a stranger."""
    first, second, third = world.add_users(3)
    stranger = world.fleet.new_uuid()
    for source_id in NODES:
        node = world.add_node(source_id, [first, second])
        node.add_stream(third.proxy_uuid)
        node.add_stream(stranger)
    world.fleet.nodes["jp-1"].add_stream(first.uuid, "second")
    world.flow_until(4)
    world.pending_allowed = True
    world.run(world.at(5))
    # The stranger's account appears, and what it used so far is to be billed.
    world.fleet.add_user(stranger)
    world.save_users()


def _eventful(world: World, until: float) -> None:
    """Let traffic flow on: counters restart, a line is new, one is broken, a poll is missing."""
    jp, us = (world.fleet.nodes[source_id] for source_id in NODES)
    jp.restart_xray(world.at(4) + timedelta(seconds=1))
    us.add_stream(world.fleet.users[0].uuid, "new")
    (broken,) = world.add_users(1)
    world.flow_until(5)
    jump = jp.add_stream(broken.uuid, idle=True)
    jp.hide(world.at(5.5), world.at(7.5))
    us.run(world.at(6))
    us.snapshot(world.at(6))
    jp.run(world.at(8))
    jp.snapshot(world.at(8))
    world.flow_until(8.5)
    jp.flow(jump, 0, HELD_BYTES)
    world.flow_until(until)


def _before_collect(world: World) -> None:
    _begin(world)
    _eventful(world, 10)


def _before_catch_up(world: World) -> None:
    _before_collect(world)
    world.fetching = SMALL_STEPS


def _before_reconcile(world: World) -> None:
    """Snapshots of both nodes are published only after they were bridged; counters restarted.

    The quota is used up long before. Otherwise what is given back could fill it up again, and
    what an account has to pay would depend on more than what it moved.
    """
    world.quota = 2_000_000
    _begin(world)
    jp, us = (world.fleet.nodes[source_id] for source_id in NODES)
    world.flow_until(6)
    us.restart_xray(world.at(6) + timedelta(seconds=1))
    world.flow_until(9)
    for node in (jp, us):
        node.withhold(world.at(4.5), world.at(7.5), world.at(12))
    world.unknown_buckets = True
    world.run_unchecked(world.at(10.6))


def _before_rerate(world: World) -> None:
    _begin(world)
    world.flow_until(9)
    world.run(world.at(10.6))
    world.price *= DOUBLED_PRICE


def _now(world: LimitedWorld) -> datetime:
    return datetime.now(UTC) if world.is_live else world.at(13)


def _rerate(world: LimitedWorld) -> RerateResult:
    order = Order(world.fleet.start, _now(world), "v2", "dearer from now on")
    return rerate(world.context(_now(world)), order, step_buckets=30)


def _range(world: LimitedWorld) -> list[str]:
    times = (format_rfc3339(moment) for moment in (world.fleet.start, _now(world)))
    return [part for pair in zip(("--since", "--until"), times, strict=True) for part in pair]


COLLECT = Scene(
    "collect",
    _before_collect,
    lambda world: world.run_unchecked(_now(world), collect),
    lambda _world: ["collect"],
    takes_one_step=True,
)
CATCH_UP = Scene(
    "catch-up",
    _before_catch_up,
    lambda world: world.run_unchecked(_now(world), catch_up),
    lambda _world: ["catch-up"],
    {
        "BILLING_STEP_MAX_SAMPLES": f"{SMALL_STEPS.step_max_samples}",
        "BILLING_PAGE_LIMIT": f"{SMALL_STEPS.page_limit}",
    },
)
RECONCILE = Scene(
    "reconcile",
    _before_reconcile,
    lambda world: world.run_unchecked(_now(world), reconcile, since=world.fleet.start),
    lambda world: ["reconcile", *_range(world)],
    blurred=True,
)
RERATE = Scene(
    "rerate",
    _before_rerate,
    _rerate,
    lambda world: ["rerate", *_range(world), "--pricing-rule-version", "v2", "--reason", "dearer"],
)
SCENES = (COLLECT, CATCH_UP, RECONCILE, RERATE)
