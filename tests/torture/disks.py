"""A disk that is full: a real one of a megabyte, with one of the tables that a job writes on it.

A round is one of four jobs, and a table. Only root may mount a disk; for others there are no
rounds, and the table says so.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psycopg

from tests.support.disks import small_disk
from tests.torture import scenes
from tests.torture.tally import Tally
from tests.torture.trial import chances, ends_well, impatient, see_to_the_books
from tests.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.torture.arena import Arena, Place
    from tests.torture.scenes import LimitedWorld, Scene

DISK_BYTES = 1024 * 1024
PAGE_BYTES = 8192

FAULT = "disk full"

READ_TABLES = """
SELECT format('%I.%I', nspname, relname)
  FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace
 WHERE relkind = 'r' AND nspname IN ('public', 'billing')
   AND relname NOT IN ('users', 'alembic_version', 'account_billing_profiles')
 ORDER BY 1
"""

# Not compressed, and not moved out of the row: each takes a page.
FILLER = """
CREATE TABLE public.filler (filler text) TABLESPACE small;
ALTER TABLE public.filler ALTER filler SET STORAGE PLAIN
"""


def fill(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Let a job find no room for one of its tables; a round is a run without room."""
    total = Tally(FAULT, 0)
    with ExitStack() as stack:
        disk = stack.enter_context(_small_tablespace(arena))
        if disk is None:
            return [Tally(FAULT, 0, detail="not attacked: only root may mount a disk")]
        stack.enter_context(impatient())
        targets = [
            (scene, *stack.enter_context(scenes.prepared(arena, scene))) for scene in scenes.SCENES
        ]
        for number in chances(seed, rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            scene, world, place = rng.choice(targets)
            verdict = Verdict()
            with scenes.copied(arena, world, place) as (copy, database):
                table, was_full = _without_room(scene, copy, database, rng, verdict)
            if not verdict.is_clean:
                verdict.tell("disk", number, f"{scene.name}, no room in {table}")
            if was_full or not verdict.is_clean:
                total = total.plus(verdict.tally(FAULT))
            if total.runs == rounds:
                break
    return [total]


def _without_room(
    scene: Scene, world: LimitedWorld, place: Place, rng: random.Random, verdict: Verdict
) -> tuple[str, bool]:
    """Tell which table had no room, and whether the job has met that."""
    with psycopg.connect(place.database_url, autocommit=True) as owner:
        table = rng.choice([name for (name,) in owner.execute(READ_TABLES)])
        owner.execute(f"ALTER TABLE {table} SET TABLESPACE small".encode())
        owner.execute(FILLER)
        _fill_up(owner)
        done = ends_well(lambda: scene.work(world), verdict)
        owner.execute("DROP TABLE public.filler")
    see_to_the_books(scene, world, place, verdict, done=done)
    return table, not done


def _fill_up(owner: psycopg.Connection) -> None:
    for _ in range(2 * DISK_BYTES // PAGE_BYTES):
        try:
            owner.execute("INSERT INTO public.filler VALUES (repeat('x', 8000))")
        except psycopg.errors.DiskFull:
            return
    raise AssertionError("the disk is larger than it should be")


@contextmanager
def _small_tablespace(arena: Arena) -> Iterator[Path | None]:
    """Make a disk that is soon full the tablespace `small`; None where that is not allowed."""
    with small_disk(arena.server.directory, DISK_BYTES) as path:
        if path is None:
            yield None
            return
        with psycopg.connect(arena.server_url, autocommit=True) as server:
            server.execute(f"CREATE TABLESPACE small LOCATION '{path}'".encode())
            try:
                yield path
            finally:
                server.execute("DROP TABLESPACE small")
