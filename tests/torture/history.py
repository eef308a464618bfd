"""Four writers at once, each noting what it read and wrote; a checker of its own judges the notes.

Two collectors bill two nodes whose accounts are the same, two neighbours top up and adjust those
accounts, and now and then somebody looks at all balances and watermarks at once. What a run read
and wrote is taken from its charges, what the neighbours did from their own statements.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connecting import Database
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import JobContext, Tariff
from billing_cli.simulator.accounts import save_funds, save_users
from billing_cli.simulator.books import Funds, money
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet
from tests.torture import check_history
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from billing_cli.simulator.server import RunningFleet
    from tests.torture.arena import Arena, Place

START = datetime.fromisoformat("2026-04-08T12:00:01Z")
MINUTE = timedelta(minutes=1)
SOURCES = ("jp-1", "us-1")
ACCOUNTS = 3
COLLECTORS = 2
NEIGHBOURS = 2

READ_RUN = """
SELECT account_uuid::text, balance_before, balance_before + amount_delta
  FROM billing.charges WHERE run_id = %s
 ORDER BY created_at, bucket_start, stored_node_id COLLATE "C", region, line_code
"""
READ_MINUTES = """
SELECT stored_node_id, min(bucket_start), max(bucket_start)
  FROM billing.charges WHERE run_id = %s
 GROUP BY 1
"""
READ_ALL = """
SELECT 'balance ' || account_uuid, current_balance, NULL FROM public.account_quota_states
UNION ALL
SELECT 'watermark ' || stored_node_id, NULL, date_trunc('minute', watermark)
  FROM billing.sources WHERE watermark IS NOT NULL
"""
LOCK_BALANCE = """
SELECT current_balance FROM public.account_quota_states WHERE account_uuid = %s FOR UPDATE
"""
READ_BALANCE = """
SELECT current_balance FROM public.account_quota_states WHERE account_uuid = %s
"""
WRITE_BALANCE = """
UPDATE public.account_quota_states SET current_balance = %s WHERE account_uuid = %s
"""


def attack(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Let so many runs take place; every contradiction that the checker finds is told."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "history.jsonl"
        write_history(arena, seed, rounds, path)
        found = judge(path)
    for anomaly in found["anomalies"]:
        sys.stderr.write(f"history: {anomaly}\n")
    if found["anomalies"]:
        sys.stderr.write(f"again: python -m tests.torture --only history --seed {seed}\n")
    writers = COLLECTORS + NEIGHBOURS
    detail = f"{found['transactions']} transactions of {writers} writers, {found['keys']} values"
    return [
        Tally(
            "history of concurrent runs judged from outside",
            rounds,
            broken_invariants=len(found["anomalies"]),
            detail=detail,
        )
    ]


def judge(path: Path) -> dict[str, Any]:
    """Return what the checker says of a history, in a process of its own without our code."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-I", check_history.__file__, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 1}:
        raise AssertionError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_history(arena: Arena, seed: int, runs: int, path: Path, *, stale: bool = False) -> None:
    """Let the writers work until so many runs have ended; note all that they do in the file.

    `stale` lets one neighbour write back what it read before a run committed, once.
    """
    with ExitStack() as stack:
        place = stack.enter_context(arena.database())
        log = Log(stack.enter_context(path.open("w", encoding="utf-8")), runs)
        fleet = _fleet(seed, runs)
        running = stack.enter_context(serve(fleet))
        with psycopg.connect(place.database_url) as connection:
            save_users(connection, fleet.users)
            save_funds(connection, {user.uuid: Funds(Decimal(1)) for user in fleet.users})
        writers: list[Callable[[], None]] = [
            lambda number=number: _collect(log, place, running, seed + number)  # type: ignore[misc]
            for number in range(COLLECTORS)
        ]
        writers += [
            lambda number=number: _adjust(log, place, fleet, seed - number - 1)  # type: ignore[misc]
            for number in range(NEIGHBOURS)
        ]
        threads = [threading.Thread(target=log.guarded, args=(work,)) for work in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if stale:
            _write_stale(log, place, running, fleet.users[0].uuid)
        _look(log, place)
    if log.errors:
        raise log.errors[0]


class Log:
    """The file of notes, and how far the writers have come. Used by all their threads."""

    def __init__(self, file: Any, runs: int) -> None:
        self.file = file
        self.runs_left = runs
        self.minute = 2
        self.errors: list[Exception] = []
        self.lock = threading.Lock()

    @contextmanager
    def noting(self, name: str) -> Iterator[dict[str, dict[str, str]]]:
        """Note what the block read and wrote, and when it began and ended."""
        note: dict[str, dict[str, str]] = {"reads": {}, "writes": {}}
        start = time.monotonic_ns()
        yield note
        line = json.dumps({"name": name, "start": start, "end": time.monotonic_ns(), **note})
        with self.lock:
            self.file.write(line + "\n")

    def next_run(self) -> datetime | None:
        """Return when the next run takes place, None where there were enough."""
        with self.lock:
            self.runs_left -= 1
            self.minute += self.runs_left % 2
            return START + self.minute * MINUTE if self.runs_left >= 0 else None

    def guarded(self, work: Callable[[], None]) -> None:
        """Do a writer's work; an error ends all of them."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised when all have ended
            self.errors.append(error)
            self.runs_left = 0


def _fleet(seed: int, runs: int) -> Fleet:
    """Return two nodes with a snapshot in each minute, in which every account moves something."""
    fleet, rng = Fleet(seed, START), random.Random(seed)  # noqa: S311 - to be replayed
    users = [fleet.add_user() for _ in range(ACCOUNTS)]
    for source_id in SOURCES:
        node = fleet.add_node(source_id)
        streams = [node.add_stream(user.uuid, "x") for user in users]
        for minute in range(runs + 10):
            for stream in streams:
                node.flow(stream, rng.randrange(1, 10**6), rng.randrange(1, 10**7))
            node.snapshot(START + minute * MINUTE)
    return fleet


def _collect(log: Log, place: Place, running: RunningFleet, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - to be replayed
    with psycopg.connect(place.database_url, autocommit=True) as connection:
        while (now := log.next_run()) is not None:
            running.fleet.present = max(now, running.fleet.present or now)
            source_ids = rng.choice([SOURCES, SOURCES[:1], SOURCES[1:]])
            job = rng.choice([collect, catch_up])
            context = _context(place, running, now)
            with log.noting(f"{job.__name__} {context.run_id}") as note:
                job(context, source_ids=source_ids)
                note.update(_of_run(connection, context.run_id))


def _of_run(connection: psycopg.Connection[Any], run_id: str) -> dict[str, dict[str, str]]:
    """Return what a run read and wrote: balances, and the minutes of the watermarks.

    Every account moves in every minute, so that the first one charged follows the watermark read.
    """
    reads: dict[str, str] = {}
    writes: dict[str, str] = {}
    for account, before, after in connection.execute(READ_RUN, (run_id,)):
        reads.setdefault(f"balance {account}", str(money(before)))
        writes[f"balance {account}"] = str(money(after))
    for node, first, last in connection.execute(READ_MINUTES, (run_id,)):
        reads[f"watermark {node}"] = str((first - MINUTE).timestamp())
        writes[f"watermark {node}"] = str(last.timestamp())
    return {"reads": reads, "writes": writes}


def _adjust(log: Log, place: Place, fleet: Fleet, seed: int) -> None:
    """Change balances under their lock, and look at everything now and then."""
    rng = random.Random(seed)  # noqa: S311 - to be replayed
    with psycopg.connect(place.database_url, autocommit=True) as connection:
        while log.runs_left > 0:
            account = rng.choice(fleet.users).uuid
            with log.noting(f"top-up {uuid.uuid4()}") as note, connection.transaction():
                ((before,),) = connection.execute(LOCK_BALANCE, (account,)).fetchall()
                after = money(before) + Decimal(rng.randrange(1, 10**9)).scaleb(-9)
                connection.execute(WRITE_BALANCE, (float(after), account))
                note["reads"][f"balance {account}"] = str(money(before))
                note["writes"][f"balance {account}"] = str(money(after))
            if rng.random() < 0.3:
                _look(log, place)
            time.sleep(rng.random() * 0.02)


def _write_stale(log: Log, place: Place, running: RunningFleet, account: str) -> None:
    """Read a balance, let a run charge the account, and write what was read, with a top-up."""
    log.runs_left = 1
    with (
        psycopg.connect(place.database_url, autocommit=True) as connection,
        log.noting("stale write") as note,
    ):
        ((before,),) = connection.execute(READ_BALANCE, (account,)).fetchall()
        log.minute += 2
        _collect(log, place, running, 0)
        after = money(before) + 1
        connection.execute(WRITE_BALANCE, (float(after), account))
        note["reads"][f"balance {account}"] = str(money(before))
        note["writes"][f"balance {account}"] = str(after)


def _look(log: Log, place: Place) -> None:
    """Read all balances and watermarks in one statement."""
    with (
        psycopg.connect(place.database_url, autocommit=True) as connection,
        log.noting("look") as note,
    ):
        for key, balance, minute in connection.execute(READ_ALL):
            note["reads"][key] = str(minute.timestamp() if minute else money(balance))


def _context(place: Place, running: RunningFleet, now: datetime) -> JobContext:
    later = now + timedelta(seconds=100)
    return JobContext(
        run_id=str(uuid.uuid4()),
        clock=lambda: later,
        database=Database(place.job_url),
        sources=tuple(Source(**source) for source in running.sources()),
        tariff=Tariff(Decimal("0.0000000123"), 0, Decimal(1), "v1", "", None),
        deltas=DeltaPolicy(),
    )
