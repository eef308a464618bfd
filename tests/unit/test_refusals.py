"""Sources whose data is refused are found without trying all the others over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.jobs.refusals import find_refused

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCES = [f"s-{number}" for number in range(100)]


@pytest.mark.parametrize("bad", ["s-0", "s-41", "s-99"])
def test_one_bad_source_among_many_takes_little_more_than_three_writes(bad: str) -> None:
    """A transaction that is tried has as long as a statement may take, whatever the fleet."""
    tried = []

    def refusal_of(some: Sequence[str]) -> str:
        tried.append(len(some))
        return "refused" if bad in some else ""

    assert find_refused(SOURCES, refusal_of) == {bad: "refused"}
    assert sum(tried) < 3.5 * len(SOURCES)


def test_of_sources_that_are_only_refused_together_the_first_one_is_good() -> None:
    """Also beside one that is refused by itself."""

    def refusal_of(some: Sequence[str]) -> str:
        return "refused" if "s-7" in some or {"s-3", "s-90"} <= set(some) else ""

    assert find_refused(SOURCES, refusal_of) == {"s-7": "refused", "s-90": "refused"}
