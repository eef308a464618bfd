"""A counter that decreases: restarts are charged in full, and nothing that was none is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from billing_cli.core.history import read_history
from billing_cli.core.model import StreamName, Totals
from billing_cli.core.restart import MOST_SUCCESSORS, judge
from tests.unit.core.stories import (
    ALICE,
    BELIEVE_ALL,
    BOB,
    Ledger,
    after_noon,
    alice,
    record,
    snapshot,
)

CAROL = StreamName("xhttp", "33333333-3333-3333-3333-333333333333")


def kinds(books: Ledger) -> list[str]:
    """Return the kinds of the gaps that a ledger has."""
    return [gap.kind for gap in books.gaps]


def test_a_snapshot_with_a_decrease_waits_for_its_successor() -> None:
    """The run stops before it, and the watermark stays."""
    books = Ledger()
    books.run(alice("00:00", 500, 500))
    step = books.run(alice("00:00", 500, 500), alice("01:00", 40, 40))
    assert step.waits_for_successor
    assert step.watermark == after_noon("00:00")
    assert (step.records, step.checkpoints, step.snapshots) == ((), {}, 0)


def test_a_restart_charges_each_part_in_the_minute_of_its_own_snapshot() -> None:
    """The successor confirms it; both minutes are charged then, one snapshot later."""
    books = Ledger()
    books.live(alice("00:00", 500, 500), alice("01:00", 40, 40), alice("02:00", 70, 90))
    assert books.records == [
        record(ALICE, ("00:00", "01:00"), (0, 0), (40, 40), epoch=1),
        record(ALICE, ("01:00", "02:00"), (40, 40), (70, 90), epoch=1),
    ]
    assert books.resets == 1
    assert kinds(books) == ["reset"]


def test_a_minute_whose_last_snapshot_waits_is_written_as_a_whole_later() -> None:
    """A minute is written once, so its first snapshot waits as well."""
    books = Ledger()
    books.run(alice("00:00", 500, 500))
    step = books.run(alice("00:00", 500, 500), alice("01:10", 600, 600), alice("01:40", 9, 9))
    assert (step.watermark, step.records) == (after_noon("00:00"), ())
    books.run(
        *(alice("00:00", 500, 500), alice("01:10", 600, 600)),
        *(alice("01:40", 9, 9), alice("02:10", 11, 11)),
    )
    assert books.charged() == (111, 111)
    assert len(books.records) == 3


def test_without_a_successor_for_too_long_the_snapshot_decides_alone() -> None:
    """An exporter that stopped after the restart is not waited for."""
    books = Ledger()
    books.run(alice("00:00", 500, 500))
    books.run(alice("00:00", 500, 500), alice("01:00", 40, 40), decide_now=True)
    assert books.charged() == (40, 40)


def test_idle_active_and_absent_users_of_a_restarted_node_are_exact() -> None:
    """Active ones continue from zero, absent ones when they return, idle ones as they are."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (500, 500), BOB: (900, 900), CAROL: (70, 70)}),
        snapshot("01:00", {ALICE: (40, 40), CAROL: (70, 70)}),
        snapshot("02:00", {ALICE: (60, 60), CAROL: (70, 70)}),
        snapshot("03:00", {ALICE: (60, 60), BOB: (5, 5), CAROL: (75, 75)}),
    )
    charged = dict.fromkeys((ALICE, BOB, CAROL), 0)
    for one in books.records:
        charged[one.name] += one.uplink_bytes
    assert charged == {ALICE: 60, BOB: 5, CAROL: 5}


def test_a_user_absent_since_before_a_restart_continues_from_zero() -> None:
    """Also where the totals are above the former ones by then."""
    books = Ledger()
    others = {ALICE: (500, 500)}
    books.live(
        snapshot("00:00", {BOB: (30, 30), **others}),
        snapshot("01:00", others),
        snapshot("02:00", {ALICE: (1, 1)}),
        snapshot("03:00", {ALICE: (2, 2)}),
        snapshot("04:00", {ALICE: (2, 2), BOB: (50, 50)}),
    )
    assert sum(one.uplink_bytes for one in books.records if one.name == BOB) == 50


def test_a_snapshot_of_another_clock_is_ignored() -> None:
    """All counters are back in the next one: a stale snapshot, left by a missed poll."""
    books = Ledger()
    books.live(alice("00:00", 5_000, 5_000), alice("01:00", 100, 100), alice("02:00", 5_200, 5_200))
    assert books.charged() == (200, 200)
    assert kinds(books) == ["disorder"]
    assert books.resets == 0


@pytest.mark.parametrize("is_live", [True, False])
def test_a_snapshot_without_samples_does_not_make_a_restart_of_another_clock(is_live: bool) -> None:
    """It shows nothing of the counters, whether runs look at each snapshot or at all at once."""
    books = Ledger()
    history = (
        alice("00:00", 5_000, 5_000),
        alice("01:00", 5_100, 5_100),
        alice("02:00", 5_000, 5_000),
        snapshot("03:00", {}),
        snapshot("04:00", {}),
        alice("05:00", 5_200, 5_200),
    )
    (books.live if is_live else books.run)(*history)
    assert books.charged() == (200, 200)
    assert "disorder" in kinds(books)
    assert books.resets == 0


def test_a_restart_with_a_snapshot_without_samples_after_it_is_charged_from_zero() -> None:
    """The next one with samples decides."""
    books = Ledger()
    books.live(
        alice("00:00", 5_000, 5_000),
        alice("01:00", 100, 100),
        snapshot("02:00", {}),
        alice("03:00", 150, 150),
    )
    assert books.charged() == (150, 150)
    assert books.resets == 1


def test_two_stale_snapshots_in_a_row_are_a_restart_that_is_revoked() -> None:
    """Charged is the difference to the totals before, less what was charged since."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (5_000, 5_000), BOB: (800, 800)}),
        snapshot("01:00", {ALICE: (100, 100)}),
        snapshot("02:00", {ALICE: (110, 110)}),
        snapshot("03:00", {ALICE: (5_300, 5_300), BOB: (800, 800)}),
        snapshot("04:00", {ALICE: (5_400, 5_400), BOB: (900, 900)}),
    )
    assert books.charged() == (500, 500)
    assert [succession.kind for succession in books.successions] == ["restart_revoked"]


def test_a_restart_is_revoked_for_a_user_who_is_left_out_as_well() -> None:
    """Bob is missing from the snapshot in which Alice is back: he is charged once, later."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (500, 500), BOB: (500, 500)}),
        snapshot("01:00", {ALICE: (20, 20), BOB: (20, 20)}),
        snapshot("02:00", {ALICE: (30, 30), BOB: (30, 30)}),
        snapshot("03:00", {ALICE: (600, 600)}),
        snapshot("04:00", {ALICE: (600, 600), BOB: (600, 600)}),
    )
    assert books.charged() == (200, 200)


def test_a_second_restart_that_was_none_is_revoked_with_what_the_first_one_charged() -> None:
    """A clock was set back soon after the real start: both time lines alternate."""
    books = Ledger()
    books.run_after_each(
        *(alice("00:00", 1_000), alice("01:00", 0), alice("02:00", 10), alice("03:00", 1_005)),
        *(alice("04:00", 11), alice("05:00", 11), alice("06:00", 1_020), alice("07:00", 1_300)),
    )
    assert [succession.kind for succession in books.successions] == ["restart_revoked"] * 3
    assert books.charged() == (300, 0)


def test_a_clock_that_was_set_back_after_a_restart_charges_nothing_twice() -> None:
    """Bob is idle since the later reading, which came first: no byte of his is due in the step."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (9_000, 9_000), BOB: (7_000, 7_000)}),
        snapshot("01:00", {ALICE: (100, 100), BOB: (58, 58)}),
        snapshot("02:00", {ALICE: (3, 3), BOB: (31, 31)}),
        snapshot("03:00", {ALICE: (10, 10), BOB: (52, 52)}),
        snapshot("04:00", {ALICE: (120, 120), BOB: (58, 58)}),
        snapshot("05:00", {ALICE: (180, 180), BOB: (150, 150)}),
    )
    assert books.charged() == (330, 330)


def test_a_clock_that_was_set_back_after_a_restart_at_zero_charges_nothing_twice() -> None:
    """A counter that showed zero first is one that was not there yet: its next totals are oldest.

    52 to 54 are readings of the clock that ran ahead, 55 to 57 come from the one that was set back.
    """
    books = Ledger()
    books.run(alice("50:00", 5_000))
    books.run(
        alice("50:00", 5_000),
        *(alice("51:00", 0), alice("52:00", 40), alice("53:00", 900), alice("54:00", 910)),
        *(alice("55:00", 700), alice("56:00", 800), alice("57:00", 1_000)),
    )
    assert books.charged() == (1_000, 0)


def test_a_last_reading_that_may_be_older_is_charged_by_the_run_after() -> None:
    """Where nothing follows it for too long: an exporter that stopped is not waited for."""
    history = alice("00:00", 500), alice("01:00", 700), alice("02:00", 600)
    books = Ledger()
    books.run(history[0])
    assert books.run(*history, decide_now=True).waits_for_successor
    assert books.charged() == (200, 0)
    books.run(*history[1:], decide_now=True)
    assert books.charged() == (800, 0)


def test_history_that_ends_with_an_older_reading_shows_no_restart() -> None:
    """The snapshot after it is not known; an hour later reconcile knows."""
    readings = snapshot("51:00", {ALICE: (880, 0)}), snapshot("52:00", {ALICE: (1_010, 0)})
    older = snapshot("53:00", {ALICE: (940, 0)})
    assert not read_history((*readings, older), {}, BELIEVE_ALL).restarts


def test_a_real_restart_is_not_revoked_when_the_counters_pass_their_former_totals() -> None:
    """The difference is less than what was charged since, so there was a restart."""
    books = Ledger()
    books.live(
        *(alice("00:00", 1_000, 1_000), alice("01:00", 300, 300), alice("02:00", 600, 600)),
        *(alice("03:00", 990, 990), alice("04:00", 1_010, 1_010), alice("05:00", 1_500, 1_500)),
    )
    assert books.charged() == (1_500, 1_500)
    assert books.successions == []


@pytest.mark.parametrize(
    ("before", "returned", "charged", "epoch"),
    [
        pytest.param((500, 500), (30, 30), (40, 40), 1, id="below its totals"),
        pytest.param((500, 500), (900, 900), (910, 910), 1, id="above its totals"),
        pytest.param((500, 500), (500, 500), (10, 10), 0, id="at its totals"),
        pytest.param((0, 0), (30, 30), (40, 40), 0, id="never used"),
    ],
)
def test_a_user_who_returns_with_a_restart_continues_from_zero(
    before: tuple[int, int], returned: tuple[int, int], charged: tuple[int, int], epoch: int
) -> None:
    """Unless the counter is exactly as it was."""
    later = (returned[0] + 10, returned[1] + 10)
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (1_000, 1_000), BOB: before}),
        snapshot("01:00", {ALICE: (1_000, 1_000)}),
        snapshot("02:00", {ALICE: (20, 20), BOB: returned}),
        snapshot("03:00", {ALICE: (30, 30), BOB: later}),
    )
    uplink, downlink = charged
    assert books.charged() == (30 + uplink, 30 + downlink)
    assert books.rows[BOB].reset_epoch == epoch
    assert books.rows[BOB].totals == later
    assert books.rows[BOB].before_restart is None


def test_a_restart_that_was_passed_is_not_revoked_by_a_later_step() -> None:
    """The counters grew past their former totals, so the process did restart: all is charged."""
    books = Ledger()
    books.live(
        *(alice("00:00", 1_000, 1_000), alice("01:00", 300, 300), alice("02:00", 600, 600)),
        *(alice("03:00", 990, 990), alice("04:00", 1_010, 1_010), alice("05:00", 9_000, 9_000)),
    )
    assert books.charged() == (9_000, 9_000)
    assert books.successions == []


def test_a_user_absent_since_before_a_restart_that_was_none_goes_on() -> None:
    """Bob is charged the difference: the counters never began at zero."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (500, 500), BOB: (500, 500)}),
        *(alice("01:00", 500, 500), alice("02:00", 20, 20), alice("03:00", 30, 30)),
        alice("04:00", 600, 600),
        snapshot("05:00", {ALICE: (600, 600), BOB: (600, 600)}),
    )
    assert books.charged() == (200, 200)


def test_what_several_users_were_charged_beyond_is_absorbed_for_each() -> None:
    """Both have surplus once the restart is revoked, and both grow in the same minutes."""
    books = Ledger()
    books.live(
        *(
            snapshot(f"{minute:02}:00", {ALICE: (total, total), BOB: (total, total)})
            for minute, total in enumerate((1_000, 300, 600, 1_250, 1_350, 1_700))
        )
    )
    assert books.charged() == (1_400, 1_400)


def test_a_crowd_of_snapshots_does_not_keep_a_run_waiting() -> None:
    """A node sends more of them within a second than are looked at."""
    books = Ledger()
    books.run(alice("00:00", 300, 300))
    fallen = alice("02:00", 400, 400)
    crowd = [
        replace(fallen, collected_at=fallen.collected_at + place * timedelta(microseconds=1))
        for place in range(MOST_SUCCESSORS + 1)
    ]
    step = books.run(alice("00:00", 300, 300), alice("01:00", 500, 500), *crowd)
    assert not step.waits_for_successor
    assert books.charged() == (200 + 400, 200 + 400)


def test_a_real_restart_is_not_revoked_where_equal_steps_lead_to_the_former_totals() -> None:
    """A user with the same traffic every minute stops exactly there, and goes on."""
    books = Ledger()
    books.live(*(alice(f"{minute:02}:00", 10 * minute, minute) for minute in range(5)))
    books.live(*(alice(f"{5 + minute:02}:00", 10 * minute, minute) for minute in range(1, 8)))
    assert books.charged() == (40 + 70, 4 + 7)
    assert books.successions == []


def test_a_restart_that_is_revoked_by_a_stop_at_the_former_totals_is_uncertain() -> None:
    """A restart may also end exactly there: the gap states what is not charged then."""
    books = Ledger()
    books.live(*(alice(f"{at:02}:00", total, total) for at, total in enumerate((58, 31, 52, 58))))
    assert books.charged() == (52, 52)
    assert [(gap.kind, gap.uncertain_bytes) for gap in books.gaps] == [
        ("reset", 0),
        ("uncertain", 12),
    ]


def test_a_clock_that_was_set_back_while_nobody_collected_charges_nothing_twice() -> None:
    """The newer readings replaced some of the older ones: the others are out of order."""
    books = Ledger()
    books.run(alice("54:00", 880, 880))
    books.run(
        *(alice("54:00", 880, 880), alice("55:00", 890, 890), alice("56:00", 1_010, 1_010)),
        *(alice("57:00", 1_020, 1_020), alice("58:00", 940, 940), alice("59:00", 970, 970)),
        *(alice("59:30", 1_000, 1_000), alice("59:50", 1_060, 1_060)),
    )
    assert books.charged() == (180, 180)
    assert kinds(books) == ["disorder", "late"]


def test_a_user_who_is_idle_from_then_on_makes_no_restart_of_a_clock_that_was_set_back() -> None:
    """Bob is back at what he had counted earlier than Alice is, and not above it."""
    books = Ledger()
    books.run(snapshot("50:00", {ALICE: (800, 800), BOB: (10, 10)}))
    books.run(
        snapshot("50:00", {ALICE: (800, 800), BOB: (10, 10)}),
        snapshot("51:00", {ALICE: (1_000, 1_000), BOB: (30, 30)}),
        snapshot("52:00", {ALICE: (850, 850), BOB: (20, 20)}),
        snapshot("53:00", {ALICE: (900, 900), BOB: (30, 30)}),
        snapshot("54:00", {ALICE: (950, 950), BOB: (30, 30)}),
        snapshot("55:00", {ALICE: (1_050, 1_050), BOB: (30, 30)}),
    )
    assert books.charged() == (270, 270)
    assert kinds(books) == ["disorder", "late"]


@pytest.mark.parametrize("since", [5, 300])
def test_a_user_who_is_left_out_until_a_later_restart_is_owed_what_was_charged_since(
    since: int,
) -> None:
    """The totals of before the first restart, which was none, are of no counter any more."""
    books = Ledger()
    books.run_after_each(
        snapshot("00:00", {ALICE: (1_000, 1_000), BOB: (1_000, 1_000), CAROL: (1_000, 1_000)}),
        snapshot("01:00", {ALICE: (10, 10), BOB: (10, 10), CAROL: (since, since)}),
        snapshot("02:00", {ALICE: (15, 15), BOB: (16, 16)}),
        snapshot("03:00", {ALICE: (1_100, 1_100), BOB: (1_100, 1_100)}),
        snapshot("04:00", {ALICE: (3, 3), BOB: (4, 4)}),
        snapshot("05:00", {ALICE: (5, 5), BOB: (6, 6)}),
        snapshot("06:00", {ALICE: (5, 5), BOB: (6, 6), CAROL: (600, 600)}),
        snapshot("07:00", {ALICE: (5, 5), BOB: (6, 6), CAROL: (1_300, 1_300)}),
    )
    charged = sum(record.uplink_bytes for record in books.records if record.name == CAROL)
    assert charged == 1_300
    assert books.rows[CAROL].surplus is None


def test_a_user_who_is_left_out_makes_no_restart_of_a_clock_that_was_set_back() -> None:
    """Bob is missing from the snapshot in which Alice is back, and from an older one."""
    books = Ledger()
    books.run(snapshot("50:00", {ALICE: (800, 800), BOB: (10, 10)}))
    books.run(
        snapshot("50:00", {ALICE: (800, 800), BOB: (10, 10)}),
        snapshot("51:00", {ALICE: (1_000, 1_000), BOB: (30, 30)}),
        snapshot("52:00", {ALICE: (850, 850), BOB: (20, 20)}),
        snapshot("53:00", {ALICE: (900, 900)}),
        snapshot("54:00", {ALICE: (1_050, 1_050)}),
        snapshot("55:00", {ALICE: (1_060, 1_060), BOB: (40, 40)}),
    )
    assert books.charged() == (290, 290)


def test_a_clock_that_was_set_back_after_an_upgrade_charges_nothing_twice() -> None:
    """Nobody collected meanwhile: what is older is known of the new names as well."""
    merged = StreamName("", ALICE.sample_uuid)
    books = Ledger()
    books.run(alice("50:00", 880, 880))
    totals = (("51:00", 900), ("53:00", 1_200), ("54:00", 910), ("55:00", 920), ("56:00", 1_250))
    upgraded = [snapshot(clock, {merged: (total, total)}) for clock, total in totals]
    books.run(alice("50:00", 880, 880), *upgraded)
    assert books.charged() == (370, 370)


def test_an_older_reading_under_a_former_name_charges_nothing_twice() -> None:
    """The clock was set back with an upgrade: the last reading of before it comes by itself."""
    merged = StreamName("", ALICE.sample_uuid)
    books = Ledger()
    books.live(
        alice("00:00", 900, 900),
        snapshot("01:00", {merged: (1_000, 1_000)}),
        alice("02:00", 910, 910),
        snapshot("03:00", {merged: (1_100, 1_100)}),
        snapshot("04:00", {merged: (1_200, 1_200)}),
    )
    assert books.charged() == (300, 300)
    assert kinds(books) == ["disorder"]


def test_an_older_reading_right_before_an_upgrade_charges_nothing_twice() -> None:
    """All counters are back in the next snapshot, under names that are new in it."""
    merged = StreamName("", ALICE.sample_uuid)
    books = Ledger()
    books.live(
        *(alice("00:00", 900, 900), alice("01:00", 1_000, 1_000), alice("02:00", 910, 910)),
        *(snapshot("03:00", {merged: (1_100, 1_100)}), snapshot("04:00", {merged: (1_200, 1_200)})),
    )
    assert books.charged() == (300, 300)
    assert kinds(books) == ["disorder"]


@pytest.mark.parametrize(
    ("fallen", "after", "charged"),
    [
        ((40, 560), (50, 600), (50, 100)),
        ((560, 40), (600, 50), (100, 50)),
        ((40, 500), (50, 510), (50, 10)),
        ((500, 40), (510, 50), (10, 50)),
    ],
)
def test_one_counter_of_a_pair_that_decreases_restarts_alone(
    fallen: tuple[int, int], after: tuple[int, int], charged: tuple[int, int]
) -> None:
    """The other direction is charged by its difference, also where it stood still."""
    books = Ledger()
    books.live(alice("00:00", 500, 500), alice("01:00", *fallen), alice("02:00", *after))
    assert books.charged() == charged
    assert books.rows[ALICE].reset_epoch == books.resets == 1
    assert kinds(books) == ["reset"]
    assert books.records[0].from_at == after_noon("00:00")


def test_a_clock_that_is_set_back_after_a_restart_is_seen_in_the_same_run() -> None:
    """What is older has to be above the first totals of the new process, not above the former."""
    books = Ledger()
    books.run(
        *(alice("00:00", 1_000, 1_000), alice("01:00", 100, 100), alice("02:00", 200, 200)),
        *(alice("03:00", 150, 150), alice("04:00", 160, 160), alice("05:00", 250, 250)),
    )
    assert books.charged() == (250, 250)
    assert kinds(books) == ["reset", "disorder", "late"]


def test_one_stream_that_decreases_does_not_restart_the_others() -> None:
    """Most of the node's streams grow: the exporter reports a single counter wrongly."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (500, 500), BOB: (10**9, 10**9), CAROL: (10**9, 10**9)}),
        snapshot("01:00", {ALICE: (4, 4), BOB: (10**9 + 1, 10**9), CAROL: (10**9 + 1, 10**9)}),
        snapshot("02:00", {ALICE: (5, 5), BOB: (10**9 + 2, 10**9), CAROL: (10**9 + 2, 10**9)}),
    )
    assert books.charged() == (9, 5)


def test_a_crash_loop_is_charged_epoch_by_epoch() -> None:
    """Each restart is confirmed by the snapshot after it."""
    books = Ledger()
    books.live(
        *(alice("00:00", 9_000, 9_000), alice("01:00", 500, 500), alice("02:00", 70, 70)),
        *(alice("03:00", 8, 8), alice("04:00", 9, 9)),
    )
    assert books.charged() == (579, 579)
    assert books.rows[ALICE].reset_epoch == 3


def test_a_restart_and_a_rename_in_one_snapshot_start_at_zero() -> None:
    """Another stream shows the restart; the new name is charged in full."""
    books = Ledger()
    renamed = ALICE._replace(inbound_tag="")
    books.live(
        snapshot("00:00", {ALICE: (5, 5), BOB: (900, 900)}),
        snapshot("01:00", {renamed: (20, 20), BOB: (30, 30)}),
        snapshot("02:00", {renamed: (21, 21), BOB: (31, 31)}),
    )
    assert books.charged() == (52, 52)
    assert [one.bucket_start for one in books.records if one.name == renamed] == [
        after_noon("01:00"),
        after_noon("02:00"),
    ]


def test_a_stream_unchanged_by_a_restart_keeps_its_totals() -> None:
    """It returns with exactly its totals: it cannot have started again."""
    books = Ledger()
    books.live(
        snapshot("00:00", {ALICE: (500, 500), BOB: (70, 70)}),
        snapshot("01:00", {ALICE: (4, 4), BOB: (70, 70)}),
        snapshot("02:00", {ALICE: (5, 5), BOB: (70, 70)}),
    )
    assert books.charged() == (5, 5)
    assert books.rows[BOB].totals == Totals(70, 70)


def test_thousands_of_snapshots_in_a_second_do_not_keep_a_decision_waiting() -> None:
    """So many are looked at and no more, so that a hostile node makes nothing quadratic."""
    fallen = snapshot("01:00", {ALICE: (400, 400)})
    crowd = [
        replace(fallen, collected_at=fallen.collected_at + place * timedelta(microseconds=1))
        for place in range(1, MOST_SUCCESSORS + 1)
    ]
    earlier, floor = {ALICE: Totals(500, 500)}, {ALICE: Totals(300, 300)}
    few = judge([fallen, *crowd[:-1]], earlier, floor, 0, str, decide_now=False)
    many = judge([fallen, *crowd], earlier, floor, 0, str, decide_now=False)
    assert (few.kind, many.kind) == ("wait", "restart")
