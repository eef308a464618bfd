"""What stands in the metrics file: what is known, and nothing that is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

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
    run: RunResult,
    stored: StoredMetrics | None = None,
    *,
    is_database_up: bool | None = True,
    present: bytes = b"",
) -> Samples:
    """Return what a file says after a run that found the `present` one."""
    return samples_of(
        metrics_text(
            run, stored, is_database_up=is_database_up, version="1.0", present=present
        ).decode()
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
        "billing_source_uncharged_accounts",
        "billing_source_account_streams_max",
        "billing_source_charged_bytes_total",
        "billing_source_amount_total",
        "billing_source_new_streams_total",
        "billing_successions_total",
    }


def test_accounts_that_can_not_be_charged_are_counted() -> None:
    """By source, as `status` does."""
    found = told(RUN, StoredMetrics((), (replace(SOURCE, uncharged_accounts=2),)))
    assert found["billing_source_uncharged_accounts", "jp-1"] == 2


def test_without_the_database_how_other_jobs_ended_is_kept() -> None:
    """Of the present file. What this job left there, and what else it holds, is not."""
    failed = replace(RUN, status="error")
    found = told(failed, is_database_up=False, present=complete_text().encode())
    assert found["billing_run_success", "audit"] == 1
    assert found["billing_run_status", "audit", "ok"] == 1
    assert found["billing_run_end_timestamp_seconds", "audit"] == START.timestamp()
    assert found["billing_run_last_success_timestamp_seconds", "audit"] == START.timestamp()
    assert found["billing_run_success", "collect"] == 0
    assert ("billing_run_last_success_timestamp_seconds", "collect") not in found
    others = {name for name, *_ in found if not name.startswith("billing_run_")}
    assert others == {"billing_build_info", "billing_database_up"}


def test_with_the_database_nothing_of_the_present_file_is_kept() -> None:
    """The database knows of all jobs."""
    found = told(RUN, StoredMetrics((), ()), present=complete_text().encode())
    assert {labels[0] for name, *labels in found if name == "billing_run_success"} == {"collect"}


@pytest.mark.parametrize(
    "present", [b"\xff", b"half a line", b'billing_run_success{command="audit', b"# TYPE a b\n"]
)
def test_a_present_file_that_can_not_be_parsed_is_replaced(present: bytes) -> None:
    """It may be anything."""
    assert told(RUN, is_database_up=False, present=present) == told(RUN, is_database_up=False)


def test_names_may_hold_what_they_like() -> None:
    """Quotes, line ends and backslashes in a source's id neither break the file nor get lost."""
    name = 'a"b\\c\nd\N{SNOWMAN}'
    found = told(RUN, StoredMetrics((), (replace(SOURCE, source_id=name),)))
    assert found["billing_source_up", name] == 1
