"""All attacks, with how many rounds each has in a full run and in the cut of `make test`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.torture import cuts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.torture.arena import Arena
    from tests.torture.tally import Tally


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to make billing lose or double a byte.

    `run` gets an arena, a seed and a number of rounds; what a round is, is the attack's own to
    say. The same seed and rounds do the same again. `seconds_per_round` is about what a round
    takes, by which a run of limited time shares its minutes out.
    """

    name: str
    run: Callable[[Arena, int, int], list[Tally]]
    rounds: int
    rounds_in_tests: int
    seconds_per_round: float


# More rounds than a job has messages are as many as it has.
ALL_POINTS = 1_000_000

ATTACKS: tuple[Attack, ...] = (
    Attack("cut-collect", cuts.cut_collect, ALL_POINTS, 20, 0.2),
    Attack("cut-catch-up", cuts.cut_catch_up, ALL_POINTS, 20, 0.25),
    Attack("cut-reconcile", cuts.cut_reconcile, ALL_POINTS, 20, 0.2),
    Attack("cut-rerate", cuts.cut_rerate, ALL_POINTS, 20, 0.2),
    Attack("cut-migrate", cuts.cut_migrate, ALL_POINTS, 20, 0.25),
)
