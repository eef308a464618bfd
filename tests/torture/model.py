"""Any sequence of traffic, faults and jobs, by chance: after each step the books are right.

Hypothesis makes up the sequences and shrinks one that fails to the steps that matter. What the
books must say is worked out beside it, by `tests.torture.expected`.
"""

from __future__ import annotations

import sys
import traceback
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from decimal import Decimal
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

from tests.torture import errands
from tests.torture.checks import Findings, findings_of
from tests.torture.expected_cells import IMPOSSIBLE_BYTES
from tests.torture.ground import PRICE, opened_ground
from tests.torture.interference import Watch, cut_off, killed
from tests.torture.tally import Tally

if TYPE_CHECKING:
    from billing_cli.simulator.server import Endpoint
    from billing_cli.simulator.traffic import Node, Stream, User
    from tests.torture.arena import Arena
    from tests.torture.ground import Errand

STEPS = 50
"""How many steps a sequence has. Each begins with an empty database."""

SEQUENCES_PER_SEED = 20
"""After so many sequences the next seed follows, so that what fails is soon done again."""

PHASES = (Phase.generate, Phase.shrink)
SOURCES = (("jp-1", "prod"), ("us-1", "prod"), ("de-1", ""))

numbers = st.integers(0, 11)
seconds = st.sampled_from([61, 20, 180, 420])
moments = st.integers(1, 40)
"""The statement of a job before or after which something happens."""


def attack(arena: Arena, seed: int, rounds: int) -> list[Tally]:
    """Take `rounds` steps, in sequences that begin with an empty database.

    After SEQUENCES_PER_SEED of them the next seed goes on. What is wrong is printed, with the
    command that does it again.
    """
    Model.arena, Model.taken = arena, Counter()
    wrong = Findings()
    while Model.taken.total() < rounds and not wrong.problems:
        left = -(-(rounds - Model.taken.total()) // STEPS)
        try:
            play(seed, min(SEQUENCES_PER_SEED, left))
        except Exception as error:  # noqa: BLE001 - whatever it is, the attack has succeeded
            wrong = findings_of(error)
            print_failure(error, seed)
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
        wrong.lost_bytes,
        wrong.doubled_bytes,
        len(wrong.problems),
        wrong.wrong_nanos,
    )
    return [first, *tallies]


# Which steps a fault of the table is made of.
FAULTS: dict[str, tuple[str, ...]] = {
    "xray restarted": ("restart",),
    "exporter away, failing, or with its latest snapshot only": ("outage",),
    "clock of an exporter or of billing set": ("clock",),
    "history late, forgotten, or without a stream": ("hidden",),
    "pages small, repeated, or out of order": ("pages",),
    "users renewed, deleted, late, or with new lines": ("users",),
    "prices changed": ("prices",),
    "counter leaps that no line can carry": ("held",),
    "top-up between two statements": ("top-up",),
    "run ended at a statement": ("kill",),
    "session terminated at a statement": ("cut-off",),
    "several writers at once": ("together",),
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

    def teardown(self) -> None:
        """Let all faults end; then a few runs bring back what flowed (I6)."""
        with self.stack:
            if sys.exception() is None and self.ground.fleet.nodes:
                errands.settle(self.ground)

    @initialize(number=numbers)
    def fleet_begins(self, number: int) -> None:
        """Three nodes, four users; some under their proxy uuid, some with a second line."""
        self._took("begin")
        users = [self.ground.add_user() for _ in range(4)]
        for place, (source_id, env) in enumerate(SOURCES):
            node = self.ground.fleet.add_node(source_id, env=env)
            for user in users:
                is_proxied = (number + place) % 3 == 0
                node.add_stream(user.proxy_uuid if is_proxied else user.uuid, "x")
            node.add_stream(users[number % 4].uuid, "second", idle=number % 2 == 1)
            node.add_stream(self.strangers[place % 2], "x")

    @rule(after=seconds, poll=st.sampled_from([15, 30, 60]))
    def time_passes(self, after: int, poll: int) -> None:
        """Traffic flows, and exporters poll once or several times a minute."""
        self._took("traffic")
        self.ground.elapse(after, poll)

    @rule(number=numbers, drops=st.booleans())
    def xray_restarts(self, number: int, drops: bool) -> None:
        """Counters begin again at zero; what flowed since the last poll is lost."""
        self._took("restart")
        self._node(number).restart_xray(self.ground.now, drop_counters=drops)

    @rule(number=numbers, length=seconds)
    def exporter_goes_away(self, number: int, length: int) -> None:
        """No polls and no answers for a while."""
        self._took("outage")
        now = self.ground.now
        self._node(number).hide(now, now + timedelta(seconds=length))

    @rule(number=numbers, off_by=st.sampled_from([-150, -70, 0, 45, 200]))
    def exporter_clock_steps(self, number: int, off_by: int) -> None:
        """The clock of an exporter is set, forwards or backwards."""
        self._took("clock")
        self._node(number).clock_error = timedelta(seconds=off_by)

    @rule(number=numbers, length=seconds, later=seconds)
    def history_is_late(self, number: int, length: int, later: int) -> None:
        """The last snapshots vanish, to be published again some time later."""
        self._took("hidden")
        now = self.ground.now
        begin, end = now - timedelta(seconds=length), now + timedelta(seconds=later)
        self._node(number).withhold(begin, now, end)

    @rule(number=numbers, kept=seconds)
    def history_is_forgotten(self, number: int, kept: int) -> None:
        """An exporter restarts, and has but its latest history."""
        self._took("hidden")
        self._node(number).forget_before(self.ground.now - timedelta(seconds=kept))

    @rule(number=numbers, length=seconds)
    def stream_is_left_out(self, number: int, length: int) -> None:
        """Snapshots do not hold one of the streams for a while."""
        self._took("hidden")
        node, now = self._node(number), self.ground.now
        node.hide_stream(self._stream(number), now, now + timedelta(seconds=length))

    @rule(number=numbers)
    def counter_leaps(self, number: int) -> None:
        """More bytes than any line can carry."""
        self._took("held")
        node = self._node(number)
        node.flow(self._stream(number), 0, IMPOSSIBLE_BYTES)

    @rule(
        number=numbers,
        seam=st.sampled_from(["after", "next", "repeat"]),
        size=st.sampled_from([1, 2, 3, 100]),
        order=st.sampled_from(["rising", "rising", "twice", "reversed"]),
    )
    def pages_change(self, number: int, seam: Any, size: int, order: Any) -> None:
        """Pages of another size, joined in another way; snapshots twice, or out of order."""
        self._took("pages")
        endpoint = self._endpoint(number)
        endpoint.seam, endpoint.max_page = seam, size
        endpoint.order = order

    @rule(number=numbers, how=st.sampled_from(["down", "status", "latest", "well", "well"]))
    def exporter_behaves(self, number: int, how: str) -> None:
        """It hangs up, answers with an error, knows its latest snapshot only, or is well again."""
        self._took("outage")
        endpoint = self._endpoint(number)
        endpoint.down = how == "down"
        endpoint.status = 500 if how == "status" else None
        endpoint.windowed = how != "latest"

    @rule(number=numbers)
    def user_changes(self, number: int) -> None:
        """A proxy uuid is renewed, an account deleted, a name changed."""
        self._took("users")
        user = self._user(number)
        if number % 3 == 0:
            self.ground.fleet.renew_proxy(user)
        elif number % 3 == 1 and len(self.ground.fleet.users) > 2:
            self.ground.delete(user)
            return
        else:
            user.email = f"renamed-{number}-{user.email}"
        self.ground.save(user)

    @rule(number=numbers)
    def user_appears(self, number: int) -> None:
        """An account appears, whose counters were there before, or with a new line."""
        self._took("users")
        if self.strangers and number % 2:
            self.ground.add_user(self.strangers.pop())
            return
        tag = f"line-{len(self.ground.fleet.users)}-{number}"
        user = self._user(number) if number % 4 else self.ground.add_user()
        node = self._node(number)
        if all(one.name != (tag, user.uuid) for one in node.streams):
            node.add_stream(user.uuid, tag)

    @rule(number=numbers)
    def prices_change(self, number: int) -> None:
        """The price for all, or that of one account."""
        self._took("prices")
        if number % 2:
            self.ground.price = PRICE * (number + 1)
        else:
            multiplier = Decimal(number + 3) / 4
            self.ground.give_profile(self._user(number), PRICE * (number % 3), multiplier)

    @rule(number=numbers)
    def account_is_topped_up(self, number: int) -> None:
        """accounts.svc.plus adds to a balance between two runs."""
        self._took("credit")
        self.ground.top_up(self._user(number).uuid, 1_000_001 * (number + 1))

    # The simplest sequence is one of the first rule by name alone, and is always tried: this one.
    @rule(after=seconds, number=numbers, is_dry=st.booleans())
    def a_timer_collects(self, after: int, number: int, is_dry: bool) -> None:
        """What happens every minute."""
        self._run("collect", after, number, is_dry=is_dry and number % 2 == 0)

    @rule(after=seconds, number=numbers)
    def catch_up(self, after: int, number: int) -> None:
        """What an operator does after an outage."""
        self._run("catch-up", after, number)

    @rule(after=seconds, number=numbers)
    def reconcile(self, after: int, number: int) -> None:
        """What the control plane does."""
        self._run("reconcile", after, number)

    @rule(number=numbers)
    def rerate(self, number: int) -> None:
        """What an operator does after a price was wrong."""
        self._run("rerate", 0, number)

    @rule(number=numbers, is_released=st.booleans())
    def held_is_decided(self, number: int, is_released: bool) -> None:
        """An operator releases or rejects what no line can carry."""
        self._took("held")
        decision = errands.deciding(self.ground, number, is_released=is_released)
        if decision is not None:
            self._work(decision)

    @rule(kind=st.sampled_from(errands.KINDS), number=numbers, skew=st.sampled_from([-600, 200]))
    def clock_of_billing_is_wrong(self, kind: str, number: int, skew: int) -> None:
        """The machine that runs a job has another time."""
        self._took("clock")
        errand = errands.errand(self.ground, kind, number)
        errand.billing_clock_error = timedelta(seconds=skew)
        self._work(errand)

    @rule(kind=st.sampled_from(errands.KINDS), number=numbers, at=moments, is_after=st.booleans())
    def job_is_killed(self, kind: str, number: int, at: int, is_after: bool) -> None:
        """A run ends before or after one of its statements, COMMIT included."""
        self._interfere("kill", kind, number, Watch(at, killed, after=is_after))

    @rule(kind=st.sampled_from(errands.KINDS), number=numbers, at=moments, is_after=st.booleans())
    def session_is_terminated(self, kind: str, number: int, at: int, is_after: bool) -> None:
        """The server ends a run's session before or after one of its statements."""
        strike = cut_off(self.ground.connection)
        self._interfere("cut-off", kind, number, Watch(at, strike, after=is_after))

    @rule(kind=st.sampled_from(errands.KINDS), number=numbers, at=moments)
    def account_is_topped_up_meanwhile(self, kind: str, number: int, at: int) -> None:
        """accounts.svc.plus adds to a balance between two statements of a run."""
        strike = self.ground.topped_up_meanwhile(self._user(number).uuid, 1_001 * (number + 1))
        self._interfere("top-up", kind, number, Watch(at, strike))

    @rule(kinds=st.lists(st.sampled_from(errands.KINDS), min_size=2, max_size=3), number=numbers)
    def several_run_at_once(self, kinds: list[str], number: int) -> None:
        """Writers meet: each source is worked by one of them at a time."""
        self._took("together")
        self.ground.elapse(61, 30)
        self._work(*(errands.errand(self.ground, kind, number) for kind in kinds))

    def _run(self, kind: str, after: int, number: int, *, is_dry: bool = False) -> None:
        self._took("job")
        self.ground.elapse(after, 30)
        self._work(errands.errand(self.ground, kind, number, is_dry=is_dry))

    def _interfere(self, fault: str, kind: str, number: int, watch: Watch) -> None:
        self.ground.elapse(61, 30)
        errand = errands.errand(self.ground, kind, number)
        errand.watch = watch
        self._work(errand)
        self._took(fault if watch.has_struck else "job")

    def _work(self, *several: Errand) -> None:
        self.ground.work(*several)
        self.ground.check()

    def _took(self, what: str) -> None:
        type(self).taken[what] += 1

    def _node(self, number: int) -> Node:
        return list(self.ground.fleet.nodes.values())[number % len(SOURCES)]

    def _endpoint(self, number: int) -> Endpoint:
        return self.ground.running[self._node(number).source_id]

    def _stream(self, number: int) -> Stream:
        streams = self._node(number).streams
        return streams[number // len(SOURCES) % len(streams)]

    def _user(self, number: int) -> User:
        return self.ground.fleet.users[number % len(self.ground.fleet.users)]
