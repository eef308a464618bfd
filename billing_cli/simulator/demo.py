"""The demo: half an hour of a fleet's traffic, billed while things go wrong, against the truth.

Everything is real but the fleet: a PostgreSQL server, HTTP on the loopback, and the `billing`
command as a user types it, each time as a process of its own.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psycopg

from billing_cli.core.times import closed_until, format_rfc3339
from billing_cli.simulator.accounts import save_funds, save_users
from billing_cli.simulator.demo_fleet import build_fleet
from billing_cli.simulator.demo_report import report
from billing_cli.simulator.invariants import read_books
from billing_cli.simulator.postgres import running_postgres, start_postgres
from billing_cli.simulator.server import serve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.simulator.demo_fleet import DemoFleet
    from billing_cli.simulator.postgres import EmbeddedPostgres
    from billing_cli.simulator.server import RunningFleet

DATABASE = "account"
SETTLE = timedelta(seconds=30)
PRICE_PER_BYTE = "0.000000002"
KILL_DEADLINE_SECONDS = 20.0

# Exit codes: all done, and done with something to look at (an unknown user, for example).
GOOD_EXITS = (0, 3)

# A writer that waits here has written its usage records, and not its ledger entries.
HOLD_LEDGER = "LOCK TABLE public.billing_ledger IN SHARE ROW EXCLUSIVE MODE"
COUNT_WAITING_WRITERS = """
SELECT count(*) FROM pg_locks
 WHERE NOT granted AND relation = 'public.billing_ledger'::regclass
"""
COUNT_WRITERS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing %'
"""
COUNT_FACTS = """
SELECT (SELECT count(*) FROM billing.usage_records),
       (SELECT count(*) FROM public.traffic_minute_buckets),
       (SELECT count(*) FROM public.billing_ledger)
"""


class DemoError(Exception):
    """The demo could not be played to its end. The text says why."""


def demo(keep: Path | None = None) -> bool:
    """Play the demo in a database of its own; return whether every byte was billed once.

    With `keep` the server's files live there and it goes on running, for a look with psql.
    Raises DemoError, EmbeddedPostgresError.
    """
    with ExitStack() as stack:
        if keep is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="billing-")))
            server = stack.enter_context(running_postgres(directory, durable=False))
        else:
            server = start_postgres(keep)
            stack.callback(_say_how_to_look, server, keep)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
        return play(server.url(DATABASE), datetime.now(UTC))


def play(database_url: str, now: datetime) -> bool:
    """Play the demo in an empty database; `now` is the present that the children will see too."""
    end = closed_until(now, SETTLE)
    demo_fleet = build_fleet(end - timedelta(minutes=30), end)
    with (
        serve(demo_fleet.fleet, endpoints=demo_fleet.endpoints) as running,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        stage = Stage(connection, _environment(database_url, running))
        return _run_steps(stage, demo_fleet)


def _run_steps(stage: Stage, demo_fleet: DemoFleet) -> bool:
    fleet, middle = demo_fleet.fleet, demo_fleet.middle
    _heading(
        "A database",
        "Our tables get a schema of their own. The shared ones, which belong to\n"
        "accounts.svc.plus, are created here because this database is empty.",
    )
    stage.billing("migrate", "--create-shared-tables")

    _heading("A fleet", demo_fleet.description)
    stage.show_environment()
    save_users(stage.connection, demo_fleet.known_users)
    save_funds(stage.connection, demo_fleet.funds)
    before = read_books(stage.connection, demo_fleet.default_funds)

    _heading(
        "The first quarter of an hour",
        "A source's first snapshot is only a starting point; from then on, what a counter\n"
        "grew between two snapshots is billed, in the minute of the later one.",
    )
    window = ("--since", format_rfc3339(fleet.start), "--until", format_rfc3339(middle))
    stage.billing("catch-up", *window)

    _heading(
        "An unknown user registers",
        "An unresolved uuid becomes an account, and a user's proxy uuid is renewed.\n"
        "What the new user has used so far is pending usage: the next run bills it.",
    )
    save_users(stage.connection, fleet.users)
    stage.say(f"{len(demo_fleet.known_users)} accounts were known, now {len(fleet.users)} are")

    _heading(
        "A writer dies",
        "It is killed between its usage records and its ledger entries, as a power cut\n"
        "would. Both are one transaction, so nothing of it may be left.",
    )
    stage.kill_a_writer()

    _heading("The next writer", "It starts from the same watermarks, as if nothing had been.")
    stage.billing("catch-up")

    _heading("Once more", "Running a command again must change nothing.")
    facts = stage.count_facts()
    stage.billing("catch-up")
    stage.billing("collect")
    stage.say(f"before: {facts}\nafter:  {stage.count_facts()}")

    _heading("What an operator sees", "Outage and restart are in the gap table, not hidden.")
    stage.billing("status")

    _heading("The truth", "The simulator knows each byte that flowed. Was each billed once?")
    lines, is_right = report(stage.connection, demo_fleet, before)
    click.echo("\n".join(lines))
    click.secho(
        "\nEvery byte that a snapshot reports was billed exactly once."
        if is_right
        else "\nThis is wrong: see above.",
        bold=True,
        fg="green" if is_right else "red",
    )
    return is_right


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo plays: a connection to look with, and the environment of the commands."""

    connection: psycopg.Connection[Any]
    environment: Mapping[str, str]

    def billing(self, *arguments: str) -> None:
        """Run the command as typed and show what it says. Raises DemoError where it fails."""
        click.secho(f"  $ {shlex.join(['billing', *arguments])}", fg="cyan")
        finished = subprocess.run(  # noqa: S603 -- our own command
            _command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        self.say(f"{finished.stdout}{finished.stderr}".strip())
        if finished.returncode not in GOOD_EXITS:
            raise DemoError(f"billing {arguments[0]} ended with exit code {finished.returncode}")

    def kill_a_writer(self) -> None:
        """Start a writer, hold the ledger so that it waits in mid-transaction, and kill it."""
        click.secho("  $ billing catch-up &\n  $ kill -9 $!", fg="cyan")
        before = self.count_facts()
        with self.connection.transaction():
            self.connection.execute(HOLD_LEDGER)
            with subprocess.Popen(  # noqa: S603 -- our own command
                _command("catch-up"),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ) as writer:
                try:
                    self._wait_for(COUNT_WAITING_WRITERS, 1, writer)
                finally:
                    writer.kill()
        self._wait_for(COUNT_WRITERS, 0)
        after = self.count_facts()
        self.say(f"before: {before}\nafter:  {after}")
        if before != after:
            raise DemoError("the dead writer left something behind")

    def count_facts(self) -> str:
        """Return how many rows the facts have."""
        row = self.connection.execute(COUNT_FACTS).fetchone()
        assert row is not None  # noqa: S101 -- a SELECT without FROM has a row
        return f"{row[0]} usage records, {row[1]} buckets, {row[2]} ledger entries"

    def show_environment(self) -> None:
        """Show what configures the commands: no more than three variables."""
        first, *others = json.loads(self.environment["EXPORTER_SOURCES_JSON"])
        sources = f"[{json.dumps(first)}, ... {len(others)} more]"
        shown = {
            "DATABASE_URL": "postgresql://...",
            "EXPORTER_SOURCES_JSON": sources,
            "PRICE_PER_BYTE": self.environment["PRICE_PER_BYTE"],
        }
        for name, value in shown.items():
            click.secho(f"  $ export {name}={shlex.quote(value)}", fg="cyan")

    def say(self, text: str) -> None:
        """Show what a command says, indented."""
        for line in text.splitlines():
            click.echo(f"  {line}".rstrip())

    def _wait_for(
        self, query: str, count: int, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        deadline = time.monotonic() + KILL_DEADLINE_SECONDS
        while True:
            row = self.connection.execute(query.encode()).fetchone()
            if row is not None and row[0] == count:
                return
            if process is not None and process.poll() is not None:
                raise DemoError(f"the writer ended by itself, with {process.returncode}")
            if time.monotonic() > deadline:
                raise DemoError("the writer did not reach its ledger entries, or did not end")
            time.sleep(0.02)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "billing_cli", *arguments]


def _environment(database_url: str, running: RunningFleet) -> dict[str, str]:
    """Return the environment of the commands: ours, and none of the caller's own settings."""
    ours = {
        "DATABASE_URL": database_url,
        "EXPORTER_SOURCES_JSON": json.dumps(running.sources()),
        "PRICE_PER_BYTE": PRICE_PER_BYTE,
        "BILLING_LOG_LEVEL": "error",
    }
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours
        and not name.startswith(("BILLING_", "EXPORTER_", "INITIAL_", "PG", "INTERNAL_"))
        and name not in {"DEFAULT_REGION", "SOURCE_REVISION"}
    }
    return kept | ours | running.credentials()


def _say_how_to_look(server: EmbeddedPostgres, directory: Path) -> None:
    psql = shlex.join([str(server.programs / "psql"), server.url(DATABASE)])
    stop = shlex.join([sys.executable, "-m", "billing_cli.simulator", "stop", str(directory)])
    click.echo(f"\nThe database goes on running. Look:  {psql}\nStop it:  {stop}")


def _heading(title: str, text: str) -> None:
    click.secho(f"\n{title}", bold=True)
    click.echo(f"{text}\n")
