"""What stands in the metrics file: what is known, and nothing that is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.cli.metrics import metrics_text
from billing_cli.core.source_status import SourceStatus
from billing_cli.core.totals import StoredMetrics
from tests.integration.metrics.support import (
    RUN,
    SOURCE,
    TOTALS,
    Samples,
    complete_text,
    samples_of,
)
from tests.support.story import START

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult

COLLECT = replace(TOTALS, job="collect", last_success_at=START - timedelta(minutes=9))


def told(
    run: RunResult, stored: StoredMetrics | None = None, *, is_database_up: bool | None = True
) -> Samples:
    """Return what a file says after a run."""
    return samples_of(
        metrics_text(run, stored, is_database_up=is_database_up, version="1.0").decode()
    )


def test_each_metric_has_a_help_text_and_a_type() -> None:
    """Prometheus shows both to whoever writes a query."""
    lines = complete_text().splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    for kind in ("HELP", "TYPE"):
        assert {line.split(" ")[2] for line in lines if line.startswith(f"# {kind} ")} == names
    assert all(line.endswith(".") for line in lines if line.startswith("# HELP "))


def test_a_source_that_was_never_asked_has_no_times() -> None:
    """That nothing waits in it is known all the same."""
    found = told(RUN, StoredMetrics((), (SourceStatus("jp-1"),)))
    about = {name for name, *labels in found if "jp-1" in labels}
    assert about == {
        "billing_source_gaps",
        "billing_source_held_deltas",
        "billing_source_held_bytes",
        "billing_source_unresolved_streams",
        "billing_source_account_streams_max",
        "billing_source_charged_bytes_total",
        "billing_source_amount_total",
        "billing_source_new_streams_total",
        "billing_successions_total",
    }


def test_names_may_hold_what_they_like() -> None:
    """Quotes, line ends and backslashes in a source's id neither break the file nor get lost."""
    name = 'a"b\\c\nd\N{SNOWMAN}'
    found = told(RUN, StoredMetrics((), (replace(SOURCE, source_id=name),)))
    assert found["billing_source_up", name] == 1
