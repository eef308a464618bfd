"""Duplicates and rejected streams stay uncharged where an upgrade gives them other names."""

from __future__ import annotations

import pytest

from billing_cli.core.model import StreamName
from tests.unit.core.stories import ALICE, BELIEVE_ALL, BOB, Ledger, alice, snapshot

ACCOUNT = ALICE.sample_uuid
PROXY = "99999999-9999-9999-9999-999999999999"
IN, ALL, X_IN, X_ALL = (StreamName(tag, ACCOUNT) for tag in ("in", "all", "x-in", "x-all"))
BOB_IN = StreamName("in", BOB.sample_uuid)
SECOND, X_SECOND = (StreamName(tag, ACCOUNT) for tag in ("second", "x-second"))

Streams = dict[StreamName, int]

# Readings of another clock that look like a restart, and what shows that there was none.
REVOKED = ((0, 1_000), (1, 300), (2, 310), (3, 1_100))


def even(clock: str, streams: Streams) -> tuple[str, dict[StreamName, tuple[int, int]]]:
    """Return a moment and totals that are the same in both directions."""
    return clock, {name: (total, total) for name, total in streams.items()}


def rejected(books: Ledger, *names: StreamName) -> None:
    """Let an operator reject what is held of streams, and all that they will count."""
    for name in names:
        books.rows[name] = books.rows[name]._replace(state="ignored")


def test_a_duplicate_that_is_renamed_with_the_one_that_is_charged_is_held() -> None:
    """Both names change at once, and neither tag is left."""
    books = Ledger()
    books.live(
        snapshot(*even("00:00", {IN: 900})),
        snapshot(*even("01:00", {IN: 1_000, ALL: 1_000})),
        snapshot(*even("02:00", {IN: 1_010, ALL: 1_010})),
        snapshot(*even("03:00", {X_IN: 1_020, X_ALL: 1_020})),
        snapshot(*even("04:00", {X_IN: 1_030, X_ALL: 1_030})),
    )
    assert books.charged() == (130, 130)
    assert sum(held.record.uplink_bytes for held in books.held) == 1_030
    assert sorted(books.rows[name].state for name in (X_IN, X_ALL)) == ["active", "duplicate"]
    assert {(one.kind, one.state) for one in books.successions} == {
        ("renamed", "active"),
        ("renamed", "duplicate"),
    }


def test_a_rename_beside_one_that_is_rejected_can_still_be_uncertain() -> None:
    """Another user's counter has the tag that is gone."""
    books = Ledger()
    first = snapshot(*even("00:00", {IN: 50, ALL: 5_000, BOB_IN: 7}))
    books.run(first)
    rejected(books, ALL)
    books.run(first, snapshot(*even("01:00", {X_IN: 55, X_ALL: 5_010, BOB_IN: 7})))
    assert books.charged() == (5, 5)
    assert [(gap.kind, gap.uncertain_bytes) for gap in books.gaps] == [("uncertain", 100)]


def test_a_rejected_stream_that_counted_in_one_direction_stays_rejected() -> None:
    """It may be an upload alone."""
    books = Ledger()
    first = snapshot("00:00", {IN: (10, 10), ALL: (0, 5_000)})
    books.run(first)
    rejected(books, ALL)
    books.run(first, snapshot("01:00", {IN: (10, 10), X_ALL: (0, 5_010)}))
    assert books.charged() == (0, 0)
    assert books.rows[X_ALL].state == "ignored"


@pytest.mark.parametrize(
    ("before", "ignored", "after", "charged"),
    [
        pytest.param(
            {IN: 600, SECOND: 400, ALL: 1_000},
            ALL,
            {X_IN: 601, X_SECOND: 401, X_ALL: 1_002},
            2,
            id="a sum and its parts",
        ),
        pytest.param({IN: 1_000, ALL: 5_000}, ALL, {IN: 1_005, X_ALL: 5_010}, 5, id="it alone"),
        pytest.param(
            {IN: 1_000, ALL: 5_000},
            ALL,
            {
                name._replace(sample_uuid=PROXY): total
                for name, total in ((IN, 1_005), (ALL, 5_010))
            },
            5,
            id="another uuid",
        ),
        pytest.param({IN: 1_000, ALL: 5_000}, ALL, {IN: 1_005, X_ALL: 70}, 75, id="one that began"),
        pytest.param({IN: 1_000, ALL: 0}, ALL, {IN: 1_005, X_ALL: 70}, 75, id="it never counted"),
    ],
)
def test_a_rejected_stream_that_is_renamed_stays_rejected(
    before: Streams, ignored: StreamName, after: Streams, charged: int
) -> None:
    """All that is gone is paired with all that is new; below its totals, a counter began."""
    books = Ledger(BELIEVE_ALL, {PROXY: ACCOUNT, ACCOUNT: ACCOUNT})
    first = snapshot(*even("00:00", before))
    books.run(first)
    rejected(books, ignored)
    books.run(first, snapshot(*even("01:00", after)))
    assert books.charged() == (charged, charged)


def test_what_a_user_was_charged_beyond_goes_with_the_counter_to_another_name() -> None:
    """A restart that was none had charged it; growth under the new name absorbs it."""
    books = Ledger()
    books.live(
        *(alice(f"0{at}:00", total, total) for at, total in REVOKED),
        snapshot(*even("04:00", {X_IN: 1_100})),
        snapshot(*even("05:00", {X_IN: 1_250})),
        snapshot(*even("06:00", {X_IN: 1_600})),
    )
    assert books.charged() == (600, 600)
    assert books.rows[X_IN].surplus is None
    assert books.rows[ALICE].surplus is None


def test_what_was_charged_beyond_goes_to_an_existing_counter_too() -> None:
    """The counter is merged into one that the account had before."""
    books = Ledger()
    books.live(
        *(snapshot(*even(f"0{at}:00", {ALICE: total, SECOND: 5})) for at, total in REVOKED),
        snapshot(*even("04:00", {SECOND: 1_105})),
        snapshot(*even("05:00", {SECOND: 1_605})),
    )
    assert books.charged() == (600, 600)


def test_what_two_counters_were_charged_beyond_is_absorbed_by_the_one_that_stays() -> None:
    """Both are owed to the same user."""
    books = Ledger()
    books.live(
        *(snapshot(*even(f"0{at}:00", {ALICE: total, SECOND: total})) for at, total in REVOKED),
        snapshot(*even("04:00", {SECOND: 2_200})),
        snapshot(*even("05:00", {SECOND: 2_700})),
    )
    assert books.charged() == (2 * 310 + 500 - 2 * 210, 2 * 310 + 500 - 2 * 210)
    assert books.rows[SECOND].surplus is None
