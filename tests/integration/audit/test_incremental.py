"""What an audit proves that goes on from the last clean one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.features.audit.findings import VIOLATIONS
from billing_cli.features.audit.scope import scope_of
from billing_cli.features.audit.sums import read_sums
from billing_cli.features.reverse.job import Order, reverse
from tests.integration.audit.damage import DAMAGES
from tests.integration.audit.full_story import kinds

if TYPE_CHECKING:
    from tests.integration.audit.full_story import FullStory

# What was proven long ago is left to `--full`. The clock of the story is not that of the server, by
# which it is known what was decided since.
SEAL_KINDS = {"seal_missing", "seal_differs"}
LEFT_TO_FULL = {"pruned_differs", "release_unmatched"}

# A record that is moved to before all that is new is missing in one more way.
MOVED = {"a record moved to another minute": {"chain_broken"}}


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "a seal deleted"])
def test_damage_to_what_is_new_is_named_as_by_a_full_audit(
    billed_after_an_audit: FullStory, name: str
) -> None:
    """With a clean audit before all of it, and none since."""
    billed_after_an_audit.damage(DAMAGES[name].statements)

    report = billed_after_an_audit.audit(is_full=False)

    assert not report.is_full
    found = VIOLATIONS.keys() & report.counts.keys()
    expected = DAMAGES[name].kinds - LEFT_TO_FULL | MOVED.get(name, set())
    assert found - LEFT_TO_FULL - (SEAL_KINDS - expected) == expected


def test_each_audit_goes_on_where_the_last_clean_one_ended(story: FullStory) -> None:
    """Step by step through restarts, usage that waited, corrections and releases."""
    found = []
    told = story.job

    def job_and_audit(*arguments: object, **options: object) -> object:
        result = told(*arguments, **options)  # type: ignore[arg-type]
        story.job = told  # type: ignore[method-assign]
        found.append(story.audit(is_full=False))
        story.job = job_and_audit  # type: ignore[method-assign, assignment]
        return result

    story.job = job_and_audit  # type: ignore[method-assign, assignment]
    story.play()
    story.job = told  # type: ignore[method-assign]

    assert [kinds(report) for report in found] == [{}] * 5
    assert [report.is_full for report in found] == [True, False, False, False, False]
    assert all(report.new_seals for report in found[1:])
    assert story.audit(is_full=False).rows["usage_records"] == 0
    assert story.audit().rows["usage_records"] > found[-1].rows["usage_records"] > 0


def test_what_was_released_before_the_last_audit_may_be_reversed(story: FullStory) -> None:
    """Its correction starts at a record in the minute of the release, not of its end."""
    story.play()
    assert story.audit().violations == 0
    order = Order(story.node.source_id, story.minutes(0), None, None, "compromised")
    story.job(reverse, story.end, order=order, dry_run=False)
    report = story.audit(is_full=False)
    assert (report.is_full, kinds(report)) == (False, {})


def test_an_audit_that_is_not_clean_proves_nothing_for_the_next(billed: FullStory) -> None:
    """It finds the same again, until it is put right."""
    billed.damage("UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes + 1")
    first = billed.audit(is_full=False)
    again = billed.audit(is_full=False)
    billed.damage("UPDATE public.traffic_minute_buckets SET total_bytes = total_bytes - 1")
    clean = billed.audit(is_full=False)

    assert first.counts == again.counts
    assert (first.is_full, again.is_full, clean.is_full) == (True, True, True)
    assert not billed.audit(is_full=False).is_full


def test_what_was_proven_is_left_to_a_full_audit(billed: FullStory) -> None:
    """A record that is changed after it was proven; then each audit finds it until it is right."""
    billed.audit()
    billed.damage("UPDATE billing.usage_records SET downlink_end = downlink_end + 1")

    assert kinds(billed.audit(is_full=False)) == {}
    found = billed.audit()
    assert found.violations > 0
    assert billed.audit(is_full=False).counts == found.counts

    billed.damage("UPDATE billing.usage_records SET downlink_end = downlink_end - 1")
    assert kinds(billed.audit(is_full=False)) == {}
    assert not billed.audit(is_full=False).is_full


def test_a_balance_restored_after_the_last_audit_is_a_lost_charge(billed: FullStory) -> None:
    """Although the charge that it undid was proven."""
    billed.audit()
    billed.damage(DAMAGES["a balance restored to what it was before the last charge"].statements)
    billed.node.flow(billed.streams[1], 10, 10)
    billed.node.run(billed.minutes(22), poll_seconds=60)
    billed.catch_up(billed.minutes(21.7))

    assert billed.audit(is_full=False).counts["charge_lost"] > 0


def test_facts_whose_seals_were_deleted_do_not_escape(story: FullStory) -> None:
    """Nothing tells that they are new, but checkpoints and balances have moved."""
    story.audit()
    story.play()
    story.damage(DAMAGES["a seal deleted"].statements)

    assert story.audit(is_full=False).counts["checkpoint_differs"] > 0


@pytest.mark.parametrize("is_full", [True, False])
def test_sums_of_sound_facts_leave_no_row_to_be_compared(
    billed_after_an_audit: FullStory, *, is_full: bool
) -> None:
    """What keeps a clean audit cheap."""
    with psycopg.connect(billed_after_an_audit.database_url) as connection:
        scope = scope_of(connection, None, is_full=is_full)
        sums = read_sums(connection, scope)

    assert scope.is_incremental is not is_full
    assert sums.rows["ledger_rows"] > 0
    assert (sums.bytes_range, sums.ledger_range) == (None, None)
