"""`usage` of a range whose first charges were pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.cli.printing import text_of
from billing_cli.core.times import format_rfc3339
from billing_cli.features.usage.report import usage, usage_object, usage_parts
from tests.integration.prune.conftest import JUNE, MAY
from tests.support.forks import run_forked

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.features.usage.report import UsageReport
    from billing_cli.jobs.context import JobContext
    from tests.integration.prune.conftest import LongStory

NOTE = "note: charges of minutes before 2026-05-01T00:00:00Z were pruned: of those only bytes are"


def _usage(story: LongStory, since: datetime) -> UsageReport:
    found: list[UsageReport] = []

    def work(context: JobContext) -> None:
        found.append(usage(context, "day", since=since, until=JUNE))

    story.job(work, JUNE)
    return found[0]


def test_it_says_since_when_charges_were_kept(story: LongStory) -> None:
    """Bytes of all minutes are shown, amounts only of those that were kept."""
    april = story.minutes(0)
    assert _usage(story, april).evidence_since is None
    story.prune(JUNE)

    assert _usage(story, MAY).evidence_since is None
    report = _usage(story, april)
    assert report.rows[0].total_bytes > 0 == report.rows[0].amount
    assert usage_object(report)["evidence_since"] == format_rfc3339(MAY)
    assert NOTE in text_of(usage_parts(report))


@pytest.mark.parametrize(("output", "place"), [("table", 1), ("csv", 2)])
def test_the_note_is_not_among_the_rows_of_a_csv(story: LongStory, output: str, place: int) -> None:
    """It goes to stderr there."""
    story.prune(JUNE)
    asked = ("usage", "--since", format_rfc3339(story.minutes(0)), "--output", output)
    done = run_forked(asked, {"DATABASE_URL": story.database_url})
    assert [NOTE in text for text in done[1:]] == [place == 1, place == 2]
