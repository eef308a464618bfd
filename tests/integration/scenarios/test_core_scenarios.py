from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from billing_cli.simulator.process import Bytes
from billing_cli.simulator.scenarios.library import BY_NAME
from billing_cli.simulator.scenarios.playing import Played, play
from tests.integration.scenarios.drive import bill, bill_step_by_step
from tests.integration.scenarios.failing import NAMES, REASON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

# Two stale snapshots in a row can't be told from a restart; the next one takes it back.
REVOKED_LATER = {"clock_ahead_two_missed_polls", "clock_ahead_heavy_boot"}

# Nor can they where two runs meet the snapshots of the former clock, and none came right before.
BEFORE_SET_BACK, AFTER_SET_BACK = 11, {12, 13, 14}


@pytest.mark.parametrize("name", NAMES)
def test_each_account_is_charged_what_flowed(name: str) -> None:
    """However the history is cut into runs, charged is what the counting processes carried."""
    scene = played(name)
    cuttings = scene.cuttings().items()
    assert {way: found for way, moments in cuttings if (found := wrong(scene, moments))} == {}


@pytest.mark.parametrize(
    "name", [name for name in BY_NAME if name not in REVOKED_LATER | REASON.keys()]
)
def test_no_run_charges_more_than_flowed(name: str) -> None:
    """After every single run, charged is at most what the snapshots read so far can tell of."""
    scene = played(name)
    for count, billed in enumerate(bill_step_by_step(scene, scene.moments), start=1):
        expected = scene.expected(scene.moments[:count])
        for account, charged in billed.charged.items():
            highest = expected[account].high if account in expected else Bytes()
            assert charged.uplink <= highest.uplink
            assert charged.downlink <= highest.downlink


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_choice_of_runs_charges_what_flowed(data: st.DataObject) -> None:
    """Runs may take place at any moments, as long as there is one at the end."""
    name = data.draw(st.sampled_from([name for name in BY_NAME if name not in REASON]))
    scene = played(name)
    last = len(scene.moments) - 1
    runs = [minute for minute in range(last) if data.draw(st.booleans())]
    if name == "clock_back_live":
        assume(BEFORE_SET_BACK in runs or len(AFTER_SET_BACK.intersection(runs)) < 2)
    assert wrong(scene, [scene.moments[minute] for minute in (*runs, last)]) == []


@cache
def played(name: str) -> Played:
    """Return the scenario with its history, which is never changed here."""
    return play(BY_NAME[name])


def wrong(scene: Played, moments: Sequence[datetime]) -> list[str]:
    """Return the accounts that are charged other than they must be, one line each."""
    billed = bill(scene, moments)
    return [
        f"{account}: charged {text(billed.of(account))}, expected {text(expected.low)} to "
        f"{text(expected.high)}"
        for account, expected in scene.expected(moments).items()
        if not expected.allows(billed.of(account))
    ]


def text(moved: Bytes) -> str:
    """Return bytes by direction as they are read best."""
    return f"{moved.uplink:,} up / {moved.downlink:,} down"
