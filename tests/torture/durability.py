"""The machine dies: all processes of the server are killed, and what was not synced is gone.

The server runs with `fsync`, on a file system of its own. A round is a power cut when a chosen
message passes between one of four jobs and PostgreSQL, or as soon as the job says that it is done:
then nothing is run again, and everything must be there.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from tests.integration.database.stage import eventually
from tests.support.machine import PowerlessDisk, powerless_disk
from tests.support.relay import relayed
from tests.torture import scenes
from tests.torture.arena import Arena
from tests.torture.tally import Tally
from tests.torture.trial import ends_well, impatient, see_to_the_books
from tests.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.simulator.postgres import EmbeddedPostgres
    from tests.support.relay import Severance, Side
    from tests.torture.arena import Place
    from tests.torture.scenes import LimitedWorld

FAULT = "machine died, with all that was not synced"


def power_cut(_arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Kill the machine of a durable server; a round is a power cut."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="billing-power-")))
        directory.chmod(0o755)
        disk = stack.enter_context(powerless_disk(directory))
        if disk is None:
            return [Tally(FAULT, 0, detail="not attacked: only root may mount a disk")]
        machine = Machine(Arena(disk.path / "server", durable=True), disk)
        stack.callback(machine.ends)
        # The cluster was made with `initdb --no-sync`.
        disk.sync()
        stack.enter_context(impatient())
        return [_cut_rounds(machine, stack, seed, rounds)]


def _cut_rounds(machine: Machine, stack: ExitStack, seed: int, rounds: int) -> Tally:
    arena = machine.arena
    verdicts = []
    targets: dict[str, tuple[LimitedWorld, Place, dict[Side, int]]] = {}
    for number in range(seed, seed + rounds):
        rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
        scene = rng.choice(scenes.SCENES)
        if scene.name not in targets:
            # With `fsync` it takes seconds: only what is attacked.
            world, place = stack.enter_context(scenes.prepared(arena, scene))
            messages = scenes.messages_of(arena, scene, world, place)
            targets[scene.name] = world, place, messages
        world, place, messages = targets[scene.name]
        verdict = Verdict()
        side: Side = rng.choice(["client", "server"])
        # Every other one comes when the job has ended.
        at = None if number % 2 else rng.randrange(messages[side])
        with scenes.copied(arena, world, place) as (copy, database):
            cut = PowerCut(machine, side, at)
            with relayed(copy.database_url) as relay:
                relay.judge_message = cut
                direct, copy.database_url = copy.database_url, relay.url
                done = ends_well(lambda: scene.work(copy), verdict)  # noqa: B023 - called here
                copy.database_url = direct
            cut.happens()
            see_to_the_books(scene, copy, database, verdict, done=done)
        if not cut.has_lost:
            verdict.problems.append("the disk has kept what was not synced: no power cut")
        if not verdict.is_clean:
            verdict.tell("power-cut", number, f"{scene.name}, {side} message {at}")
        verdicts.append(verdict)
    tallies = (verdict.tally(FAULT) for verdict in verdicts)
    return reduce(Tally.plus, tallies, Tally(FAULT, 0, detail="fsync on, ext4"))


@dataclass(slots=True)
class Machine:
    """A server and its disk."""

    arena: Arena
    disk: PowerlessDisk

    def dies(self) -> bool:
        """Die, and start again; tell whether the disk has lost what was not synced."""
        canary = self.disk.path / "unsynced"
        unsynced = os.urandom(100_000)
        canary.write_bytes(unsynced)
        _kill_all_of(self.arena.server)
        self.disk.cut_power()
        has_lost = not canary.exists() or canary.read_bytes() != unsynced
        # They name a process of before the power cut, whose number may be taken by now.
        server = self.arena.server
        for lock in (server.data / "postmaster.pid", *server.directory.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)
        self.arena.start()
        return has_lost

    def ends(self) -> None:
        """Stop the server."""
        self.arena.server.stop()


@dataclass(slots=True)
class PowerCut:
    """Lets the machine die once, when one message passes, or when it is told to."""

    machine: Machine
    side: Side
    at: int | None
    has_happened: bool = False
    has_lost: bool = field(default=True)

    def __call__(self, side: Side, number: int) -> Severance:
        """Judge a message."""
        if (side, number) == (self.side, self.at):
            self.happens()
        return None

    def happens(self) -> None:
        """Let the machine die, unless it did."""
        if not self.has_happened:
            self.has_happened = True
            self.has_lost = self.machine.dies()


def _kill_all_of(server: EmbeddedPostgres) -> None:
    """Kill the postmaster and all of its children before one of them can react."""
    postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGSTOP)
    processes = [*_children_of(postmaster), postmaster]
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    eventually(lambda: not any(_is_alive(process) for process in processes))


def _children_of(parent: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if _stat(path)[1] == str(parent):
                yield int(path.parent.name)


def _is_alive(process: int) -> bool:
    try:
        return _stat(Path(f"/proc/{process}/stat"))[0] != "Z"
    except OSError:
        return False


def _stat(path: Path) -> list[str]:
    """Return state, parent and so on: what follows a process's name."""
    return path.read_text().rpartition(")")[2].split()
