"""Whatever an exporter does to names and processes: bytes charged are the bytes that flowed."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import Totals
from tests.unit.core.examples import examples
from tests.unit.core.processes import ACCOUNT_OF, ACCOUNTS, histories, runs_of
from tests.unit.core.stories import BELIEVE_ALL, NOON, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from billing_cli.core.model import Snapshot, StreamName
    from tests.unit.core.processes import History

ZERO = Totals(0, 0)


def bill(history: History, looks: Iterable[int]) -> Ledger:
    """Return the ledger after runs that each see the history so far, from the watermark on."""
    books = Ledger(BELIEVE_ALL, ACCOUNT_OF)
    for end in looks:
        look(books, history.snapshots[:end])
    return books


def look(books: Ledger, snapshots: tuple[Snapshot, ...]) -> None:
    """Run on what an exporter shows from the watermark on."""
    at = books.node.watermark
    books.run(*(snapshot for snapshot in snapshots if at is None or snapshot.collected_at >= at))


@examples()
@given(histories(), st.data())
def test_an_account_is_charged_what_it_moved(history: History, data: st.DataObject) -> None:
    """Across upgrades, other uuids, missed polls, empty snapshots and a restart, to the byte."""
    books = bill(history, runs_of(data, history))
    assert {one: books.charged(one) for one in ACCOUNTS} == dict(history.truth)
    assert books.held == []


@examples()
@given(histories(), st.data())
def test_any_cut_of_a_history_into_runs_gives_the_same_records(
    history: History, data: st.DataObject
) -> None:
    """When the runs look makes no difference to what is charged, nor to what is known after."""
    at_once = bill(history, [len(history.snapshots)])
    cut = bill(history, runs_of(data, history))
    assert sorted(cut.records) == sorted(at_once.records)
    assert cut.successions == at_once.successions
    assert cut.gaps == at_once.gaps
    assert cut.checkpoints(history.snapshots) == at_once.checkpoints(history.snapshots)
    assert cut.node == at_once.node


@examples()
@given(histories(), st.data())
def test_a_replay_changes_nothing(history: History, data: st.DataObject) -> None:
    """Snapshots that were applied are recognised, whichever of them are read again."""
    books = bill(history, runs_of(data, history))
    before = (list(books.records), dict(books.rows), books.node)
    begin = data.draw(st.integers(0, len(history.snapshots)))
    step = books.run(*history.snapshots[begin:])
    assert (step.records, step.held, step.gaps, step.checkpoints) == ((), (), (), {})
    assert (list(books.records), dict(books.rows), books.node) == before


@examples()
@given(histories(), st.data())
def test_records_of_a_stream_form_a_chain_with_its_successions(
    history: History, data: st.DataObject
) -> None:
    """Each record starts where the one before ended, less what ended, plus what was taken over."""
    books = bill(history, runs_of(data, history))
    for name in {record.name for record in books.records}:
        assert_chain(books, name)


def assert_chain(books: Ledger, name: StreamName) -> None:
    """Assert that a stream's records, successions and checkpoint connect."""
    origin, first = books.origins[name]
    reached, since, epoch = first.totals if origin == "baseline" else ZERO, NOON, 0
    for record in sorted(
        (one for one in books.records if one.name == name), key=attrgetter("to_at")
    ):
        if record.reset_epoch != epoch:
            reached, since, epoch = ZERO, record.from_at, record.reset_epoch
        assert record.start == with_successions(books, name, reached, since, record.to_at)
        reached, since = record.end, record.to_at
    row = books.rows[name]
    if row.state == "active" and row.reset_epoch == epoch:
        assert row.totals == with_successions(books, name, reached, since, row.seen_at)


def with_successions(
    books: Ledger, name: StreamName, reached: Totals, since: datetime, until: datetime
) -> Totals:
    """Return where a stream stands at `until`, that stood at `reached` at `since`."""
    for succession in books.successions:
        if since < succession.at <= until:
            for sign, sides in ((-1, succession.ended), (1, succession.continued)):
                for side in sides:
                    if side.name == name:
                        reached = Totals(
                            reached.uplink + sign * side.totals.uplink,
                            reached.downlink + sign * side.totals.downlink,
                        )
    return reached
