"""Others who hold what a job needs: rows, tables and sources, and two who wait for each other.

A round is one of four jobs that meets a lock. In every other one the lock is held until the job
has given up, otherwise until it is seen to wait.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psycopg

from tests.integration.database.stage import eventually
from tests.torture import scenes
from tests.torture.tally import Tally
from tests.torture.trial import chances, count, ends_well, impatient, see_to_the_books
from tests.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.arena import Arena, Place
    from tests.torture.scenes import LimitedWorld, Scene

    Target = tuple[Scene, LimitedWorld, Place]

# Long enough for a job to be seen waiting, on a busy machine too.
PATIENCE_SECONDS = 0.4

LOCKS = (
    "SELECT FROM public.users WHERE uuid = {account} FOR UPDATE",
    "SELECT FROM public.account_quota_states WHERE account_uuid = {account} FOR UPDATE",
    "SELECT pg_advisory_xact_lock(hashtextextended('billing:source:' || {source}, 0))",
    "SELECT FROM billing.sources WHERE source_id = {source} FOR UPDATE",
    "SELECT FROM billing.streams FOR UPDATE",
    "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE {table} IN SHARE MODE",
)
# When a session that waits looks whether it would wait for ever. It looks once: the other one
# does so later, in case it had begun to wait before there was anything to see.
SOON, LATER = "100ms", "500ms"

TABLES = (
    "public.users",
    "public.account_quota_states",
    "public.billing_ledger",
    "public.traffic_minute_buckets",
    "public.traffic_stat_checkpoints",
    "public.billing_source_sync_state",
    "billing.charges",
    "billing.gaps",
    "billing.runs",
    "billing.sources",
    "billing.streams",
    "billing.totals",
    "billing.usage_records",
)

COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%'
   AND wait_event_type = 'Lock'
"""
READ_ACCOUNTS = """
SELECT account_uuid::text FROM public.account_quota_states ORDER BY account_uuid
"""
COUNT_DEADLOCKS = """
SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()
"""
LOCK_ACCOUNT = """
SELECT FROM public.account_quota_states WHERE account_uuid = %s FOR UPDATE
"""


def hold(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Hold a lock that a job needs; a round is a lock."""
    total = Tally("another session holds locks", 0)
    with _targets(arena) as targets:
        for number in range(seed, seed + rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            scene, world, place = rng.choice(targets)
            verdict = Verdict()
            with scenes.copied(arena, world, place) as (copy, database):
                statement = rng.choice(LOCKS).format(
                    account=f"'{rng.choice(world.fleet.users).uuid}'",
                    source=f"'{rng.choice(scenes.NODES)}'",
                    table=rng.choice(TABLES),
                )
                _meet_lock(scene, copy, database, statement, verdict, number % 2 == 0)
            if not verdict.is_clean:
                verdict.tell("locks", number, f"{scene.name}, {statement}")
            total = total.plus(verdict.tally(total.fault))
    return [total]


def deadlock(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Lock accounts the other way round; a round is a deadlock, of which somebody is the victim."""
    total = Tally("deadlock provoked", 0)
    with _targets(arena) as targets:
        for number in chances(seed, rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            scene, world, place = rng.choice(targets)
            verdict = Verdict()
            with scenes.copied(arena, world, place) as (copy, database):
                noticed = _lock_each_other(scene, copy, database, verdict, number % 2 == 0)
            if not verdict.is_clean:
                verdict.tell("deadlock", number, scene.name)
            if noticed or not verdict.is_clean:
                total = total.plus(verdict.tally(total.fault))
            if total.runs == rounds:
                break
    return [total]


@contextmanager
def _targets(arena: Arena) -> Iterator[list[Target]]:
    with ExitStack() as stack:
        stack.enter_context(impatient())
        yield [
            (scene, *stack.enter_context(scenes.prepared(arena, scene))) for scene in scenes.SCENES
        ]


def _meet_lock(
    scene: Scene,
    world: LimitedWorld,
    place: Place,
    statement: str,
    verdict: Verdict,
    is_held_for_long: bool,
) -> None:
    world.limits = {"lock_timeout_seconds": PATIENCE_SECONDS} if is_held_for_long else {}
    with psycopg.connect(place.database_url) as other, ThreadPoolExecutor(1) as thread:
        other.execute(statement.encode())
        job = thread.submit(ends_well, lambda: scene.work(world), verdict)
        if not is_held_for_long:
            eventually(lambda: job.done() or count(place, COUNT_WAITING) > 0)
            other.rollback()
        job.result()
    world.limits = {}
    # A run that finds an account's row locked leaves the account's usage to the next one.
    see_to_the_books(scene, world, place, verdict, done=False)


def _lock_each_other(
    scene: Scene, world: LimitedWorld, place: Place, verdict: Verdict, is_job_the_victim: bool
) -> bool:
    """Tell whether there was a deadlock: whether either side has noticed one."""
    ours, theirs = (SOON, LATER) if is_job_the_victim else (LATER, SOON)
    with psycopg.connect(place.database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {place.name} SET deadlock_timeout = '{ours}'".encode())
        accounts = [account for (account,) in owner.execute(READ_ACCOUNTS)]
    noticed = False
    with psycopg.connect(place.database_url) as other, ThreadPoolExecutor(1) as thread:
        other.execute(f"SET deadlock_timeout = '{theirs}'".encode())
        other.execute(LOCK_ACCOUNT, (accounts[-1],))
        job = thread.submit(ends_well, lambda: scene.work(world), verdict)
        eventually(lambda: job.done() or count(place, COUNT_WAITING) > 0)
        try:
            other.execute(LOCK_ACCOUNT, (accounts[0],))
        except psycopg.errors.DeadlockDetected:
            noticed = True
        other.rollback()
        done = job.result()
        noticed = noticed or other.execute(COUNT_DEADLOCKS).fetchone() != (0,)
    see_to_the_books(scene, world, place, verdict, done=done)
    return noticed
