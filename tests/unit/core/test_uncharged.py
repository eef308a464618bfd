"""Duplicates and rejected streams stay uncharged where an upgrade gives them other names."""

from __future__ import annotations

import pytest

from billing_cli.core.model import StreamName
from tests.unit.core.stories import ALICE, BELIEVE_ALL, BOB, Ledger, alice, snapshot

ACCOUNT = ALICE.sample_uuid
PROXY = "99999999-9999-9999-9999-999999999999"
FORMER = "88888888-8888-8888-8888-888888888888"
IN, ALL, X_IN, X_ALL = (StreamName(tag, ACCOUNT) for tag in ("in", "all", "x-in", "x-all"))
BOB_IN, BOB_ALL = (StreamName(tag, BOB.sample_uuid) for tag in ("in", "all"))
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
    assert books.rows[X_ALL].state == "duplicate"


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
def test_a_rejected_stream_that_is_renamed_is_not_charged(
    before: Streams, ignored: StreamName, after: Streams, charged: int
) -> None:
    """All that is gone is paired with all that is new; below its totals, a counter began."""
    books = Ledger(BELIEVE_ALL, {PROXY: ACCOUNT, ACCOUNT: ACCOUNT})
    first = snapshot(*even("00:00", before))
    books.run(first)
    rejected(books, ignored)
    books.run(first, snapshot(*even("01:00", after)))
    assert books.charged() == (charged, charged)


def test_a_rejected_stream_stays_rejected_under_the_other_uuid_of_its_account() -> None:
    """The same tag goes on. Under another tag, an operator decides."""
    books = Ledger(BELIEVE_ALL, {PROXY: ACCOUNT, ACCOUNT: ACCOUNT})
    first = snapshot(*even("00:00", {IN: 1_000, ALL: 5_000}))
    books.run(first)
    rejected(books, ALL)
    proxied = {name: name._replace(sample_uuid=PROXY) for name in (IN, ALL)}
    second = snapshot(*even("01:00", {proxied[IN]: 1_005, proxied[ALL]: 5_010}))
    books.run(first, second)
    assert books.rows[proxied[ALL]].state == "ignored"
    third = snapshot(*even("02:00", {proxied[IN]: 1_006, X_ALL: 5_020}))
    books.run(second, third)
    assert books.rows[X_ALL].state == "duplicate"
    assert [held.record.uplink_bytes for held in books.held] == [10]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_rejected_stream_that_returns_to_its_former_name_is_rejected(
    *, is_restarted: bool
) -> None:
    """The upgrade was rolled back, with a restart or without."""
    books = Ledger()
    first = snapshot(*even("00:00", {IN: 1_000, ALL: 5_000}))
    books.run(first)
    rejected(books, ALL)
    renamed = snapshot(*even("01:00", {X_IN: 1_005, X_ALL: 5_010}))
    books.run(first, renamed)
    totals = {IN: 7, ALL: 8} if is_restarted else {IN: 1_010, ALL: 5_020}
    back = snapshot(*even("02:00", totals))
    later = snapshot(*even("03:00", {IN: totals[IN] + 3, ALL: totals[ALL] + 900}))
    books.run(renamed, back, later)
    assert books.charged() == ((5 + 7 + 3,) * 2 if is_restarted else (13, 13))
    assert books.rows[ALL].state == "ignored"


def test_a_rejected_stream_that_vanishes_beside_a_new_one_of_another_user_ends() -> None:
    """Only streams of one account continue each other."""
    books = Ledger()
    first = snapshot(*even("00:00", {IN: 1_000, ALL: 10}))
    books.run(first)
    rejected(books, ALL)
    books.run(first, snapshot(*even("01:00", {IN: 1_000, BOB_ALL: 50})))
    assert books.charged() == (50, 50)
    assert books.successions == []


def test_a_new_inbound_beside_a_rejected_one_that_is_gone_is_held_with_a_gap() -> None:
    """It may be that one under another tag, or begin at zero: an operator decides."""
    books = Ledger()
    first = snapshot(*even("00:00", {IN: 1_000, ALL: 10, BOB_ALL: 7}))
    books.run(first)
    rejected(books, ALL)
    books.run(first, snapshot(*even("01:00", {IN: 1_000, X_IN: 5_000, BOB_ALL: 7})))
    assert books.charged() == (0, 0)
    assert [held.record.uplink_bytes for held in books.held] == [4_990]
    assert [(gap.kind, gap.uncertain_bytes) for gap in books.gaps] == [("uncertain", 20)]


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


def test_what_was_charged_beyond_goes_to_the_largest_counter() -> None:
    """An idle one would never absorb it."""
    books = Ledger()
    books.live(
        *(snapshot(*even(f"0{at}:00", {IN: total, SECOND: 10})) for at, total in REVOKED),
        snapshot(*even("04:00", {X_IN: 1_100, X_SECOND: 10})),
        snapshot(*even("05:00", {X_IN: 1_600, X_SECOND: 10})),
    )
    assert books.charged() == (600, 600)


@pytest.mark.parametrize("renamed_at", [2, 3])
def test_a_restart_is_revoked_for_a_counter_that_got_another_name_since(renamed_at: int) -> None:
    """What it had before the restart goes with it, or what it is owed in the same snapshot."""
    books = Ledger()
    books.live(
        *(
            snapshot(*even(f"0{at}:00", {X_IN if at >= renamed_at else IN: total, BOB: total}))
            for at, total in REVOKED
        ),
        snapshot(*even("04:00", {X_IN: 1_600, BOB: 1_600})),
        snapshot(*even("05:00", {X_IN: 2_600, BOB: 2_600})),
    )
    charged = {
        name: sum(one.uplink_bytes for one in books.records if one.name in name)
        for name in ((IN, X_IN), (BOB,))
    }
    assert charged == {(IN, X_IN): 1_600, (BOB,): 1_600}


def test_a_restart_is_not_revoked_for_counters_that_were_split_since() -> None:
    """Nobody knows which of them had what; they do not hold up the others."""
    books = Ledger()
    books.live(
        snapshot(*even("00:00", {IN: 1_000, BOB: 1_000})),
        snapshot(*even("01:00", {IN: 300, BOB: 300})),
        snapshot(*even("02:00", {X_IN: 200, X_SECOND: 110, BOB: 310})),
        snapshot(*even("03:00", {X_IN: 800, X_SECOND: 300, BOB: 1_100})),
        snapshot(*even("04:00", {X_IN: 800, X_SECOND: 300, BOB: 1_600})),
    )
    assert sum(one.uplink_bytes for one in books.records if one.name == BOB) == 600
    assert all(row.before_restart is None for row in books.rows.values())


def test_a_restart_is_revoked_for_a_counter_that_was_merged_into_another_since() -> None:
    """Both restarted, so that both are back when the sum of both is."""
    books = Ledger()
    books.live(
        snapshot(*even("00:00", {IN: 1_000, SECOND: 500, BOB: 1_000})),
        snapshot(*even("01:00", {IN: 300, SECOND: 100, BOB: 300})),
        snapshot(*even("02:00", {SECOND: 420, BOB: 310})),
        snapshot(*even("03:00", {SECOND: 1_600, BOB: 1_100})),
        snapshot(*even("04:00", {SECOND: 2_600, BOB: 2_100})),
    )
    charged = sum(one.uplink_bytes for one in books.records if one.name in {IN, SECOND})
    assert charged == 2_600 - 1_500
    assert all(row.before_restart is None for row in books.rows.values())


def test_a_counter_that_did_not_restart_inherits_no_totals_of_before_one() -> None:
    """It would seem to be below them."""
    books = Ledger()
    books.live(
        snapshot(*even("00:00", {IN: 1_000, SECOND: 7, BOB: 1_000})),
        snapshot(*even("01:00", {IN: 300, SECOND: 7, BOB: 300})),
        snapshot(*even("02:00", {SECOND: 320, BOB: 310})),
    )
    assert books.rows[SECOND].before_restart is None


def test_a_rename_without_a_restart_leaves_nothing_to_revoke() -> None:
    """Also where it is the last snapshot that is read."""
    books = Ledger()
    books.live(snapshot(*even("00:00", {IN: 50})), snapshot(*even("01:00", {X_IN: 60})))
    assert all(row.before_restart is None for row in books.rows.values())


def test_a_split_that_keeps_a_name_keeps_what_is_owed() -> None:
    """The largest part has the former name: growth of it absorbs what was charged beyond."""
    books = Ledger()
    books.live(
        *(snapshot(*even(f"0{at}:00", {IN: total, BOB: total})) for at, total in REVOKED),
        snapshot(*even("04:00", {IN: 900, SECOND: 210, BOB: 1_110})),
        snapshot(*even("05:00", {IN: 1_400, SECOND: 210, BOB: 1_610})),
    )
    charged = [
        sum(one.uplink_bytes for one in books.records if one.name.sample_uuid == name.sample_uuid)
        for name in (IN, BOB)
    ]
    assert charged == [610, 610]


UNPAIRED = {
    "in the other order of sizes": (
        {IN: (500, 500), SECOND: (200, 810)},
        {X_IN: (505, 520), X_SECOND: (205, 812)},
        (10, 22),
    ),
    "beside counters that were merged": (
        {IN: (500, 500), SECOND: (200, 810)},
        {X_IN: (705, 1_320)},
        (5, 10),
    ),
    "beside an idle one that is gone": (
        {IN: (500, 500), SECOND: (0, 0)},
        {X_IN: (505, 520)},
        (5, 20),
    ),
    "beside one that is new": (
        {IN: (500, 500)},
        {X_IN: (505, 520), X_SECOND: (5, 5)},
        (10, 25),
    ),
}


@pytest.mark.parametrize(("before", "after", "charged"), UNPAIRED.values(), ids=list(UNPAIRED))
def test_a_rejected_stream_stays_uncharged_where_the_others_can_not_be_paired(
    before: dict[StreamName, tuple[int, int]],
    after: dict[StreamName, tuple[int, int]],
    charged: tuple[int, int],
) -> None:
    """It has more than any of them, and so continues under the only name that has as much."""
    books = Ledger()
    first = snapshot("00:00", {**before, ALL: (2_500, 2_500)})
    books.run(first)
    rejected(books, ALL)
    books.run(first, snapshot("01:00", {**after, X_ALL: (2_505, 2_505)}))
    assert books.charged() == charged
    assert books.rows[X_ALL].state == "duplicate"


def test_a_stream_is_not_taken_for_a_rejected_one_that_what_is_charged_needs() -> None:
    """The rejected one is gone: both of the others are needed for what was charged."""
    books = Ledger()
    first = snapshot("00:00", {IN: (500, 500), SECOND: (200, 810), ALL: (190, 800)})
    books.run(first)
    rejected(books, ALL)
    books.run(first, snapshot("01:00", {X_IN: (505, 520), X_SECOND: (205, 812)}))
    assert books.charged() == (10, 22)
    assert {books.rows[name].state for name in (X_IN, X_SECOND)} == {"active"}


def test_several_rejected_streams_are_paired_the_largest_first() -> None:
    """The same inbound tag decides before the size does, and is still rejected."""
    proxy_all = StreamName("all", PROXY)
    books = Ledger(accounts={PROXY: ACCOUNT})
    first = snapshot("00:00", {IN: (500, 500), ALL: (2_500, 2_500), SECOND: (900, 900)})
    books.run(first)
    rejected(books, ALL, SECOND)
    after = {X_IN: (505, 520), proxy_all: (2_600, 2_600), X_ALL: (2_550, 2_550)}
    books.run(first, snapshot("01:00", {**after, X_SECOND: (905, 905), BOB_IN: (0, 0)}))
    assert books.rows[proxy_all].state == "ignored"
    assert books.rows[X_SECOND].state == "duplicate"


def after_rejecting(
    before: Streams, after: Streams, *names: StreamName
) -> tuple[tuple[int, int], int]:
    """Return the bytes charged and held where some streams were rejected, and all got new names."""
    books = Ledger(accounts={PROXY: ACCOUNT, FORMER: ACCOUNT})
    first = snapshot(*even("00:00", before))
    books.run(first)
    rejected(books, *names)
    second = snapshot(*even("01:00", after))
    books.run(first, second)
    books.run(second, snapshot(*even("02:00", {name: n + 1 for name, n in after.items()})))
    return books.charged(), sum(held.record.uplink_bytes for held in books.held)


def test_as_many_streams_keep_the_order_of_their_sizes() -> None:
    """The rejected one does not take the smallest that covers it, which is the other one's."""
    found = after_rejecting({IN: 900, ALL: 950}, {X_IN: 1_000, X_ALL: 1_010}, ALL)
    assert found == ((101, 101), 61)


def test_a_rejected_stream_may_be_smaller_than_one_that_is_charged() -> None:
    """An idle counter that is gone is all that keeps them from being paired."""
    before = {IN: 700, SECOND: 0, ALL: 600}
    assert after_rejecting(before, {X_IN: 710, X_ALL: 605}, ALL) == ((11, 11), 6)


def test_what_is_charged_takes_no_name_from_a_rejected_stream() -> None:
    """A new counter is all that keeps them from being paired."""
    after = {X_IN: 310, X_ALL: 255, X_SECOND: 100}
    assert after_rejecting({IN: 300, ALL: 250}, after, ALL) == ((112, 112), 6)


def test_the_largest_rejected_stream_continues_where_not_all_of_them_do() -> None:
    """The smaller one would leave the lifetime of the larger one to be decided about."""
    before = {IN: 500, ALL: 900, SECOND: 1_000}
    assert after_rejecting(before, {X_IN: 505, X_SECOND: 1_005}, SECOND, ALL) == ((6, 6), 6)


def test_a_rejected_stream_continues_in_the_smallest_that_has_as_much() -> None:
    """Whatever the names."""
    after = {X_ALL: 1_500, X_IN: 1_005, X_SECOND: 310}
    assert after_rejecting({IN: 300, ALL: 1_000}, after, ALL) == ((1_512, 1_512), 6)


A, B = StreamName("a", PROXY), StreamName("b", PROXY)
FORMER_A = StreamName("a", FORMER)
OWN_A, OWN_B, OWN_C, OWN_D = (StreamName(tag, ACCOUNT) for tag in "abcd")


@pytest.mark.parametrize(
    ("before", "after", "refused", "charged", "held"),
    [
        pytest.param(
            {A: 100, B: 50}, {OWN_A: 100, OWN_C: 200, OWN_D: 300}, [B], 503, 0, id="a charged one"
        ),
        pytest.param(
            {A: 1_000, B: 10}, {OWN_B: 11, OWN_C: 1_500, OWN_D: 20}, [A, B], 21, 501, id="another"
        ),
        pytest.param(
            {A: 100, B: 1_000}, {OWN_A: 110, OWN_B: 5, OWN_D: 1_001}, [B], 17, 2, id="its former"
        ),
        pytest.param({B: 1}, {OWN_C: 200, OWN_D: 300}, [B], 502, 0, id="one that is much larger"),
        pytest.param(
            {FORMER_A: 1_000, A: 100},
            {OWN_A: 1_005, OWN_C: 105, OWN_D: 7},
            [FORMER_A],
            14,
            0,
            id="a tag of two that are gone",
        ),
        pytest.param(
            {A: 1_000}, {FORMER_A: 1_010, OWN_A: 1_005}, [A], 1_011, 0, id="a tag of two new ones"
        ),
    ],
)
def test_a_rejected_stream_takes_no_name_that_something_else_explains(
    before: Streams, after: Streams, refused: list[StreamName], charged: int, held: int
) -> None:
    """The account's uuid takes the place of the proxy's: equal tags go on, whatever the sizes."""
    found = after_rejecting(before, after, *refused)
    assert found == ((charged, charged), held)
