"""Blows to the server while a job is at work: it crashes, or one of its backends is ended.

A round is a blow that falls when a chosen message passes between one of four jobs and PostgreSQL,
in a copy of a database that has everything to be done.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from tests.torture import scenes
from tests.torture.bystander import neighbour_around
from tests.torture.tally import Tally
from tests.torture.trial import chances, face, impatient
from tests.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.relay import Severance, Side
    from tests.torture.arena import Arena, Place

TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%'
"""


def crash(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Crash the server and start it again; a round is a crash."""

    def strike(_place: Place) -> None:
        arena.crash()
        arena.start()

    return [_strike(arena, seed, rounds, strike, "PostgreSQL crashed and restarted", "crash")]


def terminate(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """End the backend of a job; a round is a backend."""

    def strike(place: Place) -> None:
        with psycopg.connect(place.database_url) as connection:
            connection.execute(TERMINATE)

    return [_strike(arena, seed, rounds, strike, "backend terminated", "terminate")]


def _strike(
    arena: Arena,
    seed: int,
    rounds: int,
    strike: Callable[[Place], None],
    fault: str,
    attack: str,
) -> Tally:
    total = Tally(fault, 0)
    with ExitStack() as stack:
        stack.enter_context(impatient())
        targets = []
        for scene in scenes.SCENES:
            world, place = stack.enter_context(scenes.prepared(arena, scene))
            targets.append((scene, world, place, scenes.messages_of(arena, scene, world, place)))
        for number in chances(seed, rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            scene, world, place, messages = rng.choice(targets)
            side: Side = rng.choice(["client", "server"])
            verdict = Verdict()
            with scenes.copied(arena, world, place) as (copy, database):
                blow = Blow(
                    side,
                    rng.randrange(messages[side]),
                    rng.choice(["withheld", "delivered", None]),
                    partial(strike, database),
                )
                around = neighbour_around(copy, database, number, verdict)
                face(scene, copy, database, blow, verdict, around)
            if not verdict.is_clean:
                verdict.tell(attack, number, f"{scene.name}, {side} message {blow.number}")
            if blow.has_fallen or not verdict.is_clean:
                total = total.plus(verdict.tally(fault))
            if total.runs == rounds:
                break
    return total


@dataclass(slots=True)
class Blow:
    """Does its work once, when one message passes."""

    side: Side
    number: int
    severance: Severance
    strike: Callable[[], None]
    has_fallen: bool = False

    def __call__(self, side: Side, number: int) -> Severance:
        """Judge a message."""
        if (side, number) != (self.side, self.number):
            return None
        self.strike()
        self.has_fallen = True
        return self.severance
