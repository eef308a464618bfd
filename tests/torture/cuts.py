"""The line to PostgreSQL severed at every message of a job, one after the other.

A message is one of the wire protocol, of either side, from the startup message on. At each the
line is severed hard: both sockets are closed at once, with a reset for the client. A message of
the client is either withheld (the server never gets it) or delivered (the server works on it, and
nobody is there to be told); one of the server is withheld, the answer to COMMIT like any other.
How many there are is counted in a run that nothing happens to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.features.migrate.job import migrate
from tests.integration.database.stage import eventually
from tests.support.relay import relayed
from tests.torture import scenes
from tests.torture.arena import JOB_ROLE
from tests.torture.tally import Tally
from tests.torture.trial import (
    COUNT_RUNNING,
    count,
    ends_well,
    ends_well_at_last,
    face,
    impatient,
)
from tests.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.relay import Severance, Side
    from tests.torture.arena import Arena, Place
    from tests.torture.scenes import Scene

# Neighbouring rounds go to points far from each other, so that any number of them covers all of
# a run. It is a prime, so that each point has its turn before one comes again.
STRIDE = 7919

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
        points = points_of(relay.messages)
        tables = count(place, COUNT_TABLES)
    with impatient():
        for number, point in chosen_points(points, seed, rounds):
            verdict = Verdict()
            with arena.database(migrated=False) as place:
                cut = _migrate_cut_at(place, point, tables, verdict)
            if cut or not verdict.is_clean:
                total = _add(total, verdict, "cut-migrate", number, point)
    return [_with_points(total, points)]


def _cut_scene(arena: Arena, scene: Scene, seed: int, rounds: int) -> list[Tally]:
    total = Tally(f"connection cut in {scene.name}", 0)
    with scenes.prepared(arena, scene) as (world, place):
        points = points_of(scenes.messages_of(arena, scene, world, place))
        with impatient():
            for number, point in chosen_points(points, seed, rounds):
                verdict = Verdict()
                with scenes.copied(arena, world, place) as (copy, database):
                    severing = Severing(point)
                    face(scene, copy, database, severing, verdict)
                if severing.happened or not verdict.is_clean:
                    total = _add(total, verdict, f"cut-{scene.name}", number, point)
    return [_with_points(total, points)]


def points_of(messages: dict[Side, int]) -> list[Point]:
    """Return where a line that carries so many messages can be severed."""
    return [
        *(Point("client", number, "withheld") for number in range(messages["client"])),
        *(Point("client", number, "delivered") for number in range(messages["client"])),
        *(Point("server", number, "withheld") for number in range(messages["server"])),
    ]


def chosen_points(points: list[Point], seed: int, rounds: int) -> Iterator[tuple[int, Point]]:
    """Return as many points as there are rounds, each with the seed by which it comes first."""
    for number in range(seed, seed + min(rounds, len(points))):
        yield number, points[number * STRIDE % len(points)]


def _migrate_cut_at(place: Place, point: Point, tables: int, verdict: Verdict) -> bool:
    """Migrate while the line is severed, and once more. Tells whether it was severed."""
    with relayed(place.database_url) as relay:
        relay.judge_message = severing = Severing(point)
        done = ends_well(lambda: migrate(relay.url, grant_to=JOB_ROLE), verdict)
    eventually(lambda: not count(place, COUNT_RUNNING))
    found = count(place, COUNT_TABLES)
    if found not in ({tables} if done else {0, tables}):
        verdict.problems.append(f"{found} of {tables} tables are there")
    if not ends_well_at_last(lambda: migrate(place.database_url, grant_to=JOB_ROLE), verdict):
        verdict.problems.append("further migrations did not end well")
    if not ends_well(lambda: migrate(place.database_url, check=True), verdict):
        verdict.problems.append("the schema is not what it should be")
    return severing.happened


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
