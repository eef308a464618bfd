"""Starts `billing` as a child process, with nothing but the environment that a test gives it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import billing_cli
from tests.support.forks import TIMEOUT_SECONDS, run_forked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from tests.integration.jobs.world import World

MINUTES = 8
"""How long a site's history is."""

# The package under test, wherever the child is started.
PYTHON_PATH = {"PYTHONPATH": str(Path(billing_cli.__file__).parents[1])}


def environment_of(world: World) -> dict[str, str]:
    """Return what configures `billing` for a world's fleet and database."""
    sources = [
        source | world.overrides.get(source["source_id"], {}) for source in world.running.sources()
    ]
    return {
        "DATABASE_URL": world.database_url,
        "EXPORTER_SOURCES_JSON": json.dumps(sources),
        "PRICE_PER_BYTE": f"{world.price:f}",
        "INITIAL_INCLUDED_QUOTA_BYTES": str(world.quota),
        "INITIAL_BALANCE": f"{world.balance:f}",
        **world.running.credentials(),
    }


def billing(
    *arguments: str, environment: Mapping[str, str], cwd: Path | None = None, stdin: bytes = b""
) -> Finished:
    """Run the command to its end."""
    return Finished(*run_forked(arguments, environment, cwd=cwd, stdin=stdin))


def start_billing(*arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the command; whoever calls waits for it."""
    return subprocess.Popen(  # noqa: S603 - our own command
        command_line(*arguments),
        env={**PYTHON_PATH, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes]) -> Finished:
    """Wait for a started command."""
    stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    return Finished(process.returncode, stdout.decode(), stderr.decode())


def wait_until(is_so: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is so; a command that ends before fails the test."""
    while not is_so():
        assert process.poll() is None, ended(process)
        time.sleep(0.01)


def command_line(*arguments: str) -> list[str]:
    """Return the arguments that start the command."""
    return [sys.executable, "-m", "billing_cli", *arguments]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended, and what it said where."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """Return the one JSON object that stdout holds, and nothing else beside it."""
        assert self.stdout.endswith("\n"), self
        result = json.loads(self.stdout)
        assert isinstance(result, dict)
        return result

    @property
    def log(self) -> list[dict[str, Any]]:
        """Return the log lines of stderr, each a JSON object."""
        return [json.loads(line) for line in self.stderr.splitlines()]

    def source(self, source_id: str) -> dict[str, Any]:
        """Return a source's part of the result."""
        (found,) = [one for one in self.result["sources"] if one["source_id"] == source_id]
        return dict(found)


@dataclass(slots=True)
class Site:
    """A world whose history ends now, and the command that is configured for it.

    The exporters offer what they have by `present`; None is all.
    """

    world: World
    extra: dict[str, str] = field(default_factory=dict)
    present: datetime | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What configures the command at present."""
        return environment_of(self.world) | self.extra

    def billing(self, *arguments: str, **options: Any) -> Finished:
        """Run the command to its end."""
        self.world.fleet.present = self.present
        return billing(*arguments, environment=self.environment, **options)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the command."""
        self.world.fleet.present = self.present
        return start_billing(*arguments, environment=self.environment)

    def has_two_nodes(self) -> None:
        """Let two users use two nodes, up to a minute ago."""
        users = self.world.add_users(2)
        self.world.add_node("jp-1", users)
        self.world.add_node("us-1", users)
        self.world.flow_until(MINUTES)
