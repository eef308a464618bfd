"""Shards: every source in exactly one, the same everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.shard import Shard, parse_shard
from tests.unit.core.examples import examples

SOURCE_IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)


@examples()
@given(source_id=SOURCE_IDS, count=st.integers(1, 40))
def test_every_source_is_in_exactly_one_shard(source_id: str, count: int) -> None:
    """However many there are: none is left out and none is worked twice."""
    holders = [one for one in range(1, count + 1) if Shard(one, count).holds(source_id)]
    assert len(holders) == 1


def test_sources_spread_over_the_shards() -> None:
    """No shard has much more than its part of many sources."""
    ids = [f"source-{number}" for number in range(800)]
    sizes = [sum(map(Shard(number, 8).holds, ids)) for number in range(1, 9)]
    assert sum(sizes) == len(ids)
    assert max(sizes) < 1.3 * len(ids) / 8


def test_a_source_stays_in_its_shard_for_all_times() -> None:
    """Hosts of different versions must agree: these places are part of the interface."""
    places = {
        source_id: next(one for one in range(1, 6) if Shard(one, 5).holds(source_id))
        for source_id in ("default", "jp-1", "us-1", "東京")
    }
    assert places == {"default": 5, "jp-1": 4, "us-1": 5, "東京": 5}


@pytest.mark.parametrize("text", ["1/1", "2/8", " 8/8 ", "1/9999"])
def test_a_shard_is_a_number_of_how_many(text: str) -> None:
    """It is shown as it is written."""
    assert str(parse_shard(text)) == text.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be a number of how many, such as 2/8"),
        ("2", "must be a number of how many, such as 2/8"),
        ("0/2", "must be a number of how many, such as 2/8"),
        ("1/0", "must be a number of how many, such as 2/8"),
        ("-1/2", "must be a number of how many, such as 2/8"),
        ("1/2/3", "must be a number of how many, such as 2/8"),
        ("1 /2", "must be a number of how many, such as 2/8"),
        ("٢/٨", "must be a number of how many, such as 2/8"),
        ("1/10000", "must be a number of how many, such as 2/8"),
        ("3/2", "there is no shard 3 of 2"),
    ],
)
def test_what_is_no_shard_is_refused(text: str, reason: str) -> None:
    """The reason says how to write it."""
    with pytest.raises(ValueError, match=reason):
        parse_shard(text)
