"""How a run ended, by how its sources did."""

from __future__ import annotations

import pytest

from billing_cli.core.result import SourceResult, SourceStatus
from billing_cli.jobs.run_history import status_of


@pytest.mark.parametrize(
    ("sources", "status"),
    [
        ([], "ok"),
        (["ok", "skipped", "busy"], "ok"),
        (["skipped"], "ok"),
        (["busy", "skipped"], "busy"),
        (["error", "error"], "error"),
        (["error", "ok"], "partial"),
        (["error", "busy"], "partial"),
        (["error", "skipped"], "error"),
        (["partial", "ok"], "partial"),
    ],
)
def test_a_run_failed_where_all_its_sources_failed(
    sources: list[SourceStatus], status: str
) -> None:
    """Of those that were due. Where another run has one of them, the others are some of them."""
    results = [SourceResult(str(number), status=found) for number, found in enumerate(sources)]
    assert status_of(results) == status
