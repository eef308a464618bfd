"""Runs attacks side by side, each in an arena of its own, as many rounds as there is time for."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING

import psycopg

from tests.torture.arena import opened_arena
from tests.torture.attacks import ATTACKS, Attack
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AT_ONCE = 2
HEARTBEAT_SECONDS = 60.0

Outcome = tuple[list[Tally], str]
"""What an attack came to, and the version of the server that it had."""


def rounds_of(
    attacks: Sequence[Attack], rounds: int | None, minutes: float | None
) -> dict[str, int]:
    """Return how many rounds each attack has: those asked for, or what fits into the minutes."""
    if rounds is not None:
        return {attack.name: rounds for attack in attacks}
    if minutes is None:
        return {attack.name: attack.rounds for attack in attacks}
    full = sum(attack.typical_rounds * attack.seconds_per_round for attack in attacks)
    share = minutes * 60 * min(AT_ONCE, len(attacks)) / full
    return {attack.name: max(1, int(attack.typical_rounds * share)) for attack in attacks}


def run_all(rounds: Mapping[str, int], seed: int) -> Iterator[tuple[str, Outcome]]:
    """Run the attacks, the longest first; yield what each came to, as soon as it ends.

    One that breaks off is reported, and left out.
    """
    longest_first = sorted(rounds, key=lambda name: -_seconds(name, rounds[name]))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(AT_ONCE, mp_context=spawn, initializer=_end_with_parent) as pool:
        began = time.monotonic()
        running = {pool.submit(run_one, name, seed, rounds[name]): name for name in longest_first}
        while running:
            ended, _ = wait(running, HEARTBEAT_SECONDS, FIRST_COMPLETED)
            clock = f"{time.monotonic() - began:5.0f} s"
            if not ended:
                # The pool takes in the next one before there is anyone to do it.
                at_work = [name for future, name in running.items() if future.running()]
                say(f"{clock}  at work: {', '.join(at_work[:AT_ONCE])}")
            for future in ended:
                name = running.pop(future)
                outcome = _outcome_of(name, future)
                if outcome is not None:
                    for tally in outcome[0]:
                        say(f"{clock}  {name}: {_line(tally)}")
                    yield name, outcome


def run_one(name: str, seed: int, rounds: int) -> Outcome:
    """Run an attack in an arena of its own; return its tallies and the server's version."""
    # The driver remarks on each line that is cut, and cutting lines is what this is about.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    (attack,) = (known for known in ATTACKS if known.name == name)
    with opened_arena() as arena:
        with psycopg.connect(arena.server_url) as connection:
            version = connection.info.parameter_status("server_version") or ""
        return attack.run(arena, seed, rounds), version


def say(line: str) -> None:
    """Tell how far things are."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _end_with_parent() -> None:
    """End this process when the one that started it ends, however that comes about."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_end() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _line(tally: Tally) -> str:
    found = "nothing wrong" if tally.is_clean else "SOMETHING IS WRONG"
    return f"{tally.fault}: {tally.runs} runs, {found}"


def _outcome_of(name: str, future: Future[Outcome]) -> Outcome | None:
    error = future.exception()
    if error is None:
        return future.result()
    say(f"{name} broke off:")
    traceback.print_exception(error)
    return None


def _seconds(name: str, rounds: int) -> float:
    (attack,) = (known for known in ATTACKS if known.name == name)
    return min(rounds, attack.typical_rounds) * attack.seconds_per_round
