"""Sources that stand still are asked for more, until they move or can't be asked for more."""

from __future__ import annotations

import pytest

from billing_cli.config.source import Source
from billing_cli.jobs.larger_shares import LargerShares
from billing_cli.jobs.reconcile_progress import LARGEST_STEP_SAMPLES


def test_a_share_below_two_minutes_grows_by_what_came() -> None:
    """A step has two minutes at least, which can be more than the share and than its double."""
    shares = LargerShares().after({"jp-1": 9_000})
    assert shares.wanted == {"jp-1": 18_000}
    assert shares.after({"jp-1": 17_000}).wanted == {"jp-1": 36_000}


def test_a_large_minute_does_not_stop_a_source() -> None:
    """The next minute alone was more than what was asked for: nothing more came."""
    shares = LargerShares().after({"jp-1": 2_000}).after({"jp-1": 2_000})
    assert (shares.wanted, shares.stopped) == ({"jp-1": 8_000}, frozenset())


@pytest.mark.parametrize("got", [2, 9_000, 300_000, LARGEST_STEP_SAMPLES])
def test_a_source_is_stopped_after_the_largest_step(got: int) -> None:
    """It stays stopped, while others go on."""
    shares, asked = LargerShares(), []
    while not shares.stopped:
        shares = shares.after({"jp-1": got})
        asked += shares.wanted.values()
    assert asked[-1:] in ([], [LARGEST_STEP_SAMPLES])
    assert shares.after({"us-1": 10}) == LargerShares({"us-1": 20}, stopped=frozenset({"jp-1"}))


def test_a_source_that_moves_is_asked_for_its_ordinary_share_again() -> None:
    """It is not among those that stand still."""
    assert LargerShares().after({"jp-1": 9_000}).after({}) == LargerShares()


def test_several_sources_together_stay_within_the_largest_step() -> None:
    """Each of them gets its turn: it is asked for the largest step before it is stopped."""
    names = {f"s-{number:02}" for number in range(50)}
    shares, largest, steps = LargerShares(), set(), 0
    while shares.stopped != names:
        taking_part = names - shares.stopped - shares.postponed.keys()
        shares = shares.after(
            {name: max(9_000, shares.wanted.get(name, 0)) for name in taking_part}
        )
        assert sum(shares.wanted.values()) <= LARGEST_STEP_SAMPLES
        assert shares.wanted or shares.stopped == names
        largest |= {name for name, size in shares.wanted.items() if size == LARGEST_STEP_SAMPLES}
        steps += 1
    assert largest == names
    assert steps < 10 * len(names)


def test_a_source_that_waits_for_room_goes_on_where_it_was() -> None:
    """It takes no part meanwhile, so that the others are not held back by it."""
    shares = LargerShares({"jp-1": 500_000, "us-1": 300_000}).after(
        {"jp-1": 450_000, "us-1": 300_000}
    )
    assert (shares.wanted, shares.postponed) == ({"jp-1": 1_000_000}, {"us-1": 600_000})
    sources = {name: Source(name, "http://localhost") for name in ("de-1", "jp-1", "us-1")}
    assert shares.taking_part(sources).keys() == {"de-1", "jp-1"}
    assert shares.left(sources, {"jp-1"}).keys() == {"jp-1", "us-1"}
    assert shares.after({"jp-1": None}) == shares
    then = shares.after({})
    assert then == LargerShares({"us-1": 600_000})
    assert then.left(sources, {"de-1"}).keys() == {"de-1", "us-1"}


def test_what_all_sources_were_asked_for_is_no_reason_to_ask_for_more() -> None:
    """Their step ended too early, not their share: what they are asked for stays as it is."""
    shares = LargerShares({"jp-1": 500})
    assert shares.after({"jp-1": None, "us-1": None}).wanted == {"jp-1": 500, "us-1": 0}


def test_a_run_s_last_step_stops_what_stands_still() -> None:
    """Nothing more is asked for."""
    shares = LargerShares({"jp-1": 500}, {"de-1": 700})
    assert shares.after({"jp-1": 400, "us-1": 9}, is_last=True) == LargerShares(
        stopped=frozenset({"jp-1", "us-1", "de-1"})
    )
