from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import NodeIdentity, Snapshot, StreamName, Totals
from billing_cli.core.times import minute_of
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.steps import is_new, weight, whole_minutes
from tests.unit.core.examples import examples

START = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)


def test_everything_is_kept_where_it_fits_and_nothing_more_comes() -> None:
    """The end of a source's history is a whole minute, for it is before `until`."""
    assert kept([0, 60, 61], max_samples=100, exhausted=True) == 3


def test_the_last_minute_may_lack_snapshots_while_more_may_come() -> None:
    """It is left for the next step."""
    assert kept([0, 60, 61, 120, 180, 181], max_samples=100, exhausted=False) == 4


def test_a_step_ends_where_the_next_minute_would_be_too_much() -> None:
    """The bound holds as soon as two minutes beyond the first are in."""
    assert kept([0, 60, 120, 180, 240], max_samples=3, exhausted=True) == 3
    assert kept([0, 60, 120, 180, 240], max_samples=3, exhausted=False) == 3


def test_a_step_moves_on_by_two_minutes_however_large_they_are() -> None:
    """What a decreased counter in the first of them means is told by the second."""
    seconds = [0, 30, 60, 70, 80, 90, 120, 180]
    assert kept(seconds, max_samples=1, exhausted=False) == 7
    assert kept(seconds, max_samples=1, exhausted=True) == 7


def test_no_step_is_made_before_a_minute_is_whole() -> None:
    """The caller has to ask for more."""
    assert kept([0, 60, 61], max_samples=1, exhausted=False) == 0
    assert kept([0, 10], max_samples=1, exhausted=False) == 0
    assert kept([], max_samples=1, exhausted=False) == 0


def test_the_minute_of_since_alone_is_enough_where_nothing_follows() -> None:
    """It shows that the history goes on from the watermark."""
    assert kept([0], max_samples=1, exhausted=True) == 1
    assert kept([], max_samples=1, exhausted=True) == 0


def test_a_quiet_time_counts_for_nothing() -> None:
    """The first minute that holds snapshots is the next one, however far away it is."""
    assert kept([0, 3600, 3601, 7200, 9000], max_samples=1, exhausted=False) == 4


def test_an_empty_snapshot_counts_for_one() -> None:
    """Otherwise an exporter without users would have no bound at all."""
    assert weight(made(0, samples=0)) == 1
    assert weight(made(0, samples=3, rejected=2)) == 5


@examples()
@given(
    st.lists(st.tuples(st.integers(0, 1800), st.integers(0, 5)), unique_by=lambda pair: pair[0]),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 59),
)
def test_a_step_is_whole_bounded_and_moves_on(
    shape: list[tuple[int, int]], max_samples: int, exhausted: bool, since_second: int
) -> None:
    """Whatever the history: whole minutes, a bound that holds, and no standing still."""
    snapshots = [made(second, samples) for second, samples in sorted(shape)]
    since = START + timedelta(seconds=since_second)
    count = whole_minutes(snapshots, since=since, max_samples=max_samples, exhausted=exhausted)
    step, rest = snapshots[:count], snapshots[count:]
    minutes = [minute_of(snapshot.collected_at) for snapshot in snapshots]
    if step and rest:
        assert minutes[count - 1] < minutes[count]
    later = sorted({minute for minute in minutes if minute > minute_of(since)})
    whole = later if exhausted else later[:-1]
    if len(whole) > 1 or (whole and exhausted):
        assert step
        assert minutes[count - 1] >= whole[:2][-1]
    if sum(map(weight, step)) > max_samples:
        assert not later or minutes[count - 1] <= later[:2][-1]
    if not exhausted and minutes:
        assert not step or minutes[count - 1] < minutes[-1]
    elif sum(map(weight, snapshots)) <= max_samples:
        assert count == len(snapshots)


def test_a_repeated_snapshot_is_not_new() -> None:
    """Pages may begin with the snapshot that the one before ended with."""
    assert is_new(None, made(0))
    assert is_new(made(0), made(1))
    assert not is_new(made(1), made(1))


def test_one_instant_has_one_set_of_figures() -> None:
    """The same stamp with other totals is an error, whichever of them is right."""
    with pytest.raises(ExporterError, match="two different snapshots of 2026-04-08T12:00:01Z"):
        is_new(made(1, samples=1), made(1, samples=2))


def test_time_runs_forward() -> None:
    """An earlier stamp after a later one is an error."""
    with pytest.raises(ExporterError, match="out of order"):
        is_new(made(2), made(1))


def kept(seconds: list[int], *, max_samples: int, exhausted: bool) -> int:
    """Return how many of these snapshots, of one sample each, a step from START keeps."""
    return whole_minutes(
        [made(second) for second in seconds],
        since=START,
        max_samples=max_samples,
        exhausted=exhausted,
    )


def made(second: int, samples: int = 1, rejected: int = 0) -> Snapshot:
    """Return a snapshot that many seconds after START."""
    return Snapshot(
        START + timedelta(seconds=second),
        NodeIdentity("prod", "jp-1"),
        {StreamName("", str(number)): Totals(second, second) for number in range(samples)},
        ("no uuid",) * rejected,
    )
