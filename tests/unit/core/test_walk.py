"""What each snapshot leaves behind: stamps, epochs, states and credit, beyond the bytes charged."""

from __future__ import annotations

from billing_cli.core.model import Checkpoint, DeltaPolicy, StreamName, Totals
from tests.unit.core.stories import (
    ALICE,
    BELIEVE_ALL,
    BOB,
    MERGED,
    Ledger,
    after_noon,
    alice,
    next_run,
    snapshot,
)


def test_a_new_stream_counts_since_the_last_snapshot_with_samples() -> None:
    """One without samples says nothing about streams."""
    books = Ledger()
    books.live(
        alice("00:00", 1, 1),
        snapshot("01:00", {}),
        snapshot("02:00", {ALICE: (1, 1), BOB: (5, 5)}),
    )
    assert [(one.name, one.from_at) for one in books.records] == [(BOB, after_noon("00:00"))]


def test_a_new_stream_counts_since_a_snapshot_of_which_no_sample_could_be_used() -> None:
    """That one was read, though nothing of it is known."""
    books = Ledger(DeltaPolicy(0, 0, charge_first_snapshot=True))
    books.run(snapshot("00:00", {}, rejected=("a sample without a tag",)))
    step = books.run(snapshot("00:00", {}), alice("01:00", 5, 5))
    assert [record.from_at for record in step.records] == [after_noon("00:00")]


def test_a_name_that_takes_over_again_stays_in_its_epoch() -> None:
    """Its counter did not restart."""
    books = Ledger()
    books.live(
        *(alice("00:00", 100, 100), alice("01:00", 5, 5), alice("02:00", 6, 6)),
        *(snapshot("03:00", {MERGED: (7, 7)}), alice("04:00", 8, 8)),
    )
    assert books.charged() == (8, 8)
    assert books.rows[ALICE].reset_epoch == books.resets == 1


def test_each_restart_of_a_single_counter_is_an_epoch_of_its_own() -> None:
    """Records of two epochs do not meet."""
    books = Ledger()
    books.live(
        *(alice("00:00", 500, 500), alice("01:00", 40, 560), alice("02:00", 50, 600)),
        *(alice("03:00", 10, 610), alice("04:00", 11, 620)),
    )
    assert books.charged() == (50 + 11, 120)
    assert books.rows[ALICE].reset_epoch == books.resets == 2


def test_a_second_restart_confirms_the_first_one() -> None:
    """Also for users who were absent since, or return with it."""
    for name in (BOB, MERGED):
        books = Ledger()
        books.live(
            snapshot("00:00", {ALICE: (1_000, 1_000), BOB: (1_000, 1_000)}),
            *(alice("01:00", 300, 300), alice("02:00", 600, 600)),
            snapshot("03:00", {ALICE: (5, 5), name: (4, 4)}),
            snapshot("04:00", {ALICE: (6, 6), name: (5, 5)}),
        )
        assert books.charged() == (600 + 6 + 5, 600 + 6 + 5)
        assert books.rows[BOB].before_restart is None


def test_a_baseline_leaves_no_credit() -> None:
    """What a node moved before is not known, so it begins with nothing to spend."""
    step = Ledger(DeltaPolicy()).run(alice("00:00", 1))
    assert step.credit.since == after_noon("00:00")
    assert step.credit.node is not None
    step = Ledger(DeltaPolicy(charge_first_snapshot=True)).run(alice("00:00", 1))
    assert step.credit.since is None


def test_the_first_snapshot_is_older_than_all_others_of_a_first_run() -> None:
    """A clock that was set back within it charges nothing twice."""
    books = Ledger()
    books.run(
        *(alice("00:00", 500, 500), alice("01:00", 600, 600), alice("02:00", 550, 550)),
        *(alice("03:00", 560, 560), alice("04:00", 700, 700)),
    )
    assert books.charged() == (200, 200)
    assert books.resets == 0


def test_a_new_stream_of_a_known_node_begins_at_zero() -> None:
    """Only the first totals of a node are a baseline."""
    known = Checkpoint(after_noon("00:00"), Totals(5, 5))
    both = snapshot("01:00", {ALICE: (5, 5), BOB: (7, 7)})
    step = next_run("00:00", {ALICE: known}, alice("00:00", 5, 5), both)
    assert [(record.name, record.end) for record in step.records] == [(BOB, Totals(7, 7))]


def test_an_ignored_stream_is_neither_charged_nor_held() -> None:
    """It is followed, so that it can be charged from then on."""
    ignored = Checkpoint(after_noon("00:00"), Totals(5, 5), state="ignored")
    step = next_run("00:00", {ALICE: ignored}, alice("00:00", 5, 5), alice("01:00", 9, 9))
    assert (step.records, step.held) == ((), ())
    assert step.checkpoints[ALICE].totals == (9, 9)
    assert step.checkpoints[ALICE].state == "ignored"


def test_former_names_that_wait_are_applied_where_it_is_decided_now() -> None:
    """An exporter that stopped after them is not waited for."""
    books = Ledger()
    books.live(alice("00:00", 900, 900), snapshot("01:00", {MERGED: (1_000, 1_000)}))
    seen = snapshot("01:00", {MERGED: (1_000, 1_000)})
    assert books.run(seen, alice("02:00", 910, 910)).waits_for_successor
    step = books.run(seen, alice("02:00", 910, 910), decide_now=True)
    assert (step.waits_for_successor, step.watermark) == (False, after_noon("02:00"))


def test_a_decrease_at_the_end_of_a_cut_history_is_left_to_the_next_step() -> None:
    """That begins with it, and decides: else a step could not move."""
    books = Ledger()
    books.live(alice("00:00", 500, 500))
    fallen = (alice("02:00", 5, 5), alice("03:00", 6, 6))
    step = books.run(alice("01:00", 510, 510), *fallen, is_cut=True)
    assert (step.waits_for_successor, step.watermark) == (True, after_noon("01:00"))
    step = books.run(*fallen, is_cut=True)
    assert (step.waits_for_successor, step.watermark) == (False, after_noon("03:00"))
    assert step.unsure == {ALICE}


def test_a_restart_that_only_an_absent_stream_shows_confirms_an_earlier_one() -> None:
    """That can't be revoked any more: a later step is charged as a whole."""
    books = Ledger()
    books.live(
        *(alice("00:00", 1_000, 1_000), alice("01:00", 300, 300)),
        snapshot("02:00", {ALICE: (600, 600), BOB: (450, 450)}),
        alice("03:00", 650, 650),
        snapshot("04:00", {ALICE: (700, 700), BOB: (7, 7)}),
        snapshot("05:00", {ALICE: (720, 720), BOB: (8, 8)}),
        snapshot("06:00", {ALICE: (9_000, 9_000), BOB: (9, 9)}),
    )
    assert books.charged() == (9_000 + 450 + 9, 9_000 + 450 + 9)
    assert books.successions == []


def test_a_copy_of_a_name_that_begins_again_is_a_duplicate() -> None:
    """A rollback after an unnoticed restart publishes one counter under both uuids."""
    proxy = "99999999-9999-9999-9999-999999999999"
    tcp = StreamName("tcp", ALICE.sample_uuid)
    copy = StreamName("tcp", proxy)
    books = Ledger(BELIEVE_ALL, {proxy: ALICE.sample_uuid})
    books.live(
        snapshot("00:00", {ALICE: (1_000, 1_000), tcp: (1_000, 1_000)}),
        snapshot("01:00", {MERGED: (500, 500)}),
        snapshot("02:00", {ALICE: (400, 400), tcp: (130, 130), copy: (130, 130)}),
        snapshot("03:00", {ALICE: (410, 410), tcp: (140, 140), copy: (140, 140)}),
    )
    assert books.charged() == (550, 550)
    assert books.rows[copy].state == "duplicate"


def test_a_minute_that_waits_is_left_out_though_disorder_reaches_into_it() -> None:
    """The run ends before that minute."""
    books = Ledger()
    step = books.run(
        *(alice("00:00", 500, 500), alice("01:00", 600, 600), alice("02:00", 550, 550)),
        *(alice("03:00", 560, 560), alice("03:10", 700, 700), alice("03:40", 40, 40)),
    )
    assert (step.watermark, step.waits_for_successor) == (after_noon("01:00"), True)
    assert books.charged() == (100, 100)


def test_former_names_show_a_restart_though_nothing_continues() -> None:
    """What is gone is more than they count; an idle one among them is charged as well."""
    tcp = StreamName("tcp", ALICE.sample_uuid)
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (1_000, 1_000), tcp: (0, 0)}),
        snapshot("01:00", {MERGED: (1_000, 1_000)}),
        snapshot("02:00", {ALICE: (300, 300), tcp: (5, 5)}),
        snapshot("03:00", {ALICE: (301, 301), tcp: (6, 6)}),
    )
    assert books.charged() == (307, 307)
    assert books.held == []


def test_a_former_name_whose_counter_began_again_is_no_duplicate() -> None:
    """That it has as much as another counter of the account is chance."""
    tcp = StreamName("tcp", ALICE.sample_uuid)
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (900, 900), tcp: (90, 90)}),
        snapshot("01:00", {MERGED: (1_000, 1_000), tcp: (100, 100)}),
        snapshot("02:00", {ALICE: (300, 300), tcp: (300, 300)}),
        snapshot("03:00", {ALICE: (310, 310), tcp: (300, 300)}),
    )
    assert books.charged() == (100 + 10 + 310 + 200, 100 + 10 + 310 + 200)
    assert books.held == []
