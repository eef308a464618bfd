"""Writers killed by SIGKILL, and writers stopped by SIGSTOP beyond every timeout.

A round is a writer of its own in a copy of a database that has everything to be done: one of four
jobs, killed either when a chosen message passes between it and PostgreSQL, or after a time. Where
the fork or the command was faster than its killer, the round does not count.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import minute_of
from billing_cli.errors import EXIT_BUSY, EXIT_FAILED, EXIT_OK, EXIT_PARTIAL, EXIT_UNAVAILABLE
from tests.support.relay import relayed
from tests.torture import scenes
from tests.torture.bystander import neighbour_around
from tests.torture.tally import Tally
from tests.torture.trial import COUNT_RUNNING, chances, count, ends_well_at_last, see_to_the_books
from tests.torture.verdict import Verdict
from tests.torture.writers import Command, Fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.support.relay import Severance, Side
    from tests.torture.arena import Arena, Place
    from tests.torture.scenes import LimitedWorld, Scene
    from tests.torture.writers import Writer

    Start = Callable[[Sequence[str], Mapping[str, str]], Writer]

DONE = {EXIT_OK, EXIT_PARTIAL}
HONEST = {*DONE, EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_BUSY}

# On a machine that stalls, an exporter's answer may come too late.
STALLS = 3

# Real writers live in real time: the history that they meet has to be over by now.
AGO = timedelta(minutes=20)

# The least that the configuration allows, and a while more.
TIMEOUTS = {"BILLING_STATEMENT_TIMEOUT_SECONDS": "1", "BILLING_LOCK_TIMEOUT_SECONDS": "1"}
PAUSE_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Target:
    """A scene that is ready, what its writer's line carries, and how long a writer lives."""

    scene: Scene
    world: LimitedWorld
    place: Place
    messages: Mapping[Side, int]
    life_seconds: float


def kill_forks(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Kill forked writers; a round is a kill."""
    return [_kill(arena, seed, rounds, Fork, "SIGKILL of a forked writer", "kill-forks")]


def kill_commands(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Kill commands; a round is a kill."""
    return [_kill(arena, seed, rounds, Command, "SIGKILL of `billing`", "kill-commands")]


def pause(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Stop writers at a message, until the server has lost its patience; a round is a pause.

    In every other one somebody else does the work meanwhile.
    """
    total = Tally("client stopped beyond its timeouts, and continued", 0)
    with _targets(arena, Fork) as targets:
        for number in chances(seed, rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            target = rng.choice(targets)
            stop = _at_some_message(rng, target, signal.SIGSTOP)
            verdict = Verdict()
            with scenes.copied(arena, target.world, target.place) as (world, place):
                code = _stopped(target.scene, world, place, stop, verdict, number % 2 == 0)
                # It may have left a source to whoever holds it, which its exit code can't tell.
                _judge(target.scene, world, place, verdict, code, done=False)
            if not verdict.is_clean:
                verdict.tell("pause", number, f"{target.scene.name}, stopped at {stop.where}")
            if stop.has_struck.is_set() or not verdict.is_clean:
                total = total.plus(verdict.tally(total.fault))
            if total.runs == rounds:
                break
    return [total]


def _kill(arena: Arena, seed: int, rounds: int, start: Start, fault: str, attack: str) -> Tally:
    total = Tally(fault, 0)
    with _targets(arena, start) as targets:
        for number in chances(seed, rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            target = rng.choice(targets)
            verdict = Verdict()
            with scenes.copied(arena, target.world, target.place) as (world, place):
                if rng.random() < 0.6:
                    kill = _at_some_message(rng, target, signal.SIGKILL)
                else:
                    kill = Strike(signal.SIGKILL, after_seconds=rng.uniform(0, target.life_seconds))
                with neighbour_around(world, place, number, verdict):
                    code = _struck(target.scene, world, start, kill)
                _judge(target.scene, world, place, verdict, code, done=code in DONE)
            if not verdict.is_clean:
                verdict.tell(attack, number, f"{target.scene.name}, killed at {kill.where}")
            if code == -signal.SIGKILL or not verdict.is_clean:
                total = total.plus(verdict.tally(fault))
            if total.runs == rounds:
                break
    return total


@contextmanager
def _targets(arena: Arena, start: Start) -> Iterator[list[Target]]:
    """Make all scenes ready, and let one writer go through each of them undisturbed."""
    with ExitStack() as stack:
        targets = []
        for scene in scenes.SCENES:
            begin = minute_of(datetime.now(UTC)) - AGO
            world, place = stack.enter_context(scenes.prepared(arena, scene, begin))
            world.is_live = True
            targets.append(_target(arena, scene, world, place, start))
        yield targets


def _target(arena: Arena, scene: Scene, world: LimitedWorld, place: Place, start: Start) -> Target:
    code = 0
    for _ in range(STALLS):
        with scenes.copied(arena, world, place) as (copy, _), relayed(copy.database_url) as line:
            copy.database_url = line.url
            undisturbed = Strike(signal.SIGKILL)
            line.judge_message = undisturbed
            writer = _start(scene, copy, start)
            undisturbed.takes_aim_at(writer)
            code = writer.wait()
            if code in DONE:
                life_seconds = time.monotonic() - undisturbed.began_at
                return Target(scene, world, place, dict(line.messages), life_seconds)
    raise AssertionError(f"undisturbed, {scene.name} ends with {code}")


def _at_some_message(rng: random.Random, target: Target, number: signal.Signals) -> Strike:
    side: Side = rng.choice(["client", "server"])
    severance: Severance = rng.choice(["withheld", None])
    message = rng.randrange(target.messages[side])
    return Strike(number, (side, message), None if number == signal.SIGSTOP else severance)


def _struck(scene: Scene, world: LimitedWorld, start: Start, strike: Strike) -> int:
    with relayed(world.database_url) as relay:
        relay.judge_message = strike
        direct, world.database_url = world.database_url, relay.url
        writer = _start(scene, world, start)
        world.database_url = direct
        strike.takes_aim_at(writer)
        strike.waits()
        return writer.wait()


def _stopped(
    scene: Scene,
    world: LimitedWorld,
    place: Place,
    stop: Strike,
    verdict: Verdict,
    somebody_else_works: bool,
) -> int:
    with relayed(world.database_url) as relay:
        relay.judge_message = stop
        direct, world.database_url = world.database_url, relay.url
        writer = _start(scene, world, Fork, TIMEOUTS)
        world.database_url = direct
        stop.takes_aim_at(writer)
        while writer.is_alive() and not stop.has_struck.wait(0.01):
            pass
        deadline = time.monotonic() + PAUSE_SECONDS
        while count(place, COUNT_RUNNING) and time.monotonic() < deadline:
            time.sleep(0.02)
        if somebody_else_works:
            ends_well_at_last(lambda: scene.work(world), verdict)
            # The writer that is stopped may yet store something, however these runs ended.
            verdict.failure = ""
        if stop.has_struck.is_set():
            os.kill(writer.pid, signal.SIGCONT)
        return writer.wait()


def _start(
    scene: Scene, world: LimitedWorld, start: Start, extra: Mapping[str, str] | None = None
) -> Writer:
    world.fleet.present = None
    environment = scenes.environment_of(scene, world) | dict(extra or {})
    return start(scene.command(world), environment)


def _judge(
    scene: Scene, world: LimitedWorld, place: Place, verdict: Verdict, code: int, *, done: bool
) -> None:
    if code not in {*HONEST, -signal.SIGKILL}:
        verdict.problems.append(f"exit code {code}")
    see_to_the_books(scene, world, place, verdict, done=done)


@dataclass(slots=True)
class Strike:
    """Sends a signal to a writer: at a message of its line, or some time after the first one."""

    number: signal.Signals
    at: tuple[Side, int] | None = None
    severance: Severance = None
    after_seconds: float | None = None
    began_at: float = 0.0
    has_begun: threading.Event = field(default_factory=threading.Event)
    has_struck: threading.Event = field(default_factory=threading.Event)
    has_aim: threading.Event = field(default_factory=threading.Event)
    pid: int = 0

    def __call__(self, side: Side, number: int) -> Severance:
        """Judge a message."""
        self.has_aim.wait()
        if not self.has_begun.is_set():
            self.began_at = time.monotonic()
            self.has_begun.set()
        if (side, number) != self.at:
            return None
        os.kill(self.pid, self.number)
        self.has_struck.set()
        return self.severance

    @property
    def where(self) -> str:
        """When it strikes, for the reader."""
        if self.at is None:
            return f"{self.after_seconds} seconds"
        return f"{self.at[0]} message {self.at[1]} {self.severance or 'let through'}"

    def takes_aim_at(self, writer: Writer) -> None:
        """Learn who is to be struck."""
        self.pid = writer.pid
        self.has_aim.set()

    def waits(self) -> None:
        """Wait for the time to strike, where it goes by time."""
        if self.after_seconds is not None:
            self.has_begun.wait(10)
            time.sleep(self.after_seconds)
            with suppress(ProcessLookupError):
                os.kill(self.pid, self.number)
