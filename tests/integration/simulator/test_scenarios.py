from __future__ import annotations

import json
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from billing_cli.core.model import StreamName, Totals
from billing_cli.core.times import format_rfc3339
from billing_cli.simulator.scenarios.library import BY_NAME, CLOCKS, SCENARIOS
from billing_cli.simulator.scenarios.playing import Played, Scenario, play
from billing_cli.simulator.server import serve

if TYPE_CHECKING:
    from datetime import datetime

MINUTE = timedelta(minutes=1)

each = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@each
def test_a_scenario_plays_the_same_each_time(scenario: Scenario) -> None:
    """What fails once fails again."""
    first, second = play(scenario), play(scenario)
    assert [first.answer(moment) for moment in first.moments] == [
        second.answer(moment) for moment in second.moments
    ]


@each
def test_a_scenario_is_exact_where_it_says_so(scenario: Scenario) -> None:
    """One figure for each account, or for at least one of them an interval."""
    expected = play(scenario).expected(play(scenario).moments).values()
    assert all(one.is_exact for one in expected) == scenario.is_exact
    assert any(sum(one.high) for one in expected)


@each
def test_answers_are_snapshots_of_closed_minutes_in_order(scenario: Scenario) -> None:
    """Stamps rise strictly and lie in minutes that are over, whatever the exporter's clock says."""
    played = play(scenario)
    for moment in played.moments:
        stamps = [one.collected_at for one in played.answer(moment)]
        assert all(one < later for one, later in pairwise(stamps))
        assert all(stamp < moment for stamp in stamps)


@pytest.mark.parametrize(
    "name", ["merge", "duplicate_published", "clock_ahead_one_missed_poll", "empty_snapshots"]
)
def test_a_scenario_is_served_as_it_is_answered(name: str) -> None:
    """Over HTTP, at any moment, the exporter offers what `answer` says of closed minutes."""
    played = play(BY_NAME[name])
    with serve(played.fleet) as running:
        for minute in (9, 12, played.scenario.minutes + 1):
            moment = played.moment(minute)
            played.fleet.present = moment
            served = window(running.base_url("jp-1"), played, moment)
            answered = [(one.collected_at, dict(one.totals)) for one in played.answer(moment)]
            assert served == [(format_rfc3339(at), totals) for at, totals in answered]


@pytest.mark.parametrize(
    "name",
    [
        one.name
        for one in CLOCKS
        if one.name not in {"clock_ahead_at_boot", "clock_back_live", "clock_forward_for_good"}
    ],
)
def test_a_stale_snapshot_stands_between_later_ones(name: str) -> None:
    """Where the story is about two time lines, history goes back in true time."""
    played = play(BY_NAME[name])
    offered = played.node.published(played.moments[-1])
    assert any(later.index < one.index for one, later in pairwise(offered))


def test_a_live_collector_reads_one_time_line_of_a_clock_that_is_set_back() -> None:
    """What it has read is replaced behind its back: only who reads again finds other totals."""
    played = play(BY_NAME["clock_back_live"])
    before, after = (played.answer(played.moment(minute)) for minute in (11, 20))
    replaced = [
        one.collected_at
        for one, later in zip(before, after, strict=False)
        if (one.collected_at, one.totals) != (later.collected_at, later.totals)
    ]
    minutes = [(one - played.fleet.start) // MINUTE for one in replaced]
    assert minutes == [7, 8, 9, 10]


def window(base_url: str, played: Played, moment: datetime) -> list[tuple[str, object]]:
    """Return what an exporter answers of closed minutes: stamps and totals."""
    end = moment.replace(second=0, microsecond=0) - timedelta.resolution
    query = {"since": format_rfc3339(played.fleet.start - MINUTE), "until": format_rfc3339(end)}
    with urlopen(f"{base_url}/v1/snapshots/window?{urlencode(query)}") as response:  # noqa: S310 -- our own server
        page = json.load(response)
    return [
        (
            snapshot["collected_at"],
            {
                StreamName(one["inbound_tag"], one["uuid"]): Totals(
                    one["uplink_bytes_total"], one["downlink_bytes_total"]
                )
                for one in snapshot["samples"]
            },
        )
        for snapshot in page["snapshots"]
    ]
