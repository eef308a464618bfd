"""Failover to a streaming replica while a job is at work.

A round is a promotion when a chosen message passes between one of four jobs and the primary, or
once the job has ended. The replica is synchronous, or asynchronous and cut off some messages
earlier. The old primary is stopped at once, or goes on running until an operator makes it
read-only. The job's connection string names both, with `target_session_attrs=read-write`.
"""

from __future__ import annotations

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import psycopg

from billing_cli.simulator.invariants import read_watermarks
from tests.integration.database.stage import eventually, with_parameters
from tests.support.relay import relayed
from tests.support.standby import can_copy, standby_of
from tests.torture import scenes
from tests.torture.arena import JOB_ROLE, Place
from tests.torture.kept_log import KeptLog
from tests.torture.tally import Tally
from tests.torture.trial import COUNT_RUNNING, count, ends_well, impatient, see_to_the_books
from tests.torture.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from billing_cli.simulator.postgres import EmbeddedPostgres
    from tests.support.relay import Relay, Severance, Side
    from tests.torture.arena import Arena
    from tests.torture.scenes import LimitedWorld, Scene

# Of how many promotions one comes when the job has ended.
AFTER_THE_END = 3

# A commit that waits for a replica which is gone.
COUNT_WAITING = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%' AND wait_event = 'SyncRep'
"""
COUNT_FOLLOWERS = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
COUNT_SYNCHRONOUS = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
COUNT_RECEIVERS = "SELECT count(*) FROM pg_stat_wal_receiver"
COUNT_READ_ONLY = (
    "SELECT (current_setting('default_transaction_read_only') = 'on')::integer"  # as a new session
)
END_JOBS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'billing%'
"""


class Mode(NamedTuple):
    """What kind of replica there is, and whether the old primary is stopped at once."""

    is_synchronous: bool
    is_fenced: bool

    @property
    def fault(self) -> str:
        """Its row of the table."""
        replica = "synchronous" if self.is_synchronous else "asynchronous"
        primary = "stopped" if self.is_fenced else "still running"
        return f"failover, {replica} replica, old primary {primary}"


MODES = (Mode(True, True), Mode(False, False), Mode(False, True), Mode(True, False))


def failover(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Promote a replica; a round is a promotion, and the modes take turns."""
    if not can_copy(arena.server):
        return [Tally("failover", 0, detail="not attacked: there is no pg_basebackup")]
    found: dict[Mode, list[tuple[Verdict, bool]]] = {}
    with ExitStack() as stack:
        stack.enter_context(impatient())
        targets = []
        for scene in scenes.SCENES:
            world, place = stack.enter_context(scenes.prepared(arena, scene))
            targets.append((scene, world, place, scenes.messages_of(arena, scene, world, place)))
        for number in range(seed, seed + rounds):
            rng = random.Random(number)  # noqa: S311 - a seed that replays is the point
            scene, world, place, messages = rng.choice(targets)
            mode = MODES[number % len(MODES)]
            with scenes.copied(arena, world, place) as (copy, old):
                trial = Trial(arena, scene, copy, old, mode)
                trial.run(rng, messages)
            found.setdefault(mode, []).append((trial.verdict, trial.has_lost))
            if not trial.verdict.is_clean:
                trial.verdict.tell("failover", number, f"{mode.fault}, {scene.name}")
    return [_tally(mode, found[mode]) for mode in MODES if mode in found]


def _tally(mode: Mode, rounds: list[tuple[Verdict, bool]]) -> Tally:
    lost = sum(has_lost for _, has_lost in rounds)
    detail = f"runs sealed and lost in {lost}" if lost else ""
    tallies = (verdict.tally(mode.fault) for verdict, _ in rounds)
    return reduce(Tally.plus, tallies, Tally(mode.fault, 0, detail=detail))


@dataclass(slots=True)
class Trial:
    """One round: a primary, its replica, and a job whose connection string names both."""

    arena: Arena
    scene: Scene
    world: LimitedWorld
    old: Place
    mode: Mode
    verdict: Verdict = field(default_factory=Verdict)
    has_lost: bool = False

    def run(self, rng: random.Random, messages: Mapping[Side, int]) -> None:
        """Promote at a message that the rng choose, and see to the books of the new primary."""
        side: Side = rng.choice(["client", "server"])
        last = messages[side] if rng.randrange(AFTER_THE_END) else 0
        at = rng.randrange(last) if last else None
        cut_off_at = rng.randrange((messages[side] if at is None else at) + 1)
        with (
            tempfile.TemporaryDirectory() as directory,
            standby_of(self.arena.server) as standby,
            relayed(self.old.job_url) as relay,
            _followed(self.arena, self.old, is_synchronous=self.mode.is_synchronous),
        ):
            log = KeptLog(Path(directory), self.world)
            log.seal(self.old.database_url)
            new = _place_on(standby, self.old)
            self.world.database_url = _naming_both(relay, new)
            switch = Switch(self, standby, log, side, at, cut_off_at)
            relay.judge_message = switch
            done = self._work(switch)
            if not self.mode.is_fenced:
                self._demote(log, done=done)
            relay.judge_message = lambda _side, _number: None
            self._finish(new, log, done=done)

    def _work(self, switch: Switch) -> bool:
        """Run the job until it ends, or waits for a replica that is gone; tell whether it is done.

        A promotion that no message has set off follows.
        """
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(ends_well, lambda: self.scene.work(self.world), self.verdict)
            if self.mode == Mode(is_synchronous=True, is_fenced=False):
                self._look_at_a_waiting_commit(job, switch)
            done = job.result()
        switch.happens()
        return done

    def _look_at_a_waiting_commit(self, job: Future[bool], switch: Switch) -> None:
        """End a job that waits for the replica; until then nobody sees what it wrote."""
        before = self.world.watermarks
        # Before the promotion a commit waits as well, but not for long.
        eventually(
            lambda: job.done() or (switch.is_promoted and count(self.old, COUNT_WAITING) > 0)
        )
        if job.done():
            return
        if self.scene.takes_one_step:
            with psycopg.connect(self.old.database_url) as connection:
                if read_watermarks(connection) != before:
                    self.verdict.problems.append("a commit that waits for a replica is visible")
        self._make_read_only()

    def _demote(self, log: KeptLog, *, done: bool) -> None:
        """Let the old primary take what it takes; then make it read-only, as an operator does.

        As long as it takes writes, it comes first in the connection string.
        """
        if not self.mode.is_synchronous:
            if not done:
                ends_well(lambda: self.scene.work(self.world), self.verdict)
            self.verdict.problems += log.audited(self.old.database_url)
            log.seal(self.old.database_url)
        self._make_read_only()
        log.forbid_changes(self.old.database_url)

    def _make_read_only(self) -> None:
        _configure(self.old, "default_transaction_read_only", "on")
        eventually(lambda: count(self.old, COUNT_READ_ONLY) == 1)
        _execute(self.old, END_JOBS)
        eventually(lambda: not count(self.old, COUNT_RUNNING))

    def _finish(self, new: Place, log: KeptLog, *, done: bool) -> None:
        """Run the job on the new primary until it is done, and hold everything against the truth.

        What a job has done on the old primary is there if the replica was synchronous.
        """
        self.has_lost = log.is_longer_than(new.database_url)
        if self.has_lost and self.mode.is_synchronous:
            self.verdict.problems.append("a synchronous replica has lost a sealed run")
        is_done = done and self.mode.is_synchronous
        see_to_the_books(self.scene, self.world, new, self.verdict, done=is_done)
        self.verdict.problems += log.audited(new.database_url)
        self.verdict.problems += log.verified(new.database_url, is_truncated=self.has_lost)
        if not self.mode.is_fenced:
            self.verdict.problems += log.changes(self.old.database_url)


@dataclass(slots=True)
class Switch:
    """Cuts an asynchronous replica off at one message, and promotes it at a later one."""

    trial: Trial
    standby: EmbeddedPostgres
    log: KeptLog
    side: Side
    at: int | None
    cut_off_at: int
    is_cut_off: bool = False
    has_happened: bool = False
    is_promoted: bool = False

    def __call__(self, side: Side, number: int) -> Severance:
        """Judge a message."""
        if side != self.side or self.has_happened:
            return None
        if number == self.cut_off_at:
            self._cut_off()
        if number == self.at:
            self.happens()
        return None

    def happens(self) -> None:
        """Seal what the old primary has, stop it where it is fenced, and promote the replica."""
        if self.has_happened:
            return
        self.has_happened = True
        trial = self.trial
        trial_database = trial.old.database_url
        self._cut_off()
        self.log.seal(trial_database)
        if trial.mode.is_fenced:
            trial.arena.crash()
        self.standby.run("pg_ctl", "promote", "--wait", "--silent")
        self.is_promoted = True

    def _cut_off(self) -> None:
        if self.is_cut_off or self.trial.mode.is_synchronous:
            return
        self.is_cut_off = True
        place = _place_on(self.standby, self.trial.old)
        _configure(place, "primary_conninfo", "")
        eventually(lambda: not count(place, COUNT_RECEIVERS))


@contextmanager
def _followed(arena: Arena, place: Place, *, is_synchronous: bool) -> Iterator[None]:
    """Have the replica follow; afterwards the primary runs as it did before."""
    eventually(lambda: count(place, COUNT_FOLLOWERS) > 0)
    try:
        if is_synchronous:
            _configure(place, "synchronous_standby_names", "*")
            eventually(lambda: count(place, COUNT_SYNCHRONOUS) > 0)
        yield
    finally:
        arena.start()
        for name in ("synchronous_standby_names", "default_transaction_read_only"):
            _configure(place, name, None)
        eventually(lambda: count(place, COUNT_READ_ONLY) == 0)


def _place_on(server: EmbeddedPostgres, place: Place) -> Place:
    parts = urlsplit(server.url(place.name))
    address = parts.netloc.rpartition("@")[2]
    return Place(parts.geturl(), parts._replace(netloc=f"{JOB_ROLE}@{address}").geturl())


def _naming_both(relay: Relay, new: Place) -> str:
    """Return the connection string that the job has from the beginning: the old primary first."""
    old_port = urlsplit(relay.url).port
    parameters = psycopg.conninfo.conninfo_to_dict(new.job_url)
    return with_parameters(
        new.job_url,
        host=f"127.0.0.1,{parameters['host']}",
        port=f"{old_port},{parameters['port']}",
        sslmode="disable",
        target_session_attrs="read-write",
    )


def _configure(place: Place, name: str, value: str | None) -> None:
    change = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
    _execute(place, f"ALTER SYSTEM {change}")
    _execute(place, "SELECT pg_reload_conf()")


def _execute(place: Place, statement: str) -> None:
    with psycopg.connect(place.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())
