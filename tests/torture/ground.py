"""Where billing is tried: a fleet, its exporters, a database, the jobs, and who judges them."""

from __future__ import annotations

import random
import threading
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.core.times import closed_until
from billing_cli.database.connecting import Database
from billing_cli.errors import BillingError, InterruptedBySignalError
from billing_cli.features.audit.job import audit
from billing_cli.features.migrate.job import migrate
from billing_cli.features.verify.job import verify
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff
from billing_cli.simulator import read_service
from billing_cli.simulator.accounts import save_profile, save_users
from billing_cli.simulator.books import Books, Funds, money, read_funds
from billing_cli.simulator.invariants import moved_back, read_watermarks, violations
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet, Node, Snapshot, User
from tests.torture.arena import JOB_ROLE
from tests.torture.findings import WrongBooksError, require
from tests.torture.interference import Watch, watched, watching
from tests.torture.judge import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from billing_cli.core.result import RunResult
    from billing_cli.features.audit.findings import Finding
    from tests.torture.arena import Arena
    from tests.torture.interference import Strike

    Job = Callable[[JobContext], Any]

OPENING = Funds(Decimal("0.5"), 10**7)
PRICE = Decimal("0.0000000123")
SETTLE = timedelta(seconds=30)
"""How long after its end a minute is closed."""

# In Berlin an hour begins a second time at 01:00Z.
START = datetime.fromisoformat("2026-10-25T00:20:00Z")

# What an account's line can carry, in bits per second: little enough that what is beyond it for
# hours costs less than the million up to which the shared columns are exact.
LINE_RATE = 8_000_000
IMPOSSIBLE_BYTES = 40_000_000_000

# So long a job stops for another one, which may be waiting for its locks.
LONGEST_STOP_SECONDS = 0.3

# What an operator may have set for all sessions, ours included.
UNFORTUNATE_DEFAULTS = (
    "ALTER DATABASE {} SET timezone = 'Europe/Berlin'",
    "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
)

READ_LEDGER_SUM = """
SELECT sum(amount_delta) FROM public.billing_ledger WHERE account_uuid = %s
"""


@dataclass(slots=True)
class Errand:
    """A job that is to be run, and under which circumstances."""

    kind: str
    job: Job
    watch: Watch | None = None
    billing_clock_error: timedelta = timedelta()
    lock_timeout_seconds: float | None = None
    fetching: FetchPolicy = field(default_factory=FetchPolicy)
    run_id: str = ""
    result: RunResult | None = None
    error: BaseException | None = None


@contextmanager
def opened_ground(arena: Arena, seed: int) -> Iterator[Ground]:
    """Give the block a fleet without nodes, and a database without rows."""
    with ExitStack() as stack:
        place = stack.enter_context(arena.database())
        connections = [
            stack.enter_context(psycopg.connect(place.database_url, autocommit=True))
            for _ in range(2)
        ]
        for statement in UNFORTUNATE_DEFAULTS:
            connections[0].execute(sql.SQL(statement).format(sql.Identifier(place.name)))
        read_service.add_period_columns(connections[1])
        migrate(place.database_url, grant_to=JOB_ROLE)
        stack.enter_context(watching())
        yield Ground(stack, place.job_url, connections[0], connections[1], seed)


class Ground:
    """A fleet, how it is billed, and its judge. Everything may change between runs.

    `now` is the true time. `other` is the connection of accounts.svc.plus. `top_ups` is what
    others changed balances and quotas by, without a ledger row, by account.
    """

    def __init__(
        self,
        stack: ExitStack,
        job_url: str,
        connection: psycopg.Connection[Any],
        other: psycopg.Connection[Any],
        seed: int,
    ) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a seed that replays is the point
        self.fleet = Fleet(seed, START)
        self.now = START
        self.fleet.present = START
        self.running = stack.enter_context(serve(self.fleet))
        self.database = Database(job_url)
        self.connection = connection
        self.other = other
        self.other_lock = threading.Lock()
        self.helpers: list[threading.Thread] = []
        self.price = PRICE
        self.top_ups: dict[str, Funds] = {}
        self.watermarks: dict[str, datetime] = {}
        self.judge = Judge(self.fleet, connection, self.offered)
        self.is_dirty = True

    def add_user(self, own_uuid: str | None = None, proxy_uuid: str | None = None) -> User:
        """Create an account."""
        user = self.fleet.add_user(own_uuid, proxy_uuid)
        self.save(user)
        return user

    def save(self, user: User) -> None:
        """Tell the database of an account and of its present proxy uuid."""
        save_users(self.connection, [user])

    def delete(self, user: User) -> None:
        """Delete an account with all that is its own, as accounts.svc.plus does."""
        read_service.delete_account(self.connection, user.uuid)
        self.fleet.remove_user(user)
        self.judge.deleted(user)
        self.top_ups.pop(user.uuid, None)
        self.is_dirty = True

    def give_profile(self, user: User, price: Decimal, multiplier: Decimal) -> None:
        """Give an account a price of its own (0 leaves it to the configuration), times so much."""
        save_profile(
            self.connection,
            user.uuid,
            price_per_byte=float(price),
            line_multiplier=float(multiplier),
        )
        self.judge.profiles[user.uuid].add((price, multiplier))

    @contextmanager
    def changing_funds(self, account: str) -> Iterator[None]:
        """Take note of what the block changes of an account's funds beside the ledger.

        Nothing else may change them meanwhile.
        """
        before, entered = read_funds(self.connection).get(account), self._ledger_sum(account)
        yield
        after = read_funds(self.connection).get(account)
        self.is_dirty = True
        if before is not None and after is not None:
            entered = self._ledger_sum(account) - entered
            so_far = self.top_ups.get(account, Funds())
            self.top_ups[account] = Funds(
                so_far.balance + after.balance - before.balance - entered,
                so_far.quota + after.quota - before.quota,
            )

    def top_up(self, account: str, nanos: int) -> None:
        """Add to an account's balance, with a ledger row; nothing where it has none yet."""
        with self.other_lock:
            read_service.top_up(self.other, account, Decimal(nanos).scaleb(-9), datetime.now(UTC))
            # Arrears are the read service's to clear, or those of the next run.
            self.top_ups.setdefault(account, Funds())
            self.is_dirty = True

    def topped_up_meanwhile(self, account: str, nanos: int) -> Strike:
        """Return what tops up an account beside a run, waiting for its locks where need be."""

        def strike(_connection: psycopg.Connection[Any]) -> None:
            self._help(self.top_up, account, nanos)

        return strike

    def offered(self, node: Node) -> list[Snapshot]:
        """Return what a node's exporter offers, by the contract that it speaks at present."""
        offered = node.published(self.now)
        return offered if self.running[node.source_id].windowed else offered[-1:]

    def elapse(self, seconds: float, poll_seconds: float, activity: float = 0.7) -> None:
        """Let time pass and traffic flow on all nodes."""
        self.now += timedelta(seconds=seconds)
        self.fleet.present = self.now
        for node in self.fleet.nodes.values():
            node.run(self.now, poll_seconds, activity=activity)

    def work(self, *errands: Errand) -> None:
        """Run the jobs, all at once where they are several, and take in what took place."""
        if len(errands) == 1:
            self._run(errands[0])
        else:
            for errand in errands:
                self._help(self._run, errand)
        self._finish(errands)

    def work_overtaken(self, errand: Errand, other: Errand, at: int, *, after: bool) -> None:
        """Run a job that stops at a statement until another one has ended, or waits for it."""

        def strike(_session: psycopg.Connection[Any]) -> None:
            self._help(self._run, other).join(LONGEST_STOP_SECONDS)

        errand.watch = Watch(at, strike, after=after)
        self._run(errand)
        has_met = errand.watch.has_struck
        self._finish([errand, other] if has_met else [errand])
        if errand.error is not None:
            raise errand.error

    def check(self) -> None:
        """Hold the database against itself (I1 to I4), and against the truth (I5)."""
        if not self.is_dirty:
            return
        self._check(is_settled=False)
        self.is_dirty = False

    def check_settled(self) -> None:
        """Require that everything that flowed is where it belongs."""
        self._check(is_settled=True)
        require(self.judge.unsettled(closed_until(self.now, SETTLE)))
        require([f"audit: {finding}" for finding in self.audit() if finding.is_violation])
        verified = verify(self.context(Errand("verify", verify, run_id=self._new_run_id())))
        require([f"verify: {finding}" for finding in verified.findings])

    def audit(self) -> Sequence[Finding]:
        """Return what an audit finds."""
        return audit(self.context(Errand("audit", audit, run_id=self._new_run_id()))).findings

    def context(self, errand: Errand) -> JobContext:
        """Return what a run now gets."""
        now = self.now + errand.billing_clock_error
        self.judge.prices.add(self.price)
        seconds = errand.lock_timeout_seconds
        return JobContext(
            run_id=errand.run_id,
            clock=lambda: now,
            database=replace(self.database, lock_timeout_seconds=seconds)
            if seconds
            else self.database,
            sources=tuple(Source(**source) for source in self.running.sources()),
            tariff=Tariff(self.configured_price(), OPENING.quota, OPENING.balance, "v1", "", None),
            deltas=DeltaPolicy(account_rate_bits_per_second=LINE_RATE),
            fetching=errand.fetching,
            settle=SETTLE,
        )

    def configured_price(self) -> Decimal:
        """Return the price that jobs are configured with."""
        return self.price

    def _check(self, *, is_settled: bool) -> None:
        findings = self.judge.problems(is_settled=is_settled)
        opening = Books(default=OPENING)
        found = violations(self.connection, opening, self.top_ups)
        # Evidence of before a deletion is left, and its shared rows are gone.
        findings.problems += [
            problem
            for problem in found
            if not any(account in problem for account in self.judge.reborn)
        ]
        findings.problems += moved_back(self.connection, self.watermarks)
        self.watermarks = read_watermarks(self.connection)
        if findings.problems:
            raise WrongBooksError(findings)

    def _help(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        helper = threading.Thread(target=work, args=arguments)
        self.helpers.append(helper)
        helper.start()
        return helper

    def _finish(self, errands: Sequence[Errand]) -> None:
        while self.helpers:
            self.helpers.pop().join()
        self.is_dirty = True
        self.judge.follow()
        for errand in errands:
            struck = errand.watch is not None and errand.watch.has_struck
            if errand.error is not None and not (
                struck and isinstance(errand.error, BillingError | InterruptedBySignalError)
            ):
                raise errand.error

    def _run(self, errand: Errand) -> None:
        errand.run_id = self._new_run_id()
        with watched(errand.watch or Watch()) as errand.watch:
            try:
                errand.result = errand.job(self.context(errand))
            except BaseException as error:  # noqa: BLE001 - looked at when all have ended
                errand.error = error

    def _new_run_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def _ledger_sum(self, account: str) -> Decimal:
        ((total,),) = self.connection.execute(READ_LEDGER_SUM, (account,)).fetchall()
        return money(total or 0.0)
