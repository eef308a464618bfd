from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.torture import soak

if TYPE_CHECKING:
    from tests.torture.arena import Arena
    from tests.torture.ground import Ground


@pytest.fixture(autouse=True)
def _short_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day has an hour here, and each of its faults about once."""
    monkeypatch.setattr(soak, "RUNS_A_DAY", 8)
    monkeypatch.setattr(soak, "DAILY", dict.fromkeys(soak.DAILY, 1.0))


def test_days_are_billed_to_the_ninth_decimal_and_their_cost_is_told(arena: Arena) -> None:
    """The tally says what was earned, what went wrong, and what a run costs at the end."""
    (tally,) = soak.attack(arena, 4, 1)
    assert tally.is_clean
    assert tally.runs >= 8
    for told in ("revenue ", "statements of a collect ", "on the last; its time x ", "streams "):
        assert told in tally.detail


def test_a_price_that_is_off_is_told_with_the_command_that_repeats_it(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thousandth of 1e-9 on each byte is enough."""
    monkeypatch.setattr("tests.torture.ground.Ground.configured_price", _dearer)
    (tally,) = soak.attack(arena, 4, 1)
    assert tally.wrong_nanos > 0
    told = capsys.readouterr().err
    assert told.endswith("again: python -m tests.torture --only soak --seed 4 --rounds 1\n")


def _dearer(ground: Ground) -> Decimal:
    return ground.price + Decimal("1e-12")
