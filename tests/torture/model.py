"""Any sequence of traffic, faults and jobs, by chance: after each step the books are right.

Hypothesis makes up the sequences and shrinks one that fails to the steps that matter. What is
charged is judged by the simulator's truth (`tests.torture.judge`).
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from billing_cli.simulator.oracle import accounts_by_uuid
from billing_cli.simulator.stamps import nanoseconds_of
from tests.torture import errands, neighbour
from tests.torture.chance import BACKEND
from tests.torture.findings import Findings, findings_of
from tests.torture.ground import IMPOSSIBLE_BYTES, PRICE, START, opened_ground
from tests.torture.interference import Watch, cut_off, killed
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.simulator.server import Endpoint
    from billing_cli.simulator.traffic import Node, Stream, User
    from tests.torture.arena import Arena
    from tests.torture.ground import Errand
    from tests.torture.interference import Strike

STEPS = 50
"""How many steps a sequence has. Each begins with an empty database."""

SEQUENCES_PER_SEED = 20
"""After so many sequences the next seed follows, so that what fails is soon done again."""

MOST_FINDINGS = 3

PHASES = (Phase.generate, Phase.shrink)
SOURCES = (("jp-1", "prod"), ("us-1", "prod"), ("de-1", ""))

STRIKES = ("kill", "cut-off", "top-up")
MEANWHILE = ("nothing", "nothing", "nothing", *STRIKES, "clock", "dry")
NODE_TROUBLES = (
    "restart",
    "late",
    "late",
    "late",
    "late again",
    "left out",
    "away",
    "clock",
    "leap",
    "forgotten",
)
ACCOUNT_CHANGES = (
    "credit",
    "renewed",
    "renamed",
    "late user",
    "new line",
    "new user",
    "price",
    "profile",
    "deleted",
)

jobs = st.sampled_from(["collect", "collect", "catch-up", "reconcile", "reconcile", "rerate"])
numbers = st.integers(0, 11)
seconds = st.sampled_from([61, 20, 180, 420])
moments = st.integers(1, 40)
"""The statement of a job before or after which something happens."""


def attack(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Take `rounds` steps, in sequences that begin with an empty database.

    After SEQUENCES_PER_SEED of them, or one that fails, the next seed goes on. What is wrong is
    printed, with the command that does it again. After MOST_FINDINGS it ends.
    """
    Model.arena, Model.taken = arena, Counter()
    found: list[Findings] = []
    while Model.taken.total() < rounds and len(found) < MOST_FINDINGS:
        before = Counter(Model.taken)
        left = -(-(rounds - Model.taken.total()) // STEPS)
        try:
            play(seed, min(SEQUENCES_PER_SEED, left))
        except Exception as error:  # noqa: BLE001 - whatever it is, the attack has succeeded
            found.append(findings_of(error))
            print_failure(error, seed)
            # A failing sequence is repeated until it is short: this seed's steps do not count.
            Model.taken = before
        seed += 1
    steps = Model.taken.total()
    tallies = [
        Tally(f"model: {fault}", runs)
        for fault, names in FAULTS.items()
        if (runs := sum(Model.taken[name] for name in names))
    ]
    first = Tally(
        "model: steps in any order",
        steps,
        sum(wrong.lost_bytes for wrong in found),
        sum(wrong.doubled_bytes for wrong in found),
        sum(len(wrong.problems) for wrong in found),
        sum(wrong.wrong_nanos for wrong in found),
        "what follows is part of these",
    )
    return [first, *tallies]


# Which steps a fault of the table is made of.
FAULTS: dict[str, tuple[str, ...]] = {
    "run ended at a statement": ("kill",),
    "session terminated at a statement": ("cut-off",),
    "top-up between two statements": ("top-up",),
    "several writers at once": ("together",),
    "xray restarted": ("restart",),
    "exporter away, failing, or without history": ("away", "behaviour"),
    "pages small, repeated, or out of order": ("pages",),
    "clock of an exporter or of billing set": ("clock",),
    "history late, forgotten, or without a stream": ("late", "late again", "forgotten", "left out"),
    "counter leaps above the plausible rate": ("leap",),
    "users renewed, renamed, deleted, late, new, with new lines": (
        "renewed",
        "renamed",
        "deleted",
        "late user",
        "new user",
        "new line",
    ),
    "prices changed": ("price", "profile"),
    "stale row written back, and repaired": ("stale write",),
    "top-up in two statements, a run or a kill between": ("split top-up",),
    "quota renewed across a backlog": ("renewal",),
    "account suspended, or deleted and created again": ("suspended", "reborn"),
    "balance NULL, NaN or Infinity": ("unusable",),
    "row locked by a stuck session": ("locked",),
    "exporter upgraded: counters merged, split, renamed": ("upgrade",),
    "clock stepped, snapshots replaced": ("clock step",),
    "spliced connection closed": ("splice",),
}


def play(number: int, sequences: int) -> None:
    """Play sequences by one seed. Raises WrongBooksError, with the fewest steps to get there."""
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=STEPS,
        derandomize=False,
        database=None,
        deadline=None,
        phases=PHASES,
        backend=BACKEND,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(seeded(number)(type("Model", (Model,), {})), settings=chosen)


def print_failure(error: Exception, failed_seed: int) -> None:
    """Say what is wrong, which steps lead there, and how to take them again."""
    rounds = SEQUENCES_PER_SEED * STEPS
    sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(
        f"again: python -m tests.torture --only model --seed {failed_seed} --rounds {rounds}\n"
    )


class Model(RuleBasedStateMachine):
    """A fleet, its exporters, its users and everyone who runs billing, in any order."""

    arena: ClassVar[Arena]
    taken: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.ground = self.stack.enter_context(opened_ground(self.arena, seed=1))
        self.strangers = [self.ground.fleet.new_uuid() for _ in range(2)]
        self.lines = count()
        # A stream that is left out around an upgrade looks like one that vanished, and another one
        # that began at zero (docs: "what cannot be told apart"): either waits until the other is
        # read.
        self.complete_from: dict[str, datetime] = {}
        self.named_from: dict[str, datetime] = {}

    def teardown(self) -> None:
        """Let all faults end; then a few runs bring back what flowed (I6)."""
        with self.stack:
            if sys.exception() is None and self.ground.fleet.nodes:
                errands.settle(self.ground)

    @initialize(number=numbers)
    def fleet_begins(self, number: int) -> None:
        """Three nodes, four users; some under their proxy uuid, some with a second line."""
        users = [self.ground.add_user() for _ in range(4)]
        for place, (source_id, env) in enumerate(SOURCES):
            node = self.ground.fleet.add_node(source_id, env=env)
            for user in users:
                is_proxied = (number + place) % 3 == 0
                node.add_stream(user.proxy_uuid if is_proxied else user.uuid, "x")
            node.add_stream(users[number % 4].uuid, "second", idle=number % 2 == 1)
            node.add_stream(self.strangers[place % 2], "x")
        self._took("begin")

    # The simplest sequence is one of the rule that asks for least, and is always tried: this one.
    @rule(number=numbers)
    def a_timer_collects(self, number: int) -> None:
        """A minute passes and is billed; now and then an operator decides on a held delta."""
        self.ground.elapse(61, 30)
        self._work(errands.errand(self.ground, "collect", number))
        if number % 4 == 1:
            decision = errands.deciding(self.ground, number, is_released=number % 3 != 0)
            if decision is not None:
                self._work(decision)
        self._took("job")

    @rule(
        kind=jobs,
        after=seconds,
        number=numbers,
        meanwhile=st.sampled_from(MEANWHILE),
        at=moments,
        is_after=st.booleans(),
    )
    def a_job_runs(
        self, kind: str, after: int, number: int, meanwhile: str, at: int, is_after: bool
    ) -> None:
        """Some time passes; then a job runs, to which something may happen at a statement."""
        ground = self.ground
        ground.elapse(after, 30 if number % 2 else 15)
        errand = errands.errand(ground, kind, number, is_dry=meanwhile == "dry")
        if meanwhile == "clock":
            errand.billing_clock_error = timedelta(seconds=-600 if is_after else 200)
        elif meanwhile in STRIKES:
            account = self._user(number).uuid
            strikes: dict[str, Strike] = {
                "kill": killed,
                "cut-off": cut_off(ground.connection),
                "top-up": ground.topped_up_meanwhile(account, 1_001 * (number + 1)),
            }
            errand.watch = Watch(at, strikes[meanwhile], after=is_after)
        self._work(errand)
        has_struck = errand.watch is not None and errand.watch.has_struck
        is_job = meanwhile in {"nothing", "dry"} or (meanwhile in STRIKES and not has_struck)
        self._took("job" if is_job else meanwhile)

    @rule(kinds=st.tuples(jobs, jobs), number=numbers, at=moments, is_after=st.booleans())
    def a_job_is_overtaken(
        self, kinds: tuple[str, str], number: int, at: int, is_after: bool
    ) -> None:
        """Another run comes between two statements, all of it or as far as locks let it."""
        self.ground.elapse(61, 30)
        errand, other = (errands.errand(self.ground, kind, number) for kind in kinds)
        self.ground.work_overtaken(errand, other, at, after=is_after)
        self.ground.check()
        self._took("together" if errand.watch and errand.watch.has_struck else "job")

    @rule(kinds=st.lists(jobs, min_size=2, max_size=2), number=numbers)
    def several_run_at_once(self, kinds: list[str], number: int) -> None:
        """Writers meet: each source is worked by one of them at a time."""
        self.ground.elapse(61, 30)
        self._work(*(errands.errand(self.ground, kind, number) for kind in kinds))
        self._took("together")

    @rule(what=st.sampled_from(NODE_TROUBLES), number=numbers, length=seconds, later=seconds)
    def node_has_trouble(self, what: str, number: int, length: int, later: int) -> None:
        """Something goes wrong on a node, or with its exporter's history."""
        node, now = self._node(number), self.ground.now
        until, ago = now + timedelta(seconds=length), now - timedelta(seconds=length)
        match what:
            case "restart":
                node.restart_xray(now, drop_counters=number % 2 == 1)
            case "away":
                node.hide(now, until)
            case "clock":
                node.clock_error = timedelta(seconds=(0, -150, 0, -70, 45, 200)[number % 6])
            case "late":
                self._publish_late(node, number, length, later)
            case "late again":
                node.withhold(ago, now, now + timedelta(seconds=later))
            case "forgotten":
                node.forget_before(ago)
            case "left out" if self._has_read(node, self.named_from) and self._is_alone(number):
                node.hide_stream(self._stream(number), now, until)
                self.complete_from[node.source_id] = max(
                    until, self.complete_from.get(node.source_id, until)
                )
            case "leap":
                node.flow(self._stream(number), 0, IMPOSSIBLE_BYTES)
        self._took(what)

    @rule(
        number=numbers,
        how=st.sampled_from(["well", "well", "well", "down", "status", "latest"]),
        seam=st.sampled_from(["after", "next", "repeat"]),
        size=st.sampled_from([100, 1, 2, 3]),
        order=st.sampled_from(["rising", "rising", "rising", "twice", "reversed"]),
    )
    def exporter_behaves(self, number: int, how: str, seam: Any, size: int, order: Any) -> None:
        """It is well, hangs up, answers with an error, or knows its latest snapshot only."""
        endpoint = self._endpoint(number)
        endpoint.seam, endpoint.max_page, endpoint.order = seam, size, order
        endpoint.down = how == "down"
        endpoint.status = 500 if how == "status" else None
        endpoint.windowed = how != "latest"
        self._took("pages" if how == "well" else "behaviour")

    @rule(what=st.sampled_from(ACCOUNT_CHANGES), number=numbers)
    def account_changes(self, what: str, number: int) -> None:
        """accounts.svc.plus changes what is its own."""
        ground, user = self.ground, self._user(number)
        match what:
            case "credit":
                ground.top_up(user.uuid, 1_000_001 * (number + 1))
            case "renewed":
                ground.fleet.renew_proxy(user)
                ground.save(user)
            case "renamed":
                user.email = f"renamed-{user.email}"
                ground.save(user)
            case "deleted" if len(ground.fleet.users) > 3:
                ground.delete(user)
            case "late user" if self.strangers:
                ground.add_user(self.strangers.pop())
            case "new line":
                self._node(number).add_stream(user.uuid, f"line-{next(self.lines)}")
            case "new user":
                self._node(number).add_stream(ground.add_user().proxy_uuid, "x")
            case "price":
                ground.price = PRICE * (number + 1)
            case "profile":
                ground.give_profile(user, PRICE * (number % 3), Decimal(number + 3) / 4)
        self._took(what)

    @rule(what=st.sampled_from(sorted(neighbour.USER_ACTIONS)), number=numbers)
    def neighbour_acts(self, what: str, number: int) -> None:
        """accounts.svc.plus does its worst."""
        neighbour.USER_ACTIONS[what](self.ground, self._user(number), number)
        self.ground.check()
        self._took(what)

    @rule(what=st.sampled_from(sorted(neighbour.NODE_ACTIONS)), number=numbers)
    def exporter_acts(self, what: str, number: int) -> None:
        """An exporter is upgraded, its clock steps, or it reports what was spliced."""
        node = self._node(number)
        if what == "upgrade":
            if not self._has_read(node, self.complete_from):
                return
            self.named_from[node.source_id] = self.ground.now
        neighbour.NODE_ACTIONS[what](self.ground, node, number)
        self._took(what)

    def _work(self, *several: Errand) -> None:
        self.ground.work(*several)
        self.ground.check()

    def _took(self, what: str) -> None:
        type(self).taken[what] += 1

    def _publish_late(self, node: Node, number: int, length: int, later: int) -> None:
        """Withhold what is taken now, mostly around a restart, until runs have passed it over."""
        since = self.ground.now
        self.ground.elapse(length / 2, 20)
        if number % 4:
            node.restart_xray(self.ground.now)
        self.ground.elapse(length / 2, 20)
        node.withhold(since, self.ground.now, self.ground.now + timedelta(seconds=240 + later))

    def _has_read(self, node: Node, since: dict[str, datetime]) -> bool:
        """Tell whether billing has read what was taken since a moment, if there is one."""
        collected = self.ground.judge.collected.get(node.identity.stored, [])
        moment = nanoseconds_of(since.get(node.source_id, START))
        return node.source_id not in since or any(
            snapshot.taken_nanoseconds >= moment for snapshot in collected
        )

    def _is_alone(self, number: int) -> bool:
        """Tell whether a stream is its account's only one: others may seem to take over its total.

        That is among what cannot be told apart: they grow by more while it is left out.
        """
        owners = accounts_by_uuid(self.ground.fleet)
        counted = [
            owners.get(stream.name.sample_uuid, stream.name.sample_uuid)
            for stream in self._node(number).streams
        ]
        return counted.count(counted[self._stream(number).index]) == 1

    def _node(self, number: int) -> Node:
        return list(self.ground.fleet.nodes.values())[number % len(SOURCES)]

    def _endpoint(self, number: int) -> Endpoint:
        return self.ground.running[self._node(number).source_id]

    def _stream(self, number: int) -> Stream:
        streams = self._node(number).streams
        return streams[number // len(SOURCES) % len(streams)]

    def _user(self, number: int) -> User:
        return self.ground.fleet.users[number % len(self.ground.fleet.users)]
