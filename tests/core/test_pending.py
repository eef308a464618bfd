"""Usage without an account: merged while it waits, whole when it is billed."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import Totals, UsageRecord
from billing_cli.core.pending import bill_pending, merge_pending
from tests.core.examples import examples
from tests.core.histories import histories, runs_of
from tests.core.stories import ALICE, NOON, Books, after_noon, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.core.histories import History

FIRST = record(ALICE, ("00:00", "01:00"), (0, 0), (10, 20))
SECOND = record(ALICE, ("01:00", "02:00"), (10, 20), (15, 20))
RESTARTED = record(ALICE, ("02:00", "03:00"), (0, 0), (4, 4), epoch=1)


def test_neighbours_without_a_seam_become_one() -> None:
    """However long an account is unknown, its usage takes one row for each epoch."""
    merged = merge_pending([FIRST], [SECOND])
    assert [(one.from_at, one.to_at, one.start, one.end) for one in merged] == [
        (after_noon("00:00"), after_noon("02:00"), Totals(0, 0), Totals(15, 20))
    ]


def test_the_first_pending_usage_is_kept_as_it_is() -> None:
    """With nothing to join, a record waits alone."""
    assert merge_pending([], [FIRST]) == [FIRST]
    assert merge_pending([FIRST], []) == [FIRST]


def test_a_restart_leaves_a_seam() -> None:
    """Bytes are `end - start`, which holds within one epoch only, so nothing is lost by it."""
    assert merge_pending([FIRST], [RESTARTED]) == [FIRST, RESTARTED]


def test_new_usage_joins_the_last_that_waits() -> None:
    """What is behind a seam is whole, and grows no more."""
    more = record(ALICE, ("03:00", "04:00"), (4, 4), (9, 9), epoch=1)
    merged = merge_pending([FIRST, RESTARTED], [more])
    assert merged == [FIRST, RESTARTED._replace(to_at=more.to_at, end=more.end)]


def test_a_restart_leaves_a_seam_also_where_the_totals_meet() -> None:
    """A held delta behind the restart may end just where the counters had been before it."""
    met = record(ALICE, ("02:00", "03:00"), (10, 20), (15, 20), epoch=1)
    assert merge_pending([FIRST], [met]) == [FIRST, met]


def test_a_held_delta_leaves_a_seam() -> None:
    """Usage on both sides of a held delta does not swallow the held bytes."""
    behind = record(ALICE, ("02:00", "03:00"), (10**12, 20), (10**12 + 1, 20))
    assert merge_pending([FIRST], [behind]) == [FIRST, behind]


def test_pending_usage_is_billed_in_the_minute_that_knows_its_account() -> None:
    """The minutes that it came from may be closed and charged; evidence keeps its stamps."""
    billed = bill_pending([FIRST, RESTARTED], after_noon("09:00"))
    assert [one.bucket_start for one in billed] == [after_noon("09:00")] * 2
    assert [(one.from_at, one.to_at, one.start, one.end) for one in billed] == [
        (one.from_at, one.to_at, one.start, one.end) for one in (FIRST, RESTARTED)
    ]


@examples()
@given(histories(), st.data())
def test_merging_keeps_bytes_and_telescopes_however_it_is_sliced(
    history: History, data: st.DataObject
) -> None:
    """Merging run by run ends where merging everything at once does, with the same bytes."""
    books = Books(history.policy)
    pending: list[UsageRecord] = []
    alone: list[UsageRecord] = []
    for run in runs_of(data, history.snapshots):
        found = [one for one in books.run(*run).records if one.name == ALICE]
        pending = merge_pending(pending, found)
        alone.extend(found)
    assert pending == merge_pending([], alone)
    assert moved(pending) == moved(alone)
    assert len({one.from_at for one in pending}) == len(pending)
    for before, after in pairwise(pending):
        assert before.to_at <= after.from_at
        if before.reset_epoch == after.reset_epoch:
            # What lies between them is held, else they would be one.
            assert before.end != after.start
        else:
            assert before.reset_epoch < after.reset_epoch


@examples()
@given(histories())
def test_billing_pending_usage_keeps_its_bytes(history: History) -> None:
    """What waited is billed whole."""
    books = Books(history.policy)
    books.run(*history.snapshots)
    waiting = merge_pending([], [one for one in books.records if one.name == ALICE])
    billed = bill_pending(waiting, NOON)
    assert moved(billed) == moved(waiting)
    assert {one.bucket_start for one in billed} <= {NOON}


def moved(records: Sequence[UsageRecord]) -> tuple[int, int]:
    """Return the bytes of the records by direction."""
    return sum(one.uplink_bytes for one in records), sum(one.downlink_bytes for one in records)
