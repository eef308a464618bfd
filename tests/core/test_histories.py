"""Whatever happens to a source, and however it is cut into runs: bytes in are bytes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from billing_cli.core.model import Checkpoint, DeltaPolicy, StreamName, Totals, UsageRecord
from tests.core.examples import examples
from tests.core.histories import STREAMS, bytes_of, histories, naive_account, runs_of
from tests.core.stories import Books

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from billing_cli.core.model import Snapshot
    from tests.core.histories import History

ZERO = Totals(0, 0)


@examples()
@given(histories(), st.data())
def test_any_slicing_into_runs_gives_the_same_records(
    history: History, data: st.DataObject
) -> None:
    """Runs cut at minute boundaries, each meeting the watermark again, add up to one run."""
    at_once = Books(history.policy)
    at_once.run(*history.snapshots)
    sliced = Books(history.policy)
    replayed: tuple[Snapshot, ...] = ()
    for run in runs_of(data, history.snapshots):
        sliced.run(*replayed, *run)
        replayed = tuple(run[data.draw(st.integers(0, len(run) - 1)) :])

    assert by_stream(sliced.records) == by_stream(at_once.records)
    assert by_stream(sliced.held) == by_stream(at_once.held)
    assert sliced.gaps == at_once.gaps
    assert sliced.resets == at_once.resets
    assert sliced.rows == at_once.rows
    assert sliced.watermark == at_once.watermark


@examples()
@given(histories(), st.data())
def test_bytes_charged_and_held_are_what_a_naive_account_finds(
    history: History, data: st.DataObject
) -> None:
    """Every stream and minute has exactly the bytes that its own snapshots tell of."""
    books = Books(history.policy)
    for run in runs_of(data, history.snapshots):
        books.run(*run)
    expected = naive_account(history)
    assert bytes_of(books.records) == expected.charged
    assert bytes_of(books.held) == expected.held
    assert books.resets == expected.resets


@examples()
@given(histories(), st.data())
def test_replaying_what_was_applied_changes_nothing(history: History, data: st.DataObject) -> None:
    """Any stretch of applied snapshots, at any time, is recognised and dropped."""
    books = Books(history.policy)
    applied: list[Snapshot] = []
    for run in runs_of(data, history.snapshots):
        books.run(*run)
        applied.extend(run)
        begin = data.draw(st.integers(0, len(applied)))
        end = data.draw(st.integers(begin, len(applied)))
        before = dict(books.rows), books.watermark
        again = books.run(*applied[begin:end])
        assert (again.snapshots, again.samples, again.resets, again.differences) == (0, 0, 0, 0)
        assert (again.records, again.held, again.gaps, again.checkpoints) == ((), (), (), {})
        assert (dict(books.rows), books.watermark) == before


@examples()
@given(histories(), st.data())
def test_records_and_held_deltas_telescope_up_to_the_checkpoint(
    history: History, data: st.DataObject
) -> None:
    """Each starts where the one before ended, or at zero in a new epoch, and in its own instant."""
    books = Books(history.policy)
    for run in runs_of(data, history.snapshots):
        books.run(*run)
    known = books.checkpoints(history.snapshots)
    for name in STREAMS:
        links = sorted(
            (one for one in [*books.records, *books.held] if one.name == name),
            key=lambda one: one.from_at,
        )
        assert_telescopes(links, books.baselines.get(name, ZERO), known.get(name))
        assert len({one.from_at for one in links}) == len(links)


@examples()
@given(histories())
def test_only_minutes_with_bytes_have_records(history: History) -> None:
    """A record lies in the minute where it ends, and has something to tell."""
    books = Books(history.policy)
    books.run(*history.snapshots)
    for one in [*books.records, *books.held]:
        assert one.uplink_bytes >= 0
        assert one.downlink_bytes >= 0
        assert one.uplink_bytes + one.downlink_bytes > 0
        assert one.bucket_start == one.to_at.replace(second=0, microsecond=0)
    assert [one.bucket_start for one in books.records] == sorted(
        one.bucket_start for one in books.records
    )


@examples()
@given(histories(min_snapshots=2))
def test_only_streams_that_change_leave_checkpoints(history: History) -> None:
    """After a run, a stream has a checkpoint if and only if its row is not true any more."""
    books = Books(history.policy)
    for one in history.snapshots:
        before = dict(books.rows)
        step = books.run(one)
        changed = {name for name, row in books.rows.items() if row != before.get(name)}
        assert step.checkpoints.keys() == changed


def by_stream(records: Iterable[UsageRecord]) -> dict[StreamName, list[UsageRecord]]:
    """Return each stream's records in the order in which they were made."""
    found: dict[StreamName, list[UsageRecord]] = {}
    for one in records:
        found.setdefault(one.name, []).append(one)
    return found


def assert_telescopes(links: Sequence[UsageRecord], first: Totals, last: Checkpoint | None) -> None:
    """Walk the links from the first totals, whose epoch is 0, to the checkpoint."""
    at, epoch, to_at = first, 0, None
    for link in links:
        if link.reset_epoch != epoch:
            assert link.reset_epoch > epoch
            at = ZERO
        assert link.start == at
        assert to_at is None or link.from_at >= to_at
        assert link.from_at < link.to_at
        at, epoch, to_at = link.end, link.reset_epoch, link.to_at
    if last is None:
        assert not links
    elif last.reset_epoch == epoch:
        assert last.totals == at
    else:
        assert last.reset_epoch > epoch
        assert last.totals == ZERO


def test_the_generator_of_histories_reaches_what_it_is_for() -> None:
    """Among many histories there are resets, held deltas, absences and crowded minutes."""
    reached: set[str] = set()

    @settings(examples(300), database=None, derandomize=True)
    @given(histories())
    def look(history: History) -> None:
        account = naive_account(history)
        books = Books(history.policy)
        step = books.run(*history.snapshots)
        reached.update(
            word
            for word, is_there in {
                "reset": account.resets > 0,
                "held": bool(account.held),
                "charged": bool(account.charged),
                "first charged": history.policy.charge_first_snapshot and bool(account.charged),
                "absent": any(row[2] for row in books.rows.values()),
                "crowded": len(step.records) < sum(len(one.totals) for one in history.snapshots),
                "late": any(gap.kind == "late" for gap in step.gaps),
                "everything believed": history.policy
                == DeltaPolicy(account_rate_bits_per_second=0),
            }.items()
            if is_there
        )

    look()
    assert len(reached) == 8, reached
