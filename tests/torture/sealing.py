"""Four collectors and `seal` at once: each run gets one leaf, and none of them waits for it.

A round is a minute: four runs, each of a source of its own, beside a `seal` that never stops.
"""

from __future__ import annotations

import random
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from billing_cli.jobs.collect import collect
from tests.support.sealing import Sealing
from tests.support.story import told_story
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from tests.support.story import Story
    from tests.torture.arena import Arena

COLLECTORS = 4
COUNT_LEAVES = """
SELECT count(*), count(DISTINCT leaf_number), min(leaf_number), max(leaf_number) + 1
  FROM billing.seals
"""

LOOK_SECONDS = 0.005

# Sessions that wait for one of `seal`, the only job that connects as the owner.
COUNT_WAITING = """
SELECT count(*)
  FROM pg_stat_activity AS waiting
  JOIN pg_stat_activity AS holder ON holder.pid = ANY (pg_blocking_pids(waiting.pid))
 WHERE waiting.datname = current_database() AND waiting.usename <> holder.usename
   AND holder.usename = current_user
"""


def beside(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Collect and seal at once; the log has every run once, and verifies."""
    with (
        arena.database() as place,
        tempfile.TemporaryDirectory() as directory,
        told_story(place.database_url, place.job_url) as story,
    ):
        sealing = Sealing(story, Path(directory), place.database_url)
        sources = _begin(story)
        has_ended = threading.Event()

        def seal_on() -> int:
            count = 0
            while not has_ended.is_set():
                sealing.seal()
                count += 1
            return count

        def look_on() -> int:
            with psycopg.connect(place.database_url, autocommit=True) as connection:
                found = 0
                while not has_ended.wait(LOOK_SECONDS):
                    row = connection.execute(COUNT_WAITING).fetchone()
                    found += row[0] if row else 0
                return found

        with ThreadPoolExecutor(COLLECTORS + 2) as pool:
            sealer = pool.submit(seal_on)
            looker = pool.submit(look_on)
            try:
                problems = sum(
                    _collect_minute(story, sources, pool, random.Random(seed + number))  # noqa: S311
                    for number in range(rounds)
                )
            finally:
                has_ended.set()
            seals = sealer.result()
            problems += looker.result()
        sealing.seal()
        runs = rounds * COLLECTORS
        (counts,) = story.rows(COUNT_LEAVES)
        problems += counts != (runs, runs, 0, runs)
        problems += len(sealing.verify().findings)
    detail = f"{seals} times sealed meanwhile"
    return [Tally("seal beside collectors", runs, broken_invariants=problems, detail=detail)]


def _begin(story: Story) -> list[str]:
    """Add a node for each collector, and collect the baseline."""
    sources = [f"jp-{number}" for number in range(COLLECTORS)]
    users = [story.add_user() for _ in range(3)]
    for source_id in sources:
        node = story.add_node(source_id)
        for user in users:
            node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.collect()
    return sources


def _collect_minute(
    story: Story, sources: list[str], pool: ThreadPoolExecutor, rng: random.Random
) -> int:
    """Collect a minute of all sources at once; return how many runs did not end well."""
    nodes = story.fleet.nodes.values()
    story.minute(*((stream, rng.randrange(1, 900), 1) for node in nodes for stream in node.streams))
    runs = [pool.submit(collect, story.context(), [source_id]) for source_id in sources]
    return sum(run.result().status != "ok" for run in runs)
