"""All attacks, with how many rounds each has in a full run and in the cut of `make test`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


ATTACKS: tuple[Attack, ...] = ()
