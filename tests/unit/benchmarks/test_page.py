"""The pages that the benchmarks write, and what counts as met."""

from __future__ import annotations

from benchmarks.results import Figure


def test_a_figure_is_met_within_its_limit_and_a_tolerance() -> None:
    """The quick run lets pass what may be noise; a figure without a limit is always met."""
    figure = Figure("what", 1.9, "x floor", limit=1.0)
    assert not figure.is_met()
    assert figure.is_met(tolerance=2.0)
    assert Figure("what", 1e9, "x floor").is_met()
