"""Fleets whose history leads right up to a job, so that the job has a bit of everything to do."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg

from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy
from billing_cli.jobs.reconcile import reconcile
from billing_cli.jobs.rerate import Order, rerate
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import DEFAULT_START, Fleet
from tests.jobs.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from billing_cli.core.rerate import RerateResult
    from billing_cli.core.result import RunResult
    from tests.torture.arena import Arena, Place

NODES = ("jp-1", "us-1")

# More than any line carries in a minute: the stream that shows it is held, all of it.
HELD_BYTES = 40_000_000_000

DOUBLED_PRICE = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """What comes before a job, and the job itself.

    `prepare` lets things flow and runs what goes before; `finish` changes what the job then
    meets. `blurred` says that until the job is done minutes may be coarser than the truth.
    """

    name: str
    prepare: Callable[[World], None]
    work: Callable[[World], RunResult | RerateResult]
    blurred: bool = False


@contextmanager
def prepared(arena: Arena, scene: Scene) -> Iterator[tuple[World, Place]]:
    """Serve the scene's fleet as long as the block lasts; the place is to be copied only."""
    fleet = Fleet(seed=11, start=DEFAULT_START)
    with serve(fleet) as running, arena.database() as place:
        with psycopg.connect(place.database_url, autocommit=True) as connection:
            world = World(place.job_url, running, connection)
            scene.prepare(world)
        yield world, place


@contextmanager
def copied(arena: Arena, world: World, place: Place) -> Iterator[tuple[World, Place]]:
    """Give the block the same world once more, in a copy of its database."""
    with (
        arena.database(copy_of=place) as copy,
        psycopg.connect(copy.database_url, autocommit=True) as connection,
    ):
        again = World(copy.job_url, world.running, connection)
        again.price, again.quota, again.fetching = world.price, world.quota, world.fetching
        again.watermarks = dict(world.watermarks)
        yield again, copy


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
    world.fetching = FetchPolicy(step_max_samples=36, page_limit=3)


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


def _now(world: World) -> datetime:
    return world.at(13)


def _rerate(world: World) -> RerateResult:
    order = Order(world.fleet.start, _now(world), "v2", "dearer from now on")
    return rerate(world.context(_now(world)), order, step_buckets=30)


COLLECT = Scene("collect", _before_collect, lambda world: world.run_unchecked(_now(world), collect))
CATCH_UP = Scene(
    "catch-up", _before_catch_up, lambda world: world.run_unchecked(_now(world), catch_up)
)
RECONCILE = Scene(
    "reconcile",
    _before_reconcile,
    lambda world: world.run_unchecked(_now(world), reconcile, since=world.fleet.start),
    blurred=True,
)
RERATE = Scene("rerate", _before_rerate, _rerate)
