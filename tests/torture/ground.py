"""Where billing is tried: a fleet, its exporters, a database, the jobs, and what must be there."""

from __future__ import annotations

import random
import threading
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.core.model import DeltaPolicy
from billing_cli.database.connection import Database
from billing_cli.errors import BillingError, InterruptedBySignalError
from billing_cli.exporter.source import Source
from billing_cli.features.audit.job import audit
from billing_cli.features.verify.job import verify
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff
from billing_cli.simulator.accounts import save_profile, save_users
from billing_cli.simulator.books import Funds
from billing_cli.simulator.server import serve
from billing_cli.simulator.traffic import Fleet, Node, Snapshot, User
from tests.torture.checks import (
    SETTLE,
    Findings,
    WrongBooksError,
    problems_with,
    unkept_promises,
    unsettled,
)
from tests.torture.expected import Expected
from tests.torture.expected_cells import LINE_RATE
from tests.torture.interference import Watch, watched, watching
from tests.torture.progress import Deed, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from billing_cli.core.result import RunResult
    from tests.torture.arena import Arena
    from tests.torture.expected_bytes import HeldBytes
    from tests.torture.interference import Strike

    Job = Callable[[JobContext], Any]

OPENING = Funds(Decimal("0.5"), 10**7)
PRICE = Decimal("0.0000000123")
START = datetime.fromisoformat("2026-04-08T12:00:00Z")

# So long a job stops for another one, which may be waiting for its locks.
LONGEST_STOP_SECONDS = 0.3

TOP_UP = """
UPDATE public.account_quota_states
   SET current_balance = current_balance + %s
 WHERE account_uuid = %s
"""


@dataclass(slots=True)
class Errand:
    """A job that is to be run, and what it is about, as far as the books must know.

    `since` and `until` are the range of a reconcile or rerate, `deltas` what is released.
    """

    kind: str
    job: Job
    since: datetime = START
    until: datetime = START
    deltas: Sequence[HeldBytes] = ()
    watch: Watch | None = None
    billing_clock_error: timedelta = timedelta()
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
        stack.enter_context(watching())
        yield Ground(stack, place.job_url, connections[0], connections[1], seed)


class Ground:
    """A fleet, how it is billed, and the books as they must be. Everything may change between runs.

    `now` is the true time. `other` is the connection of accounts.svc.plus.
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
        self.opening = OPENING
        self.price = PRICE
        self.profiles: dict[str, tuple[Decimal, Decimal]] = {}
        self.top_ups: dict[str, Funds] = {}
        self.watermarks: dict[str, datetime] = {}
        self.progress = Progress(connection)
        self.expected = Expected(self.fleet, OPENING, self.offered, self.price_of)
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
        self.connection.execute("DELETE FROM public.users WHERE uuid = %s", (user.uuid,))
        self.fleet.remove_user(user)
        self.expected.user_is_deleted(user)
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
        self.profiles[user.uuid] = price, multiplier

    def price_of(self, account: str) -> Fraction:
        """Return what an account pays for a byte, in 1e-9 of the currency."""
        price, multiplier = self.profiles.get(account, (Decimal(0), Decimal(1)))
        return Fraction(price or self.price) * Fraction(multiplier) * 10**9

    def top_up(self, account: str, nanos: int) -> None:
        """Add to an account's balance, as accounts.svc.plus does; nothing where it has none yet."""
        with self.other_lock:
            amount = Decimal(nanos).scaleb(-9)
            if self.other.execute(TOP_UP, (float(amount), account)).rowcount:
                before = self.top_ups.get(account, Funds())
                self.top_ups[account] = Funds(before.balance + amount, before.quota)
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

    def _help(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        helper = threading.Thread(target=work, args=arguments)
        self.helpers.append(helper)
        helper.start()
        return helper

    def _finish(self, errands: Sequence[Errand]) -> None:
        while self.helpers:
            self.helpers.pop().join()
        by_run = {errand.run_id: errand for errand in errands}
        deeds = self.progress.deeds()
        for deed in deeds:
            self._take_in(deed, by_run[deed.run_id])
        self.is_dirty = self.is_dirty or bool(deeds)
        for errand in errands:
            struck = errand.watch is not None and errand.watch.has_struck
            if errand.error is not None and not (
                struck and isinstance(errand.error, BillingError | InterruptedBySignalError)
            ):
                raise errand.error
            if len(errands) == 1 and not struck:
                has_moved = any(deed.watermarks for deed in deeds)
                self._require(unkept_promises(self, errand, has_moved=has_moved))

    def is_well(self, node: Node) -> bool:
        """Whether a node's exporter answers at present, in order, and with stamps of the past."""
        endpoint = self.running[node.source_id]
        is_broken = endpoint.down or endpoint.status is not None or endpoint.order == "reversed"
        offered = node.published(self.now)
        is_ahead = bool(offered) and offered[-1].collected_at > self.now
        return not (is_broken or is_ahead or node.is_down(self.now))

    def check(self) -> None:
        """Hold the database against itself and against what must be there."""
        if not self.is_dirty:
            return
        found = problems_with(self)
        if found.problems:
            raise WrongBooksError(found)
        self.is_dirty = False

    def check_settled(self) -> None:
        """Require that everything that flowed is where it belongs."""
        self._require(unsettled(self))
        report = audit(self.context(Errand("audit", audit, run_id=self._new_run_id())))
        self._require([f"audit: {one}" for one in report.findings if one.is_violation])
        verified = verify(self.context(Errand("verify", verify, run_id=self._new_run_id())))
        self._require([f"verify: {one}" for one in verified.findings])

    def _require(self, problems: list[str]) -> None:
        if problems:
            raise WrongBooksError(Findings(problems))

    def context(self, errand: Errand) -> JobContext:
        """Return what a run now gets."""
        now = self.now + errand.billing_clock_error
        return JobContext(
            run_id=errand.run_id,
            clock=lambda: now,
            database=self.database,
            sources=tuple(Source(**one) for one in self.running.sources()),
            tariff=Tariff(self.price, OPENING.quota, OPENING.balance, "v1", "", None),
            deltas=DeltaPolicy(account_rate_bits_per_second=LINE_RATE),
            fetching=errand.fetching,
            settle=SETTLE,
        )

    def _run(self, errand: Errand) -> None:
        errand.run_id = self._new_run_id()
        with watched(errand.watch or Watch()) as errand.watch:
            try:
                errand.result = errand.job(self.context(errand))
            except BaseException as error:  # noqa: BLE001 - looked at when all have ended
                errand.error = error

    def _new_run_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def _take_in(self, deed: Deed, errand: Errand) -> None:
        if errand.kind in {"collect", "catch-up"}:
            self.expected.collected(deed)
        elif errand.kind == "reconcile":
            self.expected.reconciled(deed, errand.since, errand.until)
        elif errand.kind == "rerate" and not deed.is_failure:
            self.expected.rerated(errand.since, errand.until)
        elif errand.kind == "release" and not deed.is_failure:
            self.expected.released(errand.deltas)
