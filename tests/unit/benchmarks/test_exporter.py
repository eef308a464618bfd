"""The exporters of the benchmarks: what they say is what `billing` would have from real ones."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests

from benchmarks.exporter import Exporter, Fleet, minutes_ago, running_exporter
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS, PERIOD = 6, 3


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    """Two sources of a few streams, a third of which moves in a minute."""
    with running_exporter(Fleet(minutes_ago(60), STREAMS, sources=2, period=PERIOD)) as running:
        yield running


def window(exporter: Exporter, source: int, limit: int) -> list[dict[str, Any]]:
    """Return all snapshots of a source, page by page."""
    query = {
        "since": format_rfc3339(exporter.fleet.stamp(0)),
        "until": format_rfc3339(exporter.fleet.stamp(30)),
        "limit": str(limit),
    }
    address = f"{exporter.sources()[source]['base_url']}/v1/snapshots/window"
    snapshots: list[dict[str, Any]] = []
    while True:
        page = requests.get(address, query, timeout=10).json()
        snapshots += page["snapshots"]
        if not page["has_more"]:
            return snapshots
        query["cursor"] = page["next_cursor"]


def test_a_window_comes_page_by_page(exporter: Exporter) -> None:
    """Whatever the page's size, no snapshot is missing and none comes twice."""
    exporter.offer(10)
    stamps = [format_rfc3339(exporter.fleet.stamp(minute)) for minute in range(11)]
    for limit in (1, 4, 60):
        assert [one["collected_at"] for one in window(exporter, 0, limit)] == stamps


def test_each_stream_moves_in_its_turn_and_none_in_an_idle_minute(exporter: Exporter) -> None:
    """A part of the streams grows in each minute, all equally often, and nothing else does."""
    exporter.offer(13)
    exporter.offer(14, moving=False)
    snapshots = window(exporter, 1, 60)
    totals = [[one["uplink_bytes_total"] for one in each["samples"]] for each in snapshots]
    moved = [
        [number for number in range(STREAMS) if after[number] > before[number]]
        for before, after in pairwise(totals)
    ]
    assert all(len(one) == STREAMS // PERIOD for one in moved[:-1])
    assert sorted(chain.from_iterable(moved[:PERIOD])) == list(range(STREAMS))
    assert moved[-1] == []


def test_a_page_is_bounded_by_its_snapshots_only(exporter: Exporter) -> None:
    """A real exporter never counts samples; it sends what is asked for, up to 1000 snapshots."""
    exporter.offer(15)
    query = {
        "since": format_rfc3339(exporter.fleet.stamp(0)),
        "until": format_rfc3339(exporter.fleet.stamp(15)),
        "limit": "16",
    }
    address = f"{exporter.sources()[0]['base_url']}/v1/snapshots/window"
    page = requests.get(address, query, timeout=10).json()
    assert (len(page["snapshots"]), page["has_more"]) == (16, False)
