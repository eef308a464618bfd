"""The line to PostgreSQL severed at every message of a job, one after the other.

A message is one of the wire protocol, of either side, from the startup message on. At each the
line is severed hard: both sockets are closed at once, with a reset for the client. A message of
the client is either withheld (the server never gets it) or delivered (the server works on it, and
nobody is there to be told); one of the server is withheld, the answer to COMMIT like any other.
How many there are is counted in a run that nothing happens to.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, NamedTuple
from unittest import mock

import psycopg

from billing_cli.errors import BillingError
from billing_cli.jobs.migrate import migrate
from billing_cli.store import connection as store_connection
from tests.database.stage import eventually
from tests.support.relay import relayed
from tests.torture import scenes
from tests.torture.arena import JOB_ROLE
from tests.torture.tally import Tally
from tests.torture.verdict import Verdict, look_between, look_finally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.jobs.world import World
    from tests.support.relay import Severance, Side
    from tests.torture.arena import Arena, Place
    from tests.torture.scenes import Scene

# Neighbouring rounds go to points far from each other, so that any number of them covers all of
# a run. It is a prime, so that each point has its turn before one comes again.
STRIDE = 7919

RERUNS = 5

COUNT_RUNNING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%'
"""
COUNT_TABLES = """
SELECT count(*) FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace
 WHERE relkind IN ('r', 'p') AND nspname IN ('public', 'billing')
"""


class Point(NamedTuple):
    """Where the line is severed: the sender's message of that number, from 0, and how."""

    side: Side
    number: int
    severance: Severance


def cut_collect(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Sever the line of a `collect`; a round is a point."""
    return _cut_scene(arena, scenes.COLLECT, seed, rounds)


def cut_catch_up(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Sever the line of a `catch-up` of several steps; a round is a point."""
    return _cut_scene(arena, scenes.CATCH_UP, seed, rounds)


def cut_reconcile(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Sever the line of a `reconcile` that finds something; a round is a point."""
    return _cut_scene(arena, scenes.RECONCILE, seed, rounds)


def cut_rerate(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Sever the line of a `rerate` of several steps; a round is a point."""
    return _cut_scene(arena, scenes.RERATE, seed, rounds)


def cut_migrate(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Sever the line of a `migrate` of an empty database; a round is a point."""
    total = Tally("connection cut in migrate", 0)
    with arena.database(migrated=False) as place, relayed(place.database_url) as relay:
        migrate(relay.url, grant_to=JOB_ROLE)
        points = _points(relay.messages)
        tables = _count(place, COUNT_TABLES)
    with impatient():
        for number, point in _chosen(points, seed, rounds):
            verdict = Verdict()
            with arena.database(migrated=False) as place:
                cut = _migrate_cut_at(place, point, tables, verdict)
            if cut or not verdict.is_clean:
                total = _add(total, verdict, "cut-migrate", number, point)
    return [_with_points(total, points)]


@contextmanager
def impatient() -> Iterator[None]:
    """Let jobs of this process try again at once."""
    with (
        mock.patch.object(store_connection, "RETRY_PAUSE_SECONDS", 0),
        mock.patch.object(store_connection, "COMMIT_CHECK_PAUSE_SECONDS", 0.02),
    ):
        yield


def _cut_scene(arena: Arena, scene: Scene, seed: int, rounds: int) -> list[Tally]:
    total = Tally(f"connection cut in {scene.name}", 0)
    with scenes.prepared(arena, scene) as (world, place):
        points = _points(_messages_of(arena, scene, world, place))
        with impatient():
            for number, point in _chosen(points, seed, rounds):
                verdict = Verdict()
                with scenes.copied(arena, world, place) as (copy, database):
                    cut = _run_cut_at(scene, copy, database, point, verdict)
                if cut or not verdict.is_clean:
                    total = _add(total, verdict, f"cut-{scene.name}", number, point)
    return [_with_points(total, points)]


def _messages_of(arena: Arena, scene: Scene, world: World, place: Place) -> dict[Side, int]:
    with scenes.copied(arena, world, place) as (copy, _), relayed(copy.database_url) as relay:
        copy.database_url = relay.url
        scene.work(copy)
        return dict(relay.messages)


def _points(messages: dict[Side, int]) -> list[Point]:
    return [
        *(Point("client", number, "withheld") for number in range(messages["client"])),
        *(Point("client", number, "delivered") for number in range(messages["client"])),
        *(Point("server", number, "withheld") for number in range(messages["server"])),
    ]


def _chosen(points: list[Point], seed: int, rounds: int) -> Iterator[tuple[int, Point]]:
    """Return as many points as there are rounds, each with the seed by which it comes first."""
    for number in range(seed, seed + min(rounds, len(points))):
        yield number, points[number * STRIDE % len(points)]


def _run_cut_at(scene: Scene, world: World, place: Place, point: Point, verdict: Verdict) -> bool:
    """Run the job while its line is severed, and again until it is done. Tells if it was."""
    direct = world.database_url
    done = False
    with relayed(direct) as relay:
        severing = Severing(point)
        relay.judge_message = severing
        world.database_url = relay.url
        try:
            done = scene.work(world).status in {"ok", "partial"}
        except BillingError:
            done = False
        finally:
            world.database_url = direct
    # The server may not have noticed yet that nobody is there any more.
    eventually(lambda: not _count(place, COUNT_RUNNING))
    look_between(world, verdict, blurred=scene.blurred)
    if not done:
        done = _again(lambda: scene.work(world))
    if not done:
        verdict.problems.append(f"{RERUNS} further runs did not end well")
    # Whoever says that all is done must have done all.
    look_finally(world, verdict, scenes.held_bytes(world))
    return severing.happened


def _migrate_cut_at(place: Place, point: Point, tables: int, verdict: Verdict) -> bool:
    """Migrate while the line is severed, and once more. Tells whether it was severed."""
    done = True
    with relayed(place.database_url) as relay:
        severing = Severing(point)
        relay.judge_message = severing
        try:
            migrate(relay.url, grant_to=JOB_ROLE)
        except BillingError:
            done = False
    eventually(lambda: not _count(place, COUNT_RUNNING))
    found = _count(place, COUNT_TABLES)
    if found not in ({tables} if done else {0, tables}):
        verdict.problems.append(f"{found} of {tables} tables are there")
    if not _again(lambda: migrate(place.database_url, grant_to=JOB_ROLE)):
        verdict.problems.append(f"{RERUNS} further migrations did not end well")
    migrate(place.database_url, check=True)
    return severing.happened


def _again(work: Callable[[], object]) -> bool:
    """Do it until it ends well, a limited number of times. Tells whether it did."""
    for _ in range(RERUNS):
        try:
            result = work()
        except BillingError:
            continue
        if getattr(result, "status", "ok") in {"ok", "partial"}:
            return True
    return False


def _count(place: Place, query: LiteralString) -> int:
    with psycopg.connect(place.database_url) as connection:
        (number,) = connection.execute(query).fetchone() or (0,)
        return int(number)


def _add(total: Tally, verdict: Verdict, attack: str, seed: int, point: Point) -> Tally:
    if not verdict.is_clean:
        verdict.tell(attack, seed, f"{point.side} message {point.number} {point.severance}")
    return total.plus(verdict.tally(total.fault))


def _with_points(total: Tally, points: list[Point]) -> Tally:
    detail = f"{total.runs} of {len(points)} cut points"
    return Tally(total.fault, 0, detail=detail).plus(total)


@dataclass(slots=True)
class Severing:
    """Severs the line once, at one point."""

    point: Point
    happened: bool = False

    def __call__(self, side: Side, number: int) -> Severance:
        """Judge a message."""
        if (side, number) != self.point[:2]:
            return None
        self.happened = True
        return self.point.severance
