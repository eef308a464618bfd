"""A simulated month: a few nodes billed day after day, while now and then something goes wrong.

Exporters take a snapshot each minute. `collect` comes every five minutes instead of every minute,
which makes a month of 8,640 runs instead of 43,200; each bills five minutes. A round is a day.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter, defaultdict
from datetime import timedelta
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.torture import errands, neighbour
from tests.torture.findings import Findings, findings_of
from tests.torture.ground import IMPOSSIBLE_BYTES, PRICE, START, opened_ground
from tests.torture.interference import Watch, cut_off, killed
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from billing_cli.simulator.traffic import Node, User
    from tests.torture.arena import Arena
    from tests.torture.ground import Errand, Ground

CADENCE_MINUTES = 5
RUNS_A_DAY = 24 * 60 // CADENCE_MINUTES
DAYS_BETWEEN_FULL_CHECKS = 5
ACTIVITY = 0.25
LONGEST_FAULT_SECONDS = 4 * 3600
SOURCES = (("jp-1", "prod"), ("us-1", "prod"), ("de-1", ""))

# How often a day each of these happens, on average.
DAILY: dict[str, float] = {
    "restart": 2,
    "outage": 2,
    "clock": 0.3,
    "hidden": 3,
    "pages": 2,
    "users": 1,
    "prices": 0.2,
    "credit": 3,
    "held": 0.3,
    "top-up": 3,
    "kill": 6,
    "cut-off": 4,
    "together": 3,
    "catch-up": 2,
    "reconcile": 6,
    "neighbour": 6,
    "exporter": 2,
}

READ_REVENUE = "SELECT coalesce(-sum(amount_delta), 0) FROM billing.charges"

# The tables that are updated in place, with what updates have left in them.
READ_SIZES = """
SELECT relname, n_live_tup, n_dead_tup, pg_table_size(relid) / 1024,
       round(100.0 * n_tup_hot_upd / nullif(n_tup_upd, 0))
  FROM pg_stat_user_tables
 WHERE relname IN ('streams', 'sources', 'totals', 'account_quota_states',
                   'traffic_stat_checkpoints', 'billing_source_sync_state')
 ORDER BY relname
"""


def attack(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Bill so many days. What is wrong is printed, with the command that does it again."""
    wrong = Findings()
    with opened_ground(arena, seed) as ground:
        soak = Soak(ground)
        try:
            soak.run(rounds)
        except Exception as error:  # noqa: BLE001 - whatever it is, the attack has succeeded
            wrong = findings_of(error)
            sys.stderr.write("".join(traceback.format_exception(error)))
            again = f"python -m tests.torture --only soak --seed {seed} --rounds {rounds}"
            sys.stderr.write(f"again: {again}\n")
    tally = Tally(
        f"soak: {rounds} simulated days",
        soak.happened["run"],
        wrong.lost_bytes,
        wrong.doubled_bytes,
        len(wrong.problems),
        wrong.wrong_nanos,
        soak.summary(),
    )
    return [tally]


class Soak:
    """A ground, and what happened on it by day."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.rng = ground.rng
        self.happened: Counter[str] = Counter()
        self.seconds: defaultdict[int, list[float]] = defaultdict(list)
        self.statements: defaultdict[int, list[int]] = defaultdict(list)
        self.revenue = Decimal(0)
        self.complete_from: dict[str, datetime] = {}
        self.sizes: list[tuple[Any, ...]] = []
        users = [ground.add_user() for _ in range(6)]
        self.unknown = [ground.fleet.new_uuid() for _ in range(3)]
        for source_id, env in SOURCES:
            node = ground.fleet.add_node(source_id, env=env)
            for user in users[:4]:
                node.add_stream(user.uuid, "x")
            node.add_stream(users[4].proxy_uuid, "x")
            node.add_stream(users[5].uuid, "y", idle=True)
        for node, uuid in zip(ground.fleet.nodes.values(), self.unknown, strict=True):
            node.add_stream(uuid, "x")

    def run(self, days: int) -> None:
        """Bill day after day; at the end everything that flowed is charged, and at its price."""
        ground = self.ground
        for day in range(days):
            for _ in range(RUNS_A_DAY):
                self._let_things_happen()
                ground.elapse(60 * CADENCE_MINUTES, 60, ACTIVITY)
                self._collect(day)
            self._end_day(day)
        errands.settle(ground, LONGEST_FAULT_SECONDS)
        ((self.revenue,),) = ground.connection.execute(READ_REVENUE).fetchall()
        self.sizes = ground.connection.execute(READ_SIZES).fetchall()

    def summary(self) -> str:
        """Return the month in a line: how much, what went wrong, and what a run cost."""
        if not self.sizes:
            return ""
        first, last = min(self.seconds), max(self.seconds)
        what = ", ".join(f"{count} {name}" for name, count in sorted(self.happened.items()))
        time_ratio = median(self.seconds[last]) / median(self.seconds[first])
        tables = "; ".join(
            f"{name} {live} rows, {dead} dead, {kilobytes} kB, {hot}% HOT"
            for name, live, dead, kilobytes, hot in self.sizes
        )
        return (
            f"revenue {self.revenue}; {what}; statements of a collect "
            f"{median(self.statements[first]):g} on the first day, "
            f"{median(self.statements[last]):g} on the last; its time x {time_ratio:.2f}; {tables}"
        )

    def _collect(self, day: int) -> None:
        errand = errands.errand(self.ground, "collect")
        began = time.perf_counter()
        self._work(errand)
        self.seconds[day].append(time.perf_counter() - began)
        if errand.watch is not None:
            self.statements[day].append(errand.watch.statements)

    def _end_day(self, day: int) -> None:
        """Check; and forget what a day that is long over takes of memory."""
        ground = self.ground
        for node in ground.fleet.nodes.values():
            for snapshot in node.snapshots[-3 * 1440 : -30]:
                snapshot.encoded = None
        if day % DAYS_BETWEEN_FULL_CHECKS == 0:
            ground.check()

    def _let_things_happen(self) -> None:
        for what, times in DAILY.items():
            if self.rng.random() < times / RUNS_A_DAY:
                self.happened[what] += 1
                deed: Callable[[], None] = getattr(self, f"_{what.replace('-', '_')}")
                deed()

    def _restart(self) -> None:
        self._node().restart_xray(self.ground.now, drop_counters=self.rng.random() < 0.5)

    def _outage(self) -> None:
        minutes = self.rng.choice([3, 12, 60, 180])
        now = self.ground.now
        self._node().hide(now, now + timedelta(minutes=minutes))

    def _clock(self) -> None:
        self._node().clock_error = timedelta(seconds=self.rng.choice([-70, 0, 0, 45]))

    def _hidden(self) -> None:
        node, now = self._node(), self.ground.now
        minutes = self.rng.choice([4, 20, 90])
        if self.rng.random() < 0.5:
            late = now + timedelta(minutes=minutes)
            if node.takes_older_stamps:
                # What such an exporter replaced does not come back.
                return
            node.withhold(now - timedelta(minutes=minutes), now, late)
        else:
            stream = self.rng.choice(node.streams)
            self.complete_from[node.source_id] = now + timedelta(minutes=minutes)
            node.hide_stream(stream, now, self.complete_from[node.source_id])

    def _pages(self) -> None:
        endpoint = self.ground.running[self._node().source_id]
        endpoint.max_page = self.rng.choice([2, 7, 100, 1000])
        endpoint.seam = self.rng.choice(["after", "next", "repeat"])
        endpoint.order = self.rng.choice(["rising", "rising", "twice"])

    def _users(self) -> None:
        ground, user = self.ground, self._user()
        kind = self.rng.random()
        if kind < 0.1 and self.unknown:
            ground.add_user(self.unknown.pop())
        elif kind < 0.2:
            newcomer = ground.add_user()
            self._node().add_stream(newcomer.uuid, "x")
        elif kind < 0.25 and len(ground.fleet.users) > 4:
            ground.delete(user)
        else:
            ground.fleet.renew_proxy(user)
            ground.save(user)

    def _prices(self) -> None:
        """A price was wrong, and with it all that was charged since yesterday."""
        if self.rng.random() < 0.5:
            self.ground.price = PRICE * self.rng.randrange(1, 5)
        else:
            self.ground.give_profile(self._user(), PRICE, Decimal(self.rng.randrange(1, 9)) / 4)
        self._work(errands.rerating_since(self.ground, self.ground.now - timedelta(days=1)))

    def _credit(self) -> None:
        self.ground.top_up(self._user().uuid, self.rng.randrange(1, 10**9))

    def _held(self) -> None:
        node = self._node()
        node.flow(self.rng.choice(node.streams), 0, IMPOSSIBLE_BYTES)
        decision = errands.deciding(self.ground, 0, is_released=self.rng.random() < 0.5)
        if decision is not None:
            self._work(decision)

    def _top_up(self) -> None:
        strike = self.ground.topped_up_meanwhile(self._user().uuid, self.rng.randrange(1, 10**9))
        self._work(self._errand(Watch(self.rng.randrange(1, 30), strike)))

    def _kill(self) -> None:
        is_after = self.rng.random() < 0.5
        self._work(self._errand(Watch(self.rng.randrange(1, 30), killed, after=is_after)))

    def _cut_off(self) -> None:
        strike = cut_off(self.ground.connection)
        is_after = self.rng.random() < 0.5
        self._work(self._errand(Watch(self.rng.randrange(1, 30), strike, after=is_after)))

    def _together(self) -> None:
        self._work(*(errands.errand(self.ground, kind) for kind in ("collect", "catch-up")))

    def _catch_up(self) -> None:
        self._work(errands.errand(self.ground, "catch-up", self.rng.randrange(3)))

    def _reconcile(self) -> None:
        self._work(errands.reconciling_since(self.ground, self.ground.now - timedelta(hours=4)))

    def _neighbour(self) -> None:
        what = self.rng.choice(sorted(neighbour.USER_ACTIONS))
        neighbour.USER_ACTIONS[what](self.ground, self._user(), self.rng.randrange(12))
        self.happened[what] += 1

    def _exporter(self) -> None:
        """An exporter is upgraded or rolled back, its clock steps, or splices close."""
        node, what = self._node(), self.rng.choice(sorted(neighbour.NODE_ACTIONS))
        if what == "upgrade" and self.ground.now < self.complete_from.get(node.source_id, START):
            # Names that change while a stream is left out are those of one that vanished before.
            return
        neighbour.NODE_ACTIONS[what](self.ground, node, self.rng.randrange(12))
        self.happened[what] += 1

    def _errand(self, watch: Watch) -> Errand:
        self.ground.elapse(60, 60, ACTIVITY)
        errand = errands.errand(self.ground, self.rng.choice(["collect", "catch-up"]))
        errand.watch = watch
        return errand

    def _work(self, *several: Errand) -> None:
        self.happened["run"] += len(several)
        self.ground.work(*several)

    def _node(self) -> Node:
        return self.rng.choice(list(self.ground.fleet.nodes.values()))

    def _user(self) -> User:
        return self.rng.choice(self.ground.fleet.users)
