"""A server, a fleet of exporters, and `billing` run as a command: what every benchmark needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.exporter import Exporter, Fleet, running_exporter
from billing_cli.errors import EXIT_OK, EXIT_PARTIAL
from billing_cli.features.migrate.job import migrate
from billing_cli.simulator.postgres import EmbeddedPostgres, running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]

# A durable server (fsync, synchronous_commit and full_page_writes are on, as by default) that
# makes its checkpoints when it is told to, so that each measured run begins right after one.
# Vacuum and analyze are run by hand between the runs, never beside one.
SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "log_parameter_max_length": "0",
    "log_line_prefix": "@@ %d ",
    "log_statement": "all",
}

PRICE_PER_BYTE = "0.000000001"
INITIAL_BALANCE = "100000"


@dataclass(frozen=True, slots=True)
class World:
    """A migrated database with the fleet's accounts, and the exporters that tell of them."""

    server: EmbeddedPostgres
    database: str
    exporter: Exporter

    @property
    def url(self) -> str:
        """The database, as its owner."""
        return self.server.url(self.database)

    @property
    def fleet(self) -> Fleet:
        """What the exporters tell of."""
        return self.exporter.fleet

    @property
    def directory(self) -> Path:
        """Where files of ours can be."""
        return self.server.directory.parent

    def billing(
        self,
        *arguments: str,
        profile: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """Run a command with `--json`; return its result object and what it cost.

        Raises RuntimeError where it could not do its work; what it found is in the result.
        """
        report = self.directory / f"{self.database}.json"
        words = [sys.executable, "-m", "benchmarks.launch", str(report), str(profile or "-")]
        done = subprocess.run(
            [*words, *arguments, "--json"],
            cwd=ROOT,
            env=self.environment() | dict(settings or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in {EXIT_OK, EXIT_PARTIAL}:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stdout} {done.stderr}")
        return json.loads(done.stdout), json.loads(report.read_text())

    def environment(self) -> dict[str, str]:
        """Return an environment that tells `billing` about this world, and nothing else."""
        ours = ("BILLING_", "EXPORTER_", "DATABASE_URL", "PG", "INITIAL_", "PRICE_")
        # An installed program is compiled; one that is measured must not be compiled in each run.
        ours = (*ours, "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | {
            "DATABASE_URL": self.url,
            "EXPORTER_SOURCES_JSON": json.dumps(self.exporter.sources()),
            "PRICE_PER_BYTE": PRICE_PER_BYTE,
            "INITIAL_BALANCE": INITIAL_BALANCE,
            # No backlog of ours is too old, and nothing here takes too long.
            "BILLING_INITIAL_LOOKBACK_HOURS": "240",
            "BILLING_STATEMENT_TIMEOUT_SECONDS": "3600",
            "BILLING_RUN_DEADLINE_SECONDS": "3600",
        }

    def vacuum(self) -> None:
        """Clear away dead rows and tell the planner how large the tables are."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")


@contextmanager
def running_server(settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedPostgres]:
    """Run a durable server with `SETTINGS` and those that are given beside, in a new directory."""
    with tempfile.TemporaryDirectory(prefix="billing-") as name:
        directory = Path(name)
        # The server of a root run is someone else's process, who must be let in.
        directory.chmod(0o755)
        with (
            running_postgres(directory / "postgres") as server,
            psycopg.connect(server.url(), autocommit=True) as connection,
        ):
            for key, value in {**SETTINGS, **(settings or {})}.items():
                connection.execute(f"ALTER SYSTEM SET {key} = '{value}'".encode())
        # Some settings are only read at the start.
        with running_postgres(directory / "postgres") as server:
            yield server


@contextmanager
def running_world(
    server: EmbeddedPostgres, fleet: Fleet, database: str = "account"
) -> Iterator[World]:
    """Make a database for a fleet, and run its exporters; both are gone after the block."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
        try:
            migrate(server.url(database))
            _add_users(server.url(database), fleet.accounts())
            with running_exporter(fleet) as exporter:
                yield World(server, database, exporter)
        finally:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


def _add_users(url: str, accounts: Sequence[str]) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY users (uuid, proxy_uuid, username, password) FROM STDIN") as copy:
            copy.write("".join(f"{account}\t{account}\tuser\t-\n" for account in accounts))
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
