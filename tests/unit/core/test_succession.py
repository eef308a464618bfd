"""Counters that continue under other names are charged once, whatever the names are."""

from __future__ import annotations

import pytest

from billing_cli.core.model import DeltaPolicy, StreamName, Succession, SuccessionSide, Totals
from billing_cli.core.succession import (
    AccountChange,
    distribute,
    duplicates,
    restarted_from,
    succession_of,
    with_uncertainty,
)
from tests.unit.core.stories import BELIEVE_ALL, NOON, Ledger, snapshot, totals_of

ACCOUNT = "11111111-1111-1111-1111-111111111111"
LOW_PROXY = "00000000-0000-0000-0000-000000000000"
PROXY = "99999999-9999-9999-9999-999999999999"
OTHER = "22222222-2222-2222-2222-222222222222"
GB = 10**9

A, B, C = (StreamName(tag, ACCOUNT) for tag in ("a", "b", "c"))
ALL = StreamName("", ACCOUNT)
A_PROXY, B_PROXY = (StreamName(tag, PROXY) for tag in ("a", "b"))
A_LOW_PROXY = StreamName("a", LOW_PROXY)
OTHER_A = StreamName("a", OTHER)
ACCOUNTS = {ACCOUNT: ACCOUNT, PROXY: ACCOUNT, LOW_PROXY: ACCOUNT, OTHER: OTHER}


def ledger() -> Ledger:
    """Return a ledger in which the proxy uuid belongs to the account."""
    return Ledger(BELIEVE_ALL, ACCOUNTS)


@pytest.mark.parametrize(
    ("before", "after", "charged"),
    [
        pytest.param(
            {A: (100, 200), B: (50, 60), C: (7, 8)}, {ALL: (160, 270)}, (3, 2), id="merge"
        ),
        pytest.param({ALL: (160, 270)}, {A: (101, 200), B: (60, 75)}, (1, 5), id="split"),
        pytest.param({A: (100, 200)}, {B: (105, 206)}, (5, 6), id="a tag is renamed"),
        pytest.param({A_PROXY: (100, 200)}, {A: (105, 206)}, (5, 6), id="proxy to account uuid"),
        pytest.param({A: (100, 200), B: (5, 5)}, {ALL: (105, 205)}, (0, 0), id="without traffic"),
        pytest.param({A: (100, 0)}, {B: (105, 0)}, (5, 0), id="one direction is used"),
        pytest.param(
            {A: (100, 200), B: (5, 5)}, {B: (110, 210)}, (5, 5), id="into an existing one"
        ),
        pytest.param(
            {A: (100, 200), B: (5, 5)}, {B: (55, 100), C: (60, 120)}, (10, 15), id="into both"
        ),
        pytest.param(
            {A: (100, 200), B: (500, 500)},
            {A: (40, 90), B: (500, 500), C: (70, 120)},
            (10, 10),
            id="split that keeps a name",
        ),
        pytest.param(
            {ALL: (200, 400)}, {A: (100, 200), B: (100, 200)}, (0, 0), id="split into equal halves"
        ),
        pytest.param(
            {ALL: (200, 400)}, {A: (100, 200), A_PROXY: (100, 200)}, (0, 0), id="split by uuid"
        ),
        pytest.param(
            {ALL: (600, 600)},
            {A: (100, 100), B: (200, 200), C: (300, 300)},
            (0, 0),
            id="split into parts of which one is the sum of the others",
        ),
        pytest.param(
            {A: (100, 200), B: (100, 200)},
            {C: (100, 200), ALL: (103, 204)},
            (3, 4),
            id="equal counters are renamed",
        ),
        pytest.param(
            {A: (100, 100), B: (200, 200), C: (3, 3)},
            {ALL: (305, 306), C: (3, 3)},
            (5, 6),
            id="merge while another counter stays",
        ),
    ],
)
def test_a_succession_charges_the_growth_of_the_accounts_sum(
    before: dict[StreamName, tuple[int, int]],
    after: dict[StreamName, tuple[int, int]],
    charged: tuple[int, int],
) -> None:
    """Merge, split, rename and another uuid: the account's sum is right to the byte."""
    books = ledger()
    books.live(snapshot("00:00", before), snapshot("01:00", after), snapshot("02:00", after))
    assert books.charged() == charged
    assert books.resets == 0
    assert len(books.successions) == 1
    (one,) = books.successions
    assert total(one.ended) == total(one.continued)
    assert {books.rows[name].state for name, _ in one.continued} == {"active"}


def total(sides: tuple[tuple[StreamName, Totals], ...]) -> tuple[int, int]:
    """Return the sum of a side's totals."""
    return sum(t.uplink for _, t in sides), sum(t.downlink for _, t in sides)


def test_a_succession_over_an_outage_and_missed_snapshots_is_recognised() -> None:
    """What counts is the last snapshot with samples, however long ago it was."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200), B: (50, 60)}),
        snapshot("01:00", {}),
        snapshot("59:00", {ALL: (155, 265)}),
    )
    assert books.charged() == (5, 5)


def test_counters_below_those_that_are_gone_started_at_zero() -> None:
    """The process restarted in the same minute: the new totals are what flowed since."""
    books = ledger()
    books.live(snapshot("00:00", {A: (100, 200), B: (50, 60)}), snapshot("01:00", {ALL: (30, 40)}))
    assert books.charged() == (30, 40)
    assert books.successions == []


@pytest.mark.parametrize("totals", [(900, 199), (99, 900)])
def test_a_counter_below_in_one_direction_started_at_zero(totals: tuple[int, int]) -> None:
    """Both directions continue, or none does."""
    books = ledger()
    books.live(snapshot("00:00", {A: (100, 200)}), snapshot("01:00", {B: totals}))
    assert books.charged() == totals


def test_a_counter_that_never_counted_has_no_successor() -> None:
    """It is gone, and nothing of it continues."""
    books = ledger()
    books.live(snapshot("00:00", {A: (0, 0)}), snapshot("01:00", {B: (7, 8)}))
    assert books.charged() == (7, 8)
    assert books.successions == []


def test_a_stream_that_is_left_out_while_names_change_counts_as_new_afterwards() -> None:
    """The same snapshots follow where one inbound vanished and another one began."""
    bob, dave = "22222222-2222-2222-2222-222222222222", "44444444-4444-4444-4444-444444444444"
    books = Ledger(BELIEVE_ALL)
    books.live(
        snapshot("00:00", {StreamName("x", bob): (500, 500), StreamName("x", dave): (300, 300)}),
        snapshot("01:00", {StreamName("x", bob): (510, 510)}),
        snapshot("02:00", {StreamName("y", bob): (520, 520)}),
        snapshot("03:00", {StreamName("y", bob): (530, 530), StreamName("y", dave): (310, 310)}),
    )
    assert len(books.successions) == 1
    assert books.charged() == (30 + 310, 30 + 310)


def test_streams_that_vanished_long_ago_have_no_successor() -> None:
    """Only streams of the last snapshot with samples are gone."""
    books = ledger()
    other = {OTHER_A: (1, 1)}
    books.live(
        snapshot("00:00", {A: (100, 200), **other}),
        snapshot("01:00", other),
        snapshot("02:00", {B: (900, 900), **other}),
    )
    assert books.charged(ACCOUNT) == (900, 900)


def test_a_stream_of_another_account_is_no_successor() -> None:
    """Successions are matched for each account."""
    books = ledger()
    books.live(snapshot("00:00", {A: (100, 200)}), snapshot("01:00", {OTHER_A: (900, 900)}))
    assert books.charged() == (900, 900)


def test_uuids_without_an_account_have_successions_too() -> None:
    """Until an account appears, the uuid itself is what the bytes belong to."""
    books = Ledger(BELIEVE_ALL, {})
    books.live(snapshot("00:00", {A: (100, 200), B: (1, 1)}), snapshot("01:00", {ALL: (105, 205)}))
    assert books.charged() == (4, 4)


def test_going_back_to_the_former_exporter_continues_the_former_streams() -> None:
    """A downgrade is a succession as well, and an upgrade after it."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200), B: (50, 60)}),
        snapshot("01:00", {ALL: (155, 265)}),
        snapshot("02:00", {A: (104, 204), B: (55, 65)}),
        snapshot("03:00", {ALL: (160, 270)}),
    )
    assert books.charged() == (10, 10)
    assert len(books.successions) == 3


@pytest.mark.parametrize("idle", [(0, 0), (2, 1)], ids=["never used", "hardly used"])
def test_a_former_name_that_takes_nothing_over_in_a_rollback_is_charged(
    idle: tuple[int, int],
) -> None:
    """An idle inbound was merged with a busy one; what it counts after the rollback is charged."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200), B: idle}),
        snapshot("01:00", {ALL: (100 + idle[0], 200 + idle[1])}),
        snapshot("02:00", {A: (110, 210), B: idle}),
        snapshot("03:00", {A: (110, 210), B: (500, 700)}),
    )
    assert books.charged() == (510 - idle[0], 710 - idle[1])
    assert books.held == []


def test_former_names_that_return_beside_a_new_one_with_their_sum_are_held() -> None:
    """The counter was renamed, and the former ones are published in addition."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200), B: (50, 60)}),
        snapshot("01:00", {ALL: (150, 260)}),
        snapshot("02:00", {C: (155, 262), A: (103, 201), B: (52, 61)}),
        snapshot("03:00", {C: (165, 272), A: (113, 211), B: (52, 61)}),
    )
    assert books.charged() == (15, 12)
    assert {one.record.name for one in books.held} == {A, B}
    assert {books.rows[name].state for name in (A, B)} == {"duplicate"}


def test_a_continued_counter_that_is_published_below_its_totals_began_again() -> None:
    """It can't count the same bytes as the one that continues it."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200)}),
        snapshot("01:00", {ALL: (105, 205)}),
        snapshot("02:00", {ALL: (106, 206), A: (3, 4)}),
        snapshot("03:00", {ALL: (107, 207), A: (5, 6)}),
    )
    assert books.charged() == (7 + 5, 7 + 6)
    assert (books.rows[A].state, books.rows[A].reset_epoch) == ("active", 1)
    assert books.held == []


def test_a_continued_counter_that_is_published_in_addition_is_held() -> None:
    """It would be charged a second time; an operator decides."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200), B: (50, 60)}),
        snapshot("01:00", {ALL: (155, 265)}),
        snapshot("02:00", {ALL: (160, 270), A: (103, 203)}),
        snapshot("03:00", {ALL: (165, 275), A: (106, 206)}),
    )
    assert books.charged() == (15, 15)
    assert {one.record.name for one in books.held} == {A}
    assert {one.reason for one in books.held} == {"duplicate"}


def test_a_new_stream_with_the_totals_of_a_present_one_is_a_duplicate() -> None:
    """The exporter publishes the proxy uuid and the account's uuid: the second one is held."""
    books = ledger()
    books.live(
        snapshot("00:00", {A_PROXY: (100, 200)}),
        snapshot("01:00", {A_PROXY: (110, 210), A: (110, 210)}),
        snapshot("02:00", {A_PROXY: (120, 220), A: (120, 220)}),
    )
    assert books.charged() == (20, 20)
    assert sum(one.record.uplink_bytes for one in books.held) == 120
    assert books.rows[A].state == "duplicate"


@pytest.mark.parametrize("name", [A, A_LOW_PROXY, B, B_PROXY])
def test_a_copy_of_one_of_several_streams_is_a_duplicate(name: StreamName) -> None:
    """Under whatever name: the stream that was there before is the one that is charged."""
    books = ledger()
    books.live(
        snapshot("00:00", {A_PROXY: (100, 200), C: (7, 8)}),
        snapshot("01:00", {A_PROXY: (110, 210), C: (7, 8), name: (110, 210)}),
        snapshot("02:00", {A_PROXY: (120, 220), C: (7, 8), name: (120, 220)}),
    )
    assert books.charged() == (20, 20)
    assert books.rows[name].state == "duplicate"


def test_a_sum_that_is_published_beside_its_parts_is_a_duplicate() -> None:
    """Those of other accounts are not among its parts."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 200), B: (50, 60), OTHER_A: (9, 9)}),
        snapshot("01:00", {A: (101, 200), B: (50, 61), OTHER_A: (9, 9), ALL: (151, 261)}),
        snapshot("02:00", {A: (104, 200), B: (50, 61), OTHER_A: (9, 9), ALL: (154, 261)}),
    )
    assert books.charged() == (4, 1)
    assert books.rows[ALL].state == "duplicate"


@pytest.mark.parametrize("totals", [(0, 0), (5, 0), (0, 5)])
def test_equal_counters_that_hardly_count_are_no_duplicates(totals: tuple[int, int]) -> None:
    """Two inbounds that were hardly used are equal by chance; what they count is charged."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: totals}),
        snapshot("01:00", {A: totals, B: totals}),
        snapshot("02:00", {A: totals, B: (70, 80)}),
    )
    assert books.charged() == (70, 80)
    assert books.held == []


@pytest.mark.parametrize("copy", [A_PROXY, A_LOW_PROXY])
def test_duplicates_are_found_in_a_nodes_first_snapshot(copy: StreamName) -> None:
    """One tag under both uuids of an account: the account's own uuid is charged."""
    books = ledger()
    books.live(
        snapshot("00:00", {copy: (100, 200), A: (100, 200)}),
        snapshot("01:00", {copy: (120, 220), A: (120, 220)}),
    )
    assert books.charged() == (20, 20)
    assert books.rows[copy].state == "duplicate"


def test_only_new_streams_are_duplicates_in_each_account() -> None:
    """Equal streams that are charged already go on; of each new pair one is a duplicate."""
    accounts = {**ACCOUNTS, "other proxy": OTHER}
    other_proxy = StreamName("a", "other proxy")
    totals = {name: Totals(5, 5) for name in (A, A_PROXY, OTHER_A, other_proxy)}

    def account_of(name: StreamName) -> str:
        return accounts[name.sample_uuid]

    assert duplicates(totals, (), account_of) == set()
    assert duplicates(totals, totals, account_of) == {A_PROXY, other_proxy}


def test_a_rename_that_other_streams_contradict_leaves_an_uncertain_gap() -> None:
    """The tag is still used on the node, so the counter may as well have started at zero."""
    books = Ledger(DeltaPolicy(), {ACCOUNT: ACCOUNT, OTHER: OTHER})
    other = {OTHER_A: (1, 1)}
    books.live(
        snapshot("00:00", {A: (100, 200), **other}), snapshot("01:00", {B: (900, 900), **other})
    )
    assert books.charged(ACCOUNT) == (800, 700)
    assert [(gap.kind, gap.uncertain_bytes) for gap in books.gaps] == [("uncertain", 300)]


def test_a_rename_of_the_whole_node_is_certain() -> None:
    """No stream has the former tag any more: the exporter publishes other names."""
    books = Ledger(DeltaPolicy(), {ACCOUNT: ACCOUNT, OTHER: OTHER})
    renamed = OTHER_A._replace(inbound_tag="b")
    books.live(
        snapshot("00:00", {A: (100, 200), OTHER_A: (1, 1)}),
        snapshot("01:00", {B: (900, 900), renamed: (2, 2)}),
    )
    assert books.charged() == (801, 701)
    assert books.gaps == []


def test_a_counter_that_cannot_have_started_at_zero_leaves_no_gap() -> None:
    """Its totals are more than the account can have moved since the snapshot before."""
    books = Ledger(DeltaPolicy(), {ACCOUNT: ACCOUNT, OTHER: OTHER})
    other = {OTHER_A: (1, 1)}
    books.live(
        snapshot("00:00", {A: (900 * GB, 900 * GB), **other}),
        snapshot("01:00", {B: (901 * GB, 901 * GB), **other}),
    )
    assert books.charged(ACCOUNT) == (GB, GB)
    assert books.gaps == []


def test_another_uuid_of_the_same_tag_is_certain() -> None:
    """Others keep the tag: it is the uuid that the exporter publishes otherwise."""
    books = Ledger(DeltaPolicy(), ACCOUNTS)
    other = {OTHER_A: (1, 1)}
    books.live(
        snapshot("00:00", {A_PROXY: (100, 200), **other}),
        snapshot("01:00", {A: (900, 900), **other}),
    )
    assert books.charged() == (800, 700)
    assert books.gaps == []


def test_totals_that_can_just_have_flowed_since_are_uncertain() -> None:
    """One byte less of what is plausible, and the counter can't have started at zero."""
    change = AccountChange({A: Totals(100, 200)}, {B: Totals(300, 400)}, {})
    succession = succession_of(change, NOON)
    assert succession is not None
    totals = {B: Totals(300, 400), OTHER_A: Totals(1, 1)}
    for plausible_bytes, uncertain_bytes in ((700, 300), (699, 0)):
        (one,) = with_uncertainty([succession], totals, plausible_bytes)
        assert one.uncertain_bytes == uncertain_bytes


def test_what_a_revoked_restart_gives_back_is_uncertain_whatever_its_names() -> None:
    """They are the same before and after, and explain nothing."""
    side = SuccessionSide(A, Totals(100, 200))
    revoked = Succession("restart_revoked", NOON, (side,), (side,))
    (one,) = with_uncertainty([revoked], {A: Totals(300, 400)}, 700)
    assert one.uncertain_bytes == 300


def test_an_existing_stream_that_grew_enough_continues_alone() -> None:
    """A new one that is too small in one direction keeps what it counted, whatever its size."""
    change = AccountChange(
        {A: Totals(100, 200)},
        {ALL: Totals(1_000, 1)},
        {B: Totals(1, 1), C: Totals(105, 205), B_PROXY: Totals(2, 2)},
    )
    succession = succession_of(change, NOON)
    assert succession is not None
    assert dict(succession.continued) == {C: (100, 200)}


@pytest.mark.parametrize(
    ("gone", "candidates", "parts"),
    [
        pytest.param(
            {A_PROXY: (50, 50), B_PROXY: (10, 10)},
            {A: (55, 55), B: (90, 90)},
            {A: (50, 50), B: (10, 10)},
            id="by tag",
        ),
        pytest.param(
            {A: (9, 95), B: (90, 9)},
            {ALL: (101, 101), C: (100, 100)},
            {C: (90, 9), ALL: (9, 95)},
            id="by size",
        ),
        pytest.param(
            {A: (50, 50)},
            {B: (40, 20), C: (30, 35)},
            {C: (30, 35), B: (20, 15)},
            id="by what each holds",
        ),
        pytest.param(
            {A_PROXY: (50, 50), B_PROXY: (10, 10)},
            {A: (40, 40), B: (30, 30)},
            {A: (40, 40), B: (20, 20)},
            id="tags and sizes that don't fit",
        ),
        pytest.param(
            {A: (10, 10), A_PROXY: (5, 5)},
            {A_LOW_PROXY: (20, 20)},
            {A_LOW_PROXY: (15, 15)},
            id="two of a tag go on as one",
        ),
        pytest.param(
            {A_LOW_PROXY: (10, 10)},
            {A: (8, 8), A_PROXY: (12, 12)},
            {A_PROXY: (10, 10), A: (0, 0)},
            id="one of a tag goes on as two",
        ),
        pytest.param(
            {A_LOW_PROXY: (10, 10)},
            {A: (11, 11), A_PROXY: (12, 12)},
            {A_PROXY: (10, 10), A: (0, 0)},
            id="one of a tag goes on as two that both hold it",
        ),
    ],
)
def test_parts_are_taken_over_by_tag_then_by_size_then_by_what_each_holds(
    gone: dict[StreamName, tuple[int, int]],
    candidates: dict[StreamName, tuple[int, int]],
    parts: dict[StreamName, tuple[int, int]],
) -> None:
    """The split is a convention; the sum is exact in each direction."""
    assert distribute(totals_of(gone), totals_of(candidates)) == parts


def test_names_that_come_back_together_continue_those_that_are_gone() -> None:
    """As many old names return as new ones vanish: an upgrade, made with a restart, is undone."""
    books = ledger()
    other_all = StreamName("", OTHER)
    books.live(
        snapshot("00:00", {A: (1_000, 1_000), OTHER_A: (1_000, 1_000)}),
        snapshot("01:00", {ALL: (500, 500), other_all: (500, 500)}),
        snapshot("02:00", {ALL: (20, 20), other_all: (20, 20)}),
        snapshot("03:00", {ALL: (3_000, 3_000), other_all: (30, 30)}),
        snapshot("04:00", {ALL: (3_100, 3_100), other_all: (5_000, 5_000)}),
        snapshot("05:00", {A: (3_101, 3_102), OTHER_A: (5_003, 5_004)}),
    )
    assert books.charged() == (2 * 500 + 3_101 + 5_003, 2 * 500 + 3_102 + 5_004)


def test_names_that_return_are_charged_once_after_a_restart_that_nobody_noticed() -> None:
    """The upgrade came with a restart; rolled back, the former names are below their totals."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (1_000, 1_000), B: (1_000, 1_000)}),
        snapshot("01:00", {ALL: (500, 500)}),
        snapshot("02:00", {A: (400, 400), B: (130, 130)}),
        snapshot("03:00", {A: (410, 410), B: (140, 140)}),
    )
    assert books.charged() == (550, 550)


@pytest.mark.parametrize("totals", [(600, 300), (300, 300)])
@pytest.mark.parametrize("other", [(3, 12), (9, 12)])
def test_a_former_name_counts_from_zero_after_a_restart_that_another_counter_shows(
    totals: tuple[int, int], other: tuple[int, int]
) -> None:
    """Rolled back with a restart, it has passed the total at which it was continued.

    Without such a counter it may be an older reading, or one of several names that come back: it is
    held.
    """
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 100), OTHER_A: (9, 9)}),
        snapshot("01:00", {ALL: (500, 500), OTHER_A: (9, 9)}),
        snapshot("02:00", {A: totals, OTHER_A: other}),
        snapshot("03:00", {A: (610, 310), OTHER_A: other}),
    )
    if other == (3, 12):
        assert books.charged(ACCOUNT) == (400 + 610, 400 + 310)
        assert books.held == []
    else:
        assert books.charged(ACCOUNT) == (400, 400)
        assert books.rows[A].state == "duplicate"


@pytest.mark.parametrize(("others", "charged"), [((400, 400), 400), ((9, 9), 400 + 310)])
def test_a_former_name_is_held_after_a_restart_where_another_name_can_have_its_bytes(
    others: tuple[int, int], charged: int
) -> None:
    """Then it may count the same bytes once more."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (100, 100), B: others, OTHER_A: (9, 9)}),
        snapshot("01:00", {ALL: (500, 500), B: others, OTHER_A: (9, 9)}),
        snapshot("02:00", {A: (300, 300), B: others, OTHER_A: (3, 12)}),
        snapshot("03:00", {A: (310, 310), B: others, OTHER_A: (3, 12)}),
    )
    assert books.charged(ACCOUNT) == (charged, charged)
    assert books.rows[A].state == ("duplicate" if charged == 400 else "active")


@pytest.mark.parametrize(("former", "copy"), [(A, A_PROXY), (A_PROXY, A)])
def test_a_former_name_that_returns_with_a_copy_under_the_other_uuid_is_charged_once(
    former: StreamName, copy: StreamName
) -> None:
    """The copy, which was never read before, is held or charged in its place."""
    books = ledger()
    books.live(
        snapshot("00:00", {former: (100, 100), OTHER_A: (9, 9)}),
        snapshot("01:00", {ALL: (500, 500), OTHER_A: (9, 9)}),
        snapshot("02:00", {former: (200, 200), copy: (200, 200), OTHER_A: (3, 12)}),
        snapshot("03:00", {former: (210, 210), copy: (210, 210), OTHER_A: (3, 12)}),
    )
    assert books.charged(ACCOUNT) == (400 + 210, 400 + 210)
    assert books.rows[A_PROXY].state == "duplicate"


def test_a_name_that_returns_takes_over_from_one_that_fell() -> None:
    """The upgrade came with a restart; the new name stays, and counts something else."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (1_000, 1_000)}),
        snapshot("01:00", {ALL: (500, 500)}),
        snapshot("02:00", {A: (501, 501), ALL: (3, 3)}),
        snapshot("03:00", {A: (502, 502), ALL: (4, 4)}),
    )
    assert books.charged() == (500 + 2 + 4, 500 + 2 + 4)


def test_names_that_return_above_two_totals_are_charged_the_smaller_difference() -> None:
    """They may go on from their own totals or from those that are gone: a gap says by how much.

    Minute by minute; a run that reads all of it at once takes the second snapshot for disorder.
    """
    books = ledger()
    story = (
        snapshot("00:00", {A: (1_000, 1_000)}),
        snapshot("01:00", {ALL: (900, 900)}),
        snapshot("02:00", {A: (1_100, 1_100)}),
    )
    for part in (story[:1], story[:2], story[1:]):
        books.run(*part)
    assert books.charged() == (900 + 100, 900 + 100)
    assert [(gap.kind, gap.uncertain_bytes) for gap in books.gaps] == [("uncertain", 200)]


def test_a_restart_that_only_absent_streams_show_leaves_present_ones_as_they_are() -> None:
    """It was in the past: what the present stream counted since is not charged again."""
    books = ledger()
    books.live(
        snapshot("00:00", {A: (10, 10), OTHER_A: (5_000, 5_000)}),
        snapshot("01:00", {A: (300, 300)}),
        snapshot("02:00", {A: (310, 310), OTHER_A: (7, 7)}),
        snapshot("03:00", {A: (320, 320), OTHER_A: (8, 8)}),
    )
    assert books.charged(ACCOUNT) == (310, 310)
    assert books.charged(OTHER) == (8, 8)


def test_each_direction_of_a_counter_that_decreased_continues_from_zero() -> None:
    """The other one, which did not, goes on from its total."""
    former = Totals(10, 20)
    assert restarted_from(former, Totals(9, 20)) == (0, 20)
    assert restarted_from(former, Totals(10, 19)) == (10, 0)
    assert restarted_from(former, Totals(0, 0)) == (0, 0)
