"""1, 2, 4 and 8 workers over 200 sources, each with its shard: how many sources a second they do.

    python -m benchmarks.workers [--sources 200] [--streams 100] [--workers 1,2,4,8] [--rounds 3]

Every worker is a `billing collect --shard I/N` of its own, all started at once. Every stream moved
in the minute that they collect, and each source has users of its own. The rounds go through all
numbers of workers in turns, each with a minute of its own; medians are compared with one worker's.

"At work" counts from the first worker that began to the last that ended; "with start" also counts
the start of Python, which several hosts would each do by themselves; "CPU" is what all workers took
together at work, which shows whether anything is done twice. Workers, exporters and the database
share the cores of one machine here, so their number is the limit of the first two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.exporter import Fleet, minutes_ago
from benchmarks.world import ROOT, running_server, running_world
from billing_cli.core.times import parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.world import World


def main() -> int:
    """Measure and print; fail where a source was left out or worked on twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=200)
    parser.add_argument("--streams", type=int, default=100, help="of each source, all moving")
    parser.add_argument("--workers", default="1,2,4,8", help="how many, one after the other")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    counts = [int(one) for one in options.workers.split(",")]
    minutes = options.rounds * len(counts) + 1
    fleet = Fleet(minutes_ago(minutes + 2), options.streams, options.sources)
    seconds: dict[int, list[_Seconds]] = {count: [] for count in counts}
    with running_server() as server, running_world(server, fleet) as world:
        world.exporter.offer(0)
        world.billing("collect")
        for minute in range(1, minutes):
            count = counts[(minute - 1) % len(counts)]
            world.exporter.offer(minute)
            seconds[count].append(_run(world, count))
    print(f"{options.sources} sources with {options.streams} streams, {os.cpu_count()} cores")
    print("workers  sources/s  at work  with start    CPU")
    one = _median(seconds[counts[0]])
    for count, measured in seconds.items():
        many = _median(measured)
        print(
            f"{count:7}  {options.sources / many.at_work:9.0f}  {one.at_work / many.at_work:6.2f}x"
            f"  {one.with_start / many.with_start:9.2f}x  {many.cpu / one.cpu:4.2f}x"
        )
    return 0


@dataclass(frozen=True, slots=True)
class _Seconds:
    """How long the workers took side by side, and the CPU that all of them took at work."""

    at_work: float
    with_start: float
    cpu: float


def _run(world: World, count: int) -> _Seconds:
    """Let so many workers collect a minute. Raises RuntimeError where it is not done once."""
    world.vacuum()
    with psycopg.connect(world.url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    environment = world.environment()
    reports = [world.directory / f"worker-{one}.json" for one in range(count)]
    begun = time.perf_counter()
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.launch", str(report), "-"),
                *("collect", "--json", "--shard", f"{number}/{count}"),
            ],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number, report in enumerate(reports, start=1)
    ]
    said = [worker.communicate() for worker in workers]
    with_start = time.perf_counter() - begun
    if any(worker.returncode for worker in workers):
        raise RuntimeError(f"a worker failed: {said}")
    results = [json.loads(stdout) for stdout, _ in said]
    sources = sorted(one["source_id"] for result in results for one in result["sources"])
    written = sum(result["written_minutes"] for result in results)
    if sources != sorted(source["source_id"] for source in world.exporter.sources()):
        raise RuntimeError("a source was left out, or worked on twice")
    if written != world.fleet.sources * world.fleet.streams:
        raise RuntimeError(f"{written} minutes were written")
    cpu = sum(json.loads(report.read_text())["cpu_seconds"] for report in reports)
    return _Seconds(_span(results), with_start, cpu)


def _span(results: Sequence[dict[str, Any]]) -> float:
    begun = min(parse_rfc3339(result["started_at"]) for result in results)
    ended = max(parse_rfc3339(result["finished_at"]) for result in results)
    return (ended - begun).total_seconds()


def _median(measured: Sequence[_Seconds]) -> _Seconds:
    return _Seconds(
        statistics.median(one.at_work for one in measured),
        statistics.median(one.with_start for one in measured),
        statistics.median(one.cpu for one in measured),
    )


if __name__ == "__main__":
    sys.exit(main())
