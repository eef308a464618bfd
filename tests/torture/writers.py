"""Processes that are `billing`, to be killed or stopped: true commands, and forks of one process.

A command takes most of its time to import what it needs. A fork begins where all of that is done:
it parses its arguments and its environment, runs the job and ends as the command does. So a storm
of a thousand kills hits the writing, and takes minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

from billing_cli.__main__ import main
from tests.cli.command import PYTHON_PATH, command_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "billing_cli.cli.entry",
        "billing_cli.features.catch_up.command",
        "billing_cli.features.collect.command",
        "billing_cli.features.reconcile.command",
        "billing_cli.features.rerate.command",
        "billing_cli.features.archive.job",
        "billing_cli.features.prune.job",
        "billing_cli.features.seal.job",
        "billing_cli.config.settings",
        "billing_cli.exporter.fleet",
        "billing_cli.jobs.opening",
        "billing_cli.logs",
        "billing_cli.cli.text",
        __name__,
    ]
)


class Writer(Protocol):
    """A process that runs a command."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def is_alive(self) -> bool:
        """Tell whether it has not ended yet."""

    def wait(self) -> int:
        """Wait for its end, and return its exit code, or the negative number of a signal."""


class Fork:
    """A fork of a process in which everything is imported."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = FORKS.Process(target=_be_billing, args=(arguments, environment))
        self._process.start()
        self.pid = self._process.pid or 0

    def is_alive(self) -> bool:
        """Tell whether it has not ended yet."""
        return self._process.is_alive()

    def wait(self) -> int:
        """Wait for its end, and return its exit code, or the negative number of a signal."""
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        return code or 0


class Command:
    """The command itself, as a timer starts it."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command_line(*arguments),
            env={**PYTHON_PATH, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        """Tell whether it has not ended yet."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end, and return its exit code, or the negative number of a signal."""
        return self._process.wait()


def _be_billing(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (sys.stdout, sys.stderr):
        os.dup2(nowhere, output.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["billing", *arguments]
    main()
