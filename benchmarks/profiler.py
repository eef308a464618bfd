"""Where the time of one run goes: on the server by statement, in Python by function.

    python -m benchmarks.profiler [--streams 100000] [--minutes 1] [--job collect] [--lines 25]
                                  [--floor]

Three runs of the job, each over one more minute (or `--minutes` of them): the first makes the
streams and is not shown; the second is timed, with what the server logs about each statement (its
time to parse, bind and execute: bind is where array parameters are read); the third runs under
cProfile, which makes Python slower, so that only its proportions count. Fetching and decoding are
done in threads, which it does not see: they appear as waiting (`SimpleQueue.get`). `wal` is what
the second run added to the log: how many records, and how many of them whole pages. `--floor` adds
what EXPLAIN (ANALYZE, BUFFERS, WAL) says about each statement of the floor, with its foreign keys.
"""

from __future__ import annotations

import argparse
import pstats
import re
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

import psycopg

from benchmarks.exporter import MINUTE, Fleet, minutes_ago
from benchmarks.floor import OWN, SHARED, Floor
from benchmarks.world import running_server, running_world

if TYPE_CHECKING:
    from benchmarks.world import World

DURATION = re.compile(
    r"\w+ LOG:  duration: ([\d.]+) ms(?:  (parse|bind|execute|statement)[^:]*: (.*))?", re.DOTALL
)
PHASES = ("parse", "bind", "execute")
TITLE_LENGTH = 70
WAL = "SELECT wal_records, wal_fpi, wal_bytes FROM pg_stat_wal"


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--minutes", type=int, default=1)
    parser.add_argument("--job", default="collect")
    parser.add_argument("--lines", type=int, default=25)
    parser.add_argument("--floor", action="store_true")
    options = parser.parse_args()
    fleet = Fleet(minutes_ago(4 * options.minutes + 10), options.streams)
    settings = {"log_min_duration_statement": "0", "log_statement": "none"}
    with running_server(settings) as server, running_world(server, fleet) as world:
        world.exporter.offer(0)
        world.billing("collect")
        world.exporter.offer(options.minutes)
        world.billing(options.job)
        world.vacuum()
        _timed(world, options.job, 2 * options.minutes)
        _profiled(world, options.job, 3 * options.minutes, options.lines)
        if options.floor:
            floor = Floor(world)
            world.vacuum()
            floor.write(fleet.start, *SHARED, *OWN)
            print(*floor.explain(fleet.start + MINUTE, *SHARED, *OWN), sep="\n\n")
    return 0


def _timed(world: World, job: str, minute: int) -> None:
    """Run the job once and print what each statement took on the server."""
    world.exporter.offer(minute)
    log = world.server.directory / "log"
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute("SET log_min_duration_statement = -1")
        connection.execute("CHECKPOINT")
        begin = log.stat().st_size
        before = connection.execute(WAL).fetchone()
        result, cost = world.billing(job)
        after = connection.execute(WAL).fetchone()
    assert before
    assert after
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode()
    print(
        f"{job}: {result['processed_samples']} samples, {result['written_minutes']} minutes, "
        f"{cost['seconds']:.2f} s of which {cost['cpu_seconds']:.2f} s in Python, "
        f"{cost['peak_megabytes']:.0f} MB"
    )
    records, pages, size = (new - old for old, new in zip(before, after, strict=True))
    print(f"wal: {records} records, {pages} whole pages, {float(size) / 1e6:.0f} MB\n")
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for entry in text.split("@@ "):
        if found := DURATION.match(entry):
            milliseconds, phase, statement = found.groups()
            title = " ".join((statement or "").split()).replace('"', "")[:TITLE_LENGTH]
            phase = "execute" if phase in {None, "statement"} else phase
            spent[title][phase] += float(milliseconds)
    print(f"{'server, ms':{TITLE_LENGTH}} {'parse':>8} {'bind':>8} {'execute':>8} {'sum':>8}")
    for title, phases in sorted(spent.items(), key=lambda one: -sum(one[1].values())):
        _line(title, [phases[one] for one in PHASES])
    _line("all", [sum(one[phase] for one in spent.values()) for phase in PHASES])


def _line(title: str, figures: list[float]) -> None:
    print(f"{title:{TITLE_LENGTH}}", *(f"{one:8.1f}" for one in [*figures, sum(figures)]))


def _profiled(world: World, job: str, minute: int, lines: int) -> None:
    """Run the job once more and print which functions the time goes to."""
    world.exporter.offer(minute)
    file = world.directory / "profile"
    world.billing(job, profile=file)
    statistics = pstats.Stats(str(file), stream=sys.stdout)
    statistics.sort_stats("cumulative").print_stats("billing_cli/", lines)
    statistics.strip_dirs().sort_stats("tottime").print_stats(lines)


if __name__ == "__main__":
    sys.exit(main())
