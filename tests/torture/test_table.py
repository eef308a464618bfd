"""What a run finds wrong, and how its time is shared out."""

from __future__ import annotations

import pytest

from tests.torture.attacks import ATTACKS, Attack
from tests.torture.runner import rounds_of
from tests.torture.tally import Tally


@pytest.mark.parametrize(
    "wrong",
    [
        Tally("kill", 1, lost_bytes=1),
        Tally("kill", 1, doubled_bytes=1),
        Tally("kill", 1, broken_invariants=1),
        Tally("kill", 1, wrong_nanos=1),
    ],
)
def test_each_figure_alone_makes_a_tally_unclean(wrong: Tally) -> None:
    """And it stays so, whatever is added."""
    assert Tally("kill", 5).is_clean
    assert not wrong.is_clean
    assert not Tally("kill", 5).plus(wrong).is_clean


def test_a_full_run_has_what_is_promised() -> None:
    """Every cut point, a thousand kills, a hundred crashes."""
    rounds = rounds_of(ATTACKS, None, None)
    assert rounds["kill-forks"] + rounds["kill-commands"] >= 1000
    assert rounds["crash"] >= 100
    assert all(rounds[name] >= 100_000 for name in rounds if name.startswith("cut-"))


def test_rounds_are_cut_to_the_minutes_that_there_are() -> None:
    """Two attacks at once; each has its share of the time, and one round at least."""
    attacks = [attack("long", 1000, 1.0), attack("short", 100, 2.0), attack("rare", 1, 0.1)]
    rounds = rounds_of(attacks, None, minutes=1)
    assert rounds == {"long": 99, "short": 9, "rare": 1}


def attack(name: str, rounds: int, seconds_per_round: float) -> Attack:
    """Return an attack that does nothing."""
    return Attack(name, lambda _arena, _seed, _rounds: [], rounds, seconds_per_round)
