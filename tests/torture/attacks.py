"""All attacks, with how many rounds each has in a full run and in the cut of `make test`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.torture import (
    blows,
    cuts,
    disks,
    durability,
    failover,
    hanging,
    history,
    kills,
    locks,
    model,
    sealed_jobs,
    sealing,
    soak,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.torture.arena import Arena
    from tests.torture.tally import Tally


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to make billing lose or double a byte.

    `run` gets an arena, a seed and a number of rounds; what a round is, is the attack's own to
    say. The same seed and rounds do the same again. `seconds_per_round` is about what a round
    takes, by which a run of limited time shares its minutes out. An attack that ends by itself has
    more `rounds` than it needs, and about so many that it needs.
    """

    name: str
    run: Callable[[Arena, int, int], list[Tally]]
    rounds: int
    seconds_per_round: float
    needed_rounds: int | None = None

    @property
    def typical_rounds(self) -> int:
        """How many rounds a full run has."""
        return self.needed_rounds or self.rounds


# A job has far fewer messages.
ALL_POINTS = 1_000_000

ATTACKS: tuple[Attack, ...] = (
    Attack("cut-collect", cuts.cut_collect, ALL_POINTS, 0.4, 1087),
    Attack("cut-catch-up", cuts.cut_catch_up, ALL_POINTS, 0.5, 3140),
    Attack("cut-reconcile", cuts.cut_reconcile, ALL_POINTS, 0.4, 980),
    Attack("cut-rerate", cuts.cut_rerate, ALL_POINTS, 0.4, 1349),
    Attack("cut-migrate", cuts.cut_migrate, ALL_POINTS, 0.5, 1696),
    Attack("kill-forks", kills.kill_forks, 900, 1.0),
    Attack("kill-commands", kills.kill_commands, 200, 1.0),
    Attack("pause", kills.pause, 40, 2.0),
    Attack("crash", blows.crash, 100, 1.0),
    Attack("terminate", blows.terminate, 200, 0.4),
    Attack("failover", failover.failover, 100, 4.0),
    Attack("power-cut", durability.power_cut, 60, 4.0),
    Attack("locks", locks.hold, 100, 0.7),
    Attack("deadlock", locks.deadlock, 60, 0.7),
    Attack("seal-beside", sealing.beside, 250, 0.4),
    Attack("kill-sealed-jobs", sealed_jobs.kill, 300, 0.7),
    Attack("disk", disks.fill, 30, 2.0),
    Attack("hanging", hanging.attack, 2, 90.0),
    Attack("history", history.attack, 1_000, 0.1),
    Attack("model", model.attack, 10_000, 0.2),
    Attack("soak", soak.attack, 30, 100.0),
)
