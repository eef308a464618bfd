from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase

from billing_cli.core.times import MINUTE
from billing_cli.simulator.oracle import Oracle
from tests.torture import errands, model
from tests.torture.arena import opened_arena
from tests.torture.expected_money import cost_of
from tests.torture.ground import START, opened_ground

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.torture.arena import Arena
    from tests.torture.ground import Ground

# The model computes what it expects by the first edition's rules: restarts and held deltas of each
# stream. Scenarios and their oracle (tests/integration/scenarios) go by the present ones.
FORMER_RULES = pytest.mark.xfail(
    reason="the model's random steps are expected by the first edition's rules", run=False
)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    """Return a server for the ground of these tests."""
    with opened_arena() as opened:
        yield opened


@FORMER_RULES
def test_a_seed_takes_the_same_steps_again(arena: Arena) -> None:
    """Steps follow from the seed alone, so that what failed once fails again."""
    taken = []
    for _ in range(2):
        assert all(one.is_clean for one in model.attack(arena, 5, 100))
        taken.append(dict(model.Model.taken))
    assert taken[0] == taken[1]


def test_what_is_wrong_is_told_with_its_steps_and_the_command_that_repeats_them(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A price that is off by a thousandth of 1e-9 a byte is found, and found again."""
    monkeypatch.setattr(model, "PHASES", (Phase.generate,))
    monkeypatch.setattr("tests.torture.ground.Ground.price_of", _dearer)
    first = model.attack(arena, 7, 1000)[0]
    assert first.wrong_nanos > 0
    told = capsys.readouterr().err
    assert "state.fleet_begins(number=" in told
    assert told.endswith("again: python -m tests.torture --only model --seed 7 --rounds 1000\n")
    assert model.attack(arena, 7, 1000)[0] == first


def test_what_is_expected_is_what_the_oracle_says(arena: Arena) -> None:
    """Books kept step by step are those that the oracle draws up from the whole history at once."""
    with opened_ground(arena, seed=2) as ground:
        users = [ground.add_user() for _ in range(3)]
        for source_id in ("jp-1", "us-1"):
            node = ground.fleet.add_node(source_id)
            for user in users:
                node.add_stream(user.uuid, "x")
        for number in range(12):
            node = ground.fleet.nodes["us-1" if number % 2 else "jp-1"]
            if number % 4 == 3:
                node.restart_xray(ground.now, drop_counters=number % 8 == 3)
            elif number % 4 == 1:
                node.hide_stream(node.streams[0], ground.now, ground.now + 2 * MINUTE)
            ground.elapse(61 + number, 20)
            ground.work(errands.errand(ground, "collect", number % 3))
        ground.check()
        truth = Oracle(ground.fleet).bytes_by_bucket(_reached(ground))
    assert dict(ground.expected.buckets) == truth
    assert ground.expected.is_whole()
    reasons = ground.expected.unbilled()
    assert reasons["reset"] > 0
    assert reasons["unseen"] > 0


def test_history_that_comes_late_is_expected_where_it_belongs(arena: Arena) -> None:
    """Snapshots that were hidden tell of bytes before a restart, which are lost without them."""
    with opened_ground(arena, seed=3) as ground:
        node = ground.fleet.add_node("jp-1")
        stream = node.add_stream(ground.add_user().uuid, idle=True)
        ground.elapse(151, 60)
        ground.work(errands.errand(ground, "collect"))
        node.flow(stream, 0, 100)
        ground.elapse(60, 60)
        node.flow(stream, 0, 200)
        ground.elapse(60, 60)
        node.restart_xray(ground.now)
        node.withhold(START + 3 * MINUTE, ground.now, ground.now + 5 * MINUTE)
        node.flow(stream, 0, 50)
        ground.elapse(120, 60)
        ground.work(errands.errand(ground, "collect"))
        ground.check()
        assert _bytes_by_minute(ground) == {5: 50}
        assert ground.expected.unbilled()["reset"] == 300
        ground.elapse(300, 60)
        ground.work(errands.errand(ground, "reconcile"))
        ground.check()
        assert _bytes_by_minute(ground) == {3: 100, 4: 200, 5: 50}
        assert not ground.expected.unbilled()


def test_money_is_rounded_once_and_to_even() -> None:
    """Half of 1e-9 goes to the even neighbour, as the design says."""
    assert [cost_of(rated, Fraction(1, 2)) for rated in (1, 2, 3, 5)] == [0, 1, 2, 2]


def _dearer(ground: Ground, _account: str) -> Fraction:
    return Fraction(ground.price) * 10**9 + Fraction(1, 1000)


def _reached(ground: Ground) -> dict[str, datetime]:
    return {
        node_id: one.watermark + timedelta.resolution
        for node_id, one in ground.expected.nodes.items()
        if one.watermark is not None
    }


def _bytes_by_minute(ground: Ground) -> dict[int, int]:
    return {
        (name.bucket_start - START) // MINUTE: sum(moved)
        for name, moved in sorted(ground.expected.buckets.items())
    }
