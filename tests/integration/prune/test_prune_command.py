"""`billing prune` as a process, and its result as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from billing_cli.cli.printing import text_of
from billing_cli.core.result import result_object
from billing_cli.features.prune.result import PrunedMonth, PruneResult
from billing_cli.features.prune.text import prune_parts
from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.story import Story

KEEP = ("--keep", "1mo")
AT = datetime(2026, 6, 1, tzinfo=UTC)
MONTH = PrunedMonth(
    datetime(2026, 4, 1, tzinfo=UTC), 1_234_567, 89, 10**9, ("billing.usage_records_2026_04",)
)


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story of which two minutes are billed, long ago by the clock of the command."""
    with told_story(database_url, job_url) as told:
        stream = told.add_node("jp-1").add_stream(told.add_user().uuid, "xhttp")
        told.minute()
        told.minute((stream, 100, 0))
        told.collect()
        yield told


def test_the_command_prunes_and_ends_with_the_codes_of_the_contract(story: Story) -> None:
    """The jobs' role: 78; not proven: 1; a number that is none: 2; done, and done again: 0."""
    owner = {"DATABASE_URL": story.database_url}
    refused = story.billing("prune", *KEEP, "--json")
    assert (refused.exit_code, refused.json["status"]) == (78, "error")
    unproven = story.billing("prune", *KEEP, **owner)
    assert unproven.exit_code == 1
    assert unproven.stderr.splitlines()[-1].startswith("Error: what would go was not audited since")
    assert story.billing("prune", "--keep", "a year", **owner).exit_code == 2
    assert story.billing("prune", **owner).exit_code == 2

    assert story.billing("audit").exit_code == 0
    dry = story.billing("prune", *KEEP, "--dry-run", **owner)
    assert (dry.exit_code, "dry run: nothing is changed" in dry.stdout) == (0, True)
    # The story's books are compared as a whole at its end, so nothing really goes here.
    keep_all = story.billing("prune", "--keep", "999mo", "--json", **owner)
    assert (keep_all.exit_code, keep_all.json["job"]) == (0, "prune")
    assert (keep_all.json["months"], keep_all.json["moved_rows"]) == ([], 2)


def test_the_result_names_the_months_as_object_and_as_text() -> None:
    """What is detached, what is dropped, and what else is gone."""
    result = PruneResult(
        "prune",
        "11111111-1111-1111-1111-111111111111",
        "ok",
        AT,
        AT,
        kept_since=datetime(2026, 5, 1, tzinfo=UTC),
        months=(MONTH,),
        dropped_tables=("billing.charges_2026_03",),
        moved_rows=7,
        deleted_runs=1_440,
        deleted_gaps=1,
    )
    told = result_object(result)
    assert told["kept_since"] == "2026-05-01T00:00:00Z"
    assert told["months"][0] == {
        "month": "2026-04",
        "records": 1_234_567,
        "charges": 89,
        "disk_bytes": 10**9,
        "tables": ["billing.usage_records_2026_04"],
        "dropped": False,
    }
    text = text_of(prune_parts(result))
    for part in (
        "prune: ok - 1 month of evidence, kept from 2026-05 on",
        "2026-04  1,234,567       89  953.7 MiB  billing.usage_records_2026_04 (detached)",
        "dropped as well: billing.charges_2026_03",
        "7 rows got a partition of their month",
        "deleted 1,440 run records, 1 resolved gap",
        "run `billing seal`: until then `billing verify` reports what was pruned as deleted",
    ):
        assert part in text
