"""A cut of all attacks, small enough for every run of the tests: nothing is lost or doubled.

The full ones are run by `make torture`, and their figures are in docs/evidence/reliability.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.torture.attacks import ATTACKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.torture.arena import Arena
    from tests.torture.attacks import Attack

SEED = 20
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120


@pytest.mark.parametrize(
    "attack", [pytest.param(attack, id=attack.name) for attack in ATTACKS if attack.rounds_in_tests]
)
def test_an_attack_finds_nothing_wrong(arena: Arena, attack: Attack) -> None:
    """Each fault strikes a few times; what is wrong is told on stderr, with how to replay it."""
    for tally in attack.run(arena, SEED, attack.rounds_in_tests):
        if not tally.runs and tally.detail.startswith("not attacked"):
            pytest.skip(tally.detail)
        assert tally.runs > 0
        assert tally.is_clean, tally


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
