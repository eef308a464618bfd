"""Starts `billing` as a control plane does: a child of another user, with next to nothing."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import billing_cli
from billing_cli.simulator.postgres import UNPRIVILEGED_USER
from tests.cli.command import Finished, ended, environment_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.integration.jobs.world import World

# Standard input is closed, not empty: the first file that is opened would take its number.
CLOSED_STDIN = '"$@" <&-'
ALL_CLOSED = '"$@" <&- >&- 2>&-'

# Where the packages are; the interpreter that runs the tests may be one that only root can start.
PACKAGES = f"{Path(billing_cli.__file__).parents[1]}:{Path(psycopg.__file__).parents[1]}"

# Starts a child with its output in a pipe, and waits for it, as long as it lives itself.
PARENT = "import subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)"


def reconcile(
    world: World, *arguments: str, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run `billing reconcile --json` to its end."""
    return ended(start_reconcile(world, *arguments, environment=environment))


def start_reconcile(
    world: World,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    streams: str = CLOSED_STDIN,
) -> subprocess.Popen[bytes]:
    """Start `billing reconcile --json`; whoever calls waits for it."""
    command = [unprivileged_python(), "-m", "billing_cli", "reconcile", "--json", *arguments]
    return spawn(shell(command, streams), minimal_environment(world) | dict(environment or {}))


def start_without_streams(world: World) -> subprocess.Popen[bytes]:
    """Start `billing reconcile --json` with nothing to read from and nothing to write to."""
    return start_reconcile(world, streams=ALL_CLOSED)


def start_below_a_parent(world: World) -> subprocess.Popen[bytes]:
    """Start a process that starts `billing reconcile --json` and reads what it prints."""
    python = unprivileged_python()
    command = shell([python, "-m", "billing_cli", "reconcile", "--json"], CLOSED_STDIN)
    return spawn([python, "-c", PARENT, *command], minimal_environment(world))


def minimal_environment(world: World) -> dict[str, str]:
    """Return what a child needs and nothing else: no PATH, no HOME, no locale."""
    return environment_of(world) | {"PYTHONPATH": PACKAGES}


def spawn(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command as an unprivileged user in the root directory."""
    return subprocess.Popen(  # noqa: S603 - our own command
        command,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **unprivileged(),
    )


def shell(command: list[str], streams: str) -> list[str]:
    """Return a command that is started with some of its standard streams closed."""
    return ["/bin/sh", "-c", f"exec {streams}", "sh", *command]


def unprivileged() -> dict[str, Any]:
    """Return the options that make a process someone else's, where tests run as root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


@cache
def unprivileged_python() -> str:
    """Return a Python that the unprivileged user may start. Skips the test where there is none.

    One in a home of root is none; the system's own of the same version will do.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{version}"):
        try:
            found = subprocess.run(  # noqa: S603 - our own command
                [candidate, "-c", "import psycopg, billing_cli"],
                cwd="/",
                env={"PYTHONPATH": PACKAGES},
                capture_output=True,
                check=False,
                **unprivileged(),
            )
        except OSError:
            continue
        if found.returncode == 0:
            return candidate
    pytest.skip(f"only root may run Python {version} here")
