"""A cut of all attacks, small enough for every run of the tests: nothing is lost or doubled.

The full ones are run by `make torture`, and their figures are in docs/evidence/reliability.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.torture.attacks import ATTACKS

if TYPE_CHECKING:
    from tests.torture.arena import Arena
    from tests.torture.attacks import Attack

SEED = 20


@pytest.mark.parametrize(
    "attack", [pytest.param(attack, id=attack.name) for attack in ATTACKS if attack.rounds_in_tests]
)
def test_an_attack_finds_nothing_wrong(arena: Arena, attack: Attack) -> None:
    """Each fault strikes a few times; what is wrong is told on stderr, with how to replay it."""
    for tally in attack.run(arena, SEED, attack.rounds_in_tests):
        if not tally.runs and tally.detail.startswith("not attacked"):
            pytest.skip(tally.detail)
        assert tally.runs > 0
        assert tally.is_clean, tally
