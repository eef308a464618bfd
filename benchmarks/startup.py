"""How long the command takes to start, beside a Python that only imports the same libraries.

Every ratio is the median of pairs that ran right after each other, because the machine's mood
changes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.exporter import Fleet, minutes_ago
from benchmarks.measure import billing_cost
from benchmarks.world import running_world

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from billing_cli.simulator.postgres import EmbeddedPostgres

IMPORTS = [sys.executable, "-c", "import click, requests, psycopg, pydantic_settings, structlog"]
BILLING = [sys.executable, "-m", "billing_cli"]

STREAMS = 100
# The newest snapshot is so many minutes old: no source is stalled by that.
NEWEST = 2


def run(server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure `collect` that finds nothing new, `--help`, and `status`."""
    fleet = Fleet(minutes_ago(NEWEST + 2), STREAMS)
    with running_world(server, fleet) as world:
        for minute in (0, 2):
            world.exporter.offer(minute)
            world.billing("collect")
        environment = world.environment()
        rounds = [
            (
                _seconds(IMPORTS, environment),
                _seconds([*BILLING, "collect"], environment),
                _seconds([*BILLING, "--help"], environment),
                _seconds([*BILLING, "status", "--max-lag", "1e9"], environment),
            )
            for _ in range(sizes.startup_rounds)
        ]
        _, cost = billing_cost(world, "collect")
    results.run("`collect`, nothing new, without imports", cost, STREAMS)
    collect, start_help, status = (
        statistics.median(one[command] / one[0] for one in rounds) for command in (1, 2, 3)
    )
    results.figure("`collect`, nothing new", collect, "x importing its libraries", "nothing new")
    results.figure("`billing --help`", start_help, "x importing its libraries", "help")
    results.figure("`billing status`", status, "x importing the libraries of `collect`", "status")


def _seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return how long a command takes, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started
