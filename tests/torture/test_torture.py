"""How the attacks are run, by `make torture` and `.ci/run`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120


def test_killing_the_attacker_leaves_nothing_running() -> None:
    """Neither its processes nor their servers, nor a file."""
    with tempfile.TemporaryDirectory(prefix="billing-killed-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # The server of root's tests runs as someone else.
        attacker = subprocess.Popen(
            [sys.executable, "-m", "tests.torture", "--only", "cut-collect", "--rounds", "100000"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": name},
            stderr=subprocess.DEVNULL,
        )
        _wait_until(lambda: any(directory.glob("billing-tests-*/server/data/postmaster.pid")))
        started = _processes(name)
        attacker.kill()
        attacker.wait()
        _wait_until(lambda: not _processes(name) and not any(directory.glob("billing-tests-*")))
    assert started


def _processes(words: str) -> list[int]:
    """Return the processes whose environment or command line has these words."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        for file in ("environ", "cmdline"):
            try:
                if words.encode() in (directory / file).read_bytes():
                    found.append(int(directory.name))
            except OSError:
                continue
    return found


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
