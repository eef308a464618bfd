"""How long the command takes to start, beside a Python that only imports the same libraries.

Run as `python benchmarks/startup.py`. Every figure is the median ratio of pairs that ran right
after each other, because the machine's mood changes; the times are for orientation. It needs the
`demo` extra for its database.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.times import minute_of
from billing_cli.jobs.migrate import migrate
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.postgres import running_postgres
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROUNDS = 25
IMPORTS = [sys.executable, "-c", "import click, requests, psycopg, pydantic_settings, structlog"]
BILLING = [sys.executable, "-m", "billing_cli"]

COLLECT_LIMIT = 1.5
HELP_LIMIT = 1 / 3


def main() -> int:
    """Print the ratios; 1 where one is above its limit."""
    with tempfile.TemporaryDirectory(prefix="billing-") as directory:
        Path(directory).chmod(0o755)  # A server that root starts runs as someone else.
        with running_postgres(Path(directory) / "server", durable=False) as server:
            migrate(server.url())
            collect, start_help = measure(server.url())
    print(f"collect with nothing new  {collect:5.2f}   limit {COLLECT_LIMIT:.2f}")
    print(f"billing --help            {start_help:5.2f}   limit {HELP_LIMIT:.2f}")
    return 0 if collect <= COLLECT_LIMIT and start_help <= HELP_LIMIT else 1


def measure(database_url: str) -> tuple[float, float]:
    """Return what `collect` with nothing new and `--help` take, beside the imports alone."""
    now = minute_of(datetime.now(UTC))
    fleet = Fleet(start=now - timedelta(minutes=10))
    node = fleet.add_node("jp-1")
    for _ in range(100):
        node.add_stream(fleet.add_user().uuid)
    node.run(now - timedelta(minutes=2))
    with psycopg.connect(database_url) as connection:
        save_users(connection, fleet.users)
    with serve(fleet) as running:
        environment = os.environ | {
            "DATABASE_URL": database_url,
            "EXPORTER_SOURCES_JSON": json.dumps(running.sources()),
        }
        first = subprocess.run(
            [*BILLING, "collect", "--json"], env=environment, check=True, capture_output=True
        )
        assert json.loads(first.stdout)["written_minutes"] > 0
        rounds = [
            (
                seconds_of(IMPORTS, environment),
                seconds_of([*BILLING, "collect"], environment),
                seconds_of([*BILLING, "--help"], environment),
            )
            for _ in range(ROUNDS)
        ]
    for name, column in zip(
        ("imports", "collect", "--help"), zip(*rounds, strict=True), strict=True
    ):
        print(f"{name:<24}  {statistics.median(column) * 1000:4.0f} ms")
    return (
        statistics.median(collect / imports for imports, collect, _ in rounds),
        statistics.median(start_help / imports for imports, _, start_help in rounds),
    )


def seconds_of(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return how long a command takes, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
