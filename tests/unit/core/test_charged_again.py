"""What was taken back is charged again as it was collected, also where totals were taken over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.core.corrections import Cell, differences
from billing_cli.core.history import read_history
from billing_cli.core.model import Totals
from billing_cli.core.succession import ZERO, taken_over
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BELIEVE_ALL,
    Ledger,
    after_noon,
    alice,
    record,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from billing_cli.core.model import Snapshot, Succession, UsageRecord


def both(clock: str, xhttp: int, tcp: int) -> Snapshot:
    """Return a snapshot with two streams of Alice, the same in both directions."""
    return snapshot(clock, {ALICE: (xhttp, xhttp), ALICE_TCP: (tcp, tcp)})


def one(clock: str, total: int) -> Snapshot:
    """Return a snapshot with one stream of Alice, the same in both directions."""
    return alice(clock, total, total)


MERGED = [both("00:00", 90, 50), both("01:00", 100, 50), one("02:00", 160), one("03:00", 165)]
REVOKED = [
    *(one("00:00", 1_000), one("01:00", 10), one("02:00", 15), one("03:00", 1_100)),
    one("04:00", 1_103),
]
ABSORBED = [
    *(one("00:00", 1_000), one("01:00", 10), one("02:00", 955), one("03:00", 1_000)),
    *(one("04:00", 1_900), one("05:00", 1_990), one("06:00", 1_997)),
]
RENAMED = [one("00:00", 500), snapshot("01:00", {ALICE_TCP: (520, 520)})]
RESTARTED = [one("00:00", 500), one("01:00", 20), one("02:00", 30)]


def collected(story: Sequence[Snapshot]) -> tuple[list[UsageRecord], list[Succession]]:
    """Return the records of a run over a story, and the successions that it found."""
    books = Ledger()
    books.run(story[0])
    books.run(*story, decide_now=True)
    return books.records, books.successions


def charged_again(
    taken_back: UsageRecord, history: Sequence[Snapshot], successions: Sequence[Succession] = ()
) -> dict[str, int] | None:
    """Return the uplink bytes by minute that history shows of a record that was taken back.

    Those of the downlink are as many.
    """
    inside = (one for one in successions if taken_back.from_at < one.at <= taken_back.to_at)
    read = read_history(history, {}, BELIEVE_ALL)
    with_it = (told for told in history if taken_back.name in told.totals)
    seen = [(told.collected_at, told.totals[taken_back.name]) for told in with_it]
    before = next((totals for at, totals in seen if at == taken_back.from_at), taken_back.start)
    is_restarted = taken_back.reset_epoch and not all(taken_back.start)
    cell = Cell(
        taken_back,
        before if is_restarted else taken_back.start,
        {},
        taken_over=taken_over(inside).get(taken_back.name, ZERO),
    )
    found = differences(
        cell,
        seen,
        read.restarts.get(taken_back.name, {}),
        BELIEVE_ALL,
        read.continued.get(taken_back.name, {}),
    )
    assert all(part.shown.uplink == part.shown.downlink for part in found or ())
    return None if found is None else {f"{part.minute:%M:%S}": part.shown.uplink for part in found}


@pytest.mark.parametrize(
    "story",
    [
        pytest.param(MERGED, id="a counter merged into another one"),
        pytest.param(RENAMED, id="a counter renamed"),
        pytest.param(REVOKED, id="a restart that was none"),
        pytest.param(ABSORBED, id="growth that absorbs what was charged beyond"),
        pytest.param(RESTARTED, id="a restart"),
    ],
)
def test_a_record_that_was_taken_back_is_charged_again_as_collected(
    story: list[Snapshot],
) -> None:
    """Whatever of the history before it is still read."""
    records, successions = collected(story)
    assert records
    for of in records:
        for begin in range(len(story)):
            history = story[begin:]
            if history[0].collected_at <= of.from_at:
                charged = {f"{of.bucket_start:%M:%S}": of.uplink_bytes}
                assert charged_again(of, history, successions) == charged


def test_a_late_snapshot_moves_what_was_taken_over_to_its_minute() -> None:
    """The counter goes on by itself first, and is merged afterwards."""
    (_, merged, _), successions = collected(MERGED)
    history = [*MERGED[:2], both("01:30", 102, 50), *MERGED[2:]]
    assert charged_again(merged, history, successions) == {"01:00": 2, "02:00": 8}


def test_nothing_is_concluded_where_history_does_not_show_when_it_was_taken_over() -> None:
    """The restart that was revoked is before what is read of the history."""
    (_, _, revoked, *_), successions = collected(REVOKED)
    cut = [REVOKED[2], one("02:30", 20), *REVOKED[3:]]
    assert charged_again(revoked, cut, successions) is None
    whole = [*REVOKED[:3], one("02:30", 20), *REVOKED[3:]]
    assert charged_again(revoked, whole, successions) == {"02:00": 5, "03:00": 80}


def test_a_history_with_another_end_says_itself_what_was_taken_over() -> None:
    """It is of other counters than those that were collected."""
    (_, merged, _), successions = collected(MERGED)
    alone = [one("01:00", 100), one("02:00", 170)]
    assert charged_again(merged, alone, successions) == {"02:00": 70}
    with_both = [both("01:00", 100, 50), one("02:00", 170)]
    assert charged_again(merged, with_both, successions) == {"02:00": 20}


def test_a_start_that_history_corrects_is_nothing_that_was_taken_over() -> None:
    """The bytes between the two totals of that moment move to the later minute."""
    corrected = [one("00:00", 100), one("01:00", 500), one("02:00", 5_100)]
    first = record(ALICE, ("00:00", "01:00"), (100, 100), (5_000, 5_000))
    assert charged_again(first, corrected) == {"01:00": 400}
    second = record(ALICE, ("01:00", "02:00"), (5_000, 5_000), (5_100, 5_100))
    assert charged_again(second, corrected) == {"02:00": 4_600}


def test_a_corrected_start_keeps_what_was_taken_over_after_it() -> None:
    """History does not show by itself that 50 were taken over: the evidence does."""
    (_, merged, _), successions = collected(MERGED)
    assert merged.start == Totals(150, 150)
    for start, charged in ((100, 10), (80, 30)):
        history = [one("01:00", start), one("02:00", 160)]
        assert charged_again(merged, history, successions) == {"02:00": charged}
        shown = [both("01:00", start, 50), one("02:00", 160)]
        assert charged_again(merged, shown, successions) == {"02:00": charged}


def test_history_may_show_more_that_was_taken_over_than_was_collected() -> None:
    """It is believed, and gives nothing back to the start."""
    (_, merged, _), successions = collected(MERGED)
    history = [both("01:00", 100, 55), one("02:00", 160)]
    assert charged_again(merged, history, successions) == {"02:00": 5}


def shown_of(
    cell: Cell,
    totals: Mapping[str, int],
    restarted: Sequence[str] = (),
    continued: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return what history shows of a cell, by totals, restarts and continuations by clock."""
    found = differences(
        cell,
        [(after_noon(clock), Totals(total, total)) for clock, total in totals.items()],
        {after_noon(clock): ZERO for clock in restarted},
        BELIEVE_ALL,
        {after_noon(clock): Totals(part, part) for clock, part in (continued or {}).items()},
    )
    return {f"{part.minute:%M:%S}": part.shown.uplink for part in found or ()}


def test_what_was_continued_where_the_record_begins_is_in_its_first_total() -> None:
    """It is none of what was taken over after that."""
    (_, merged, _), _ = collected(MERGED)
    cell = Cell(merged, merged.start, {}, taken_over=Totals(50, 50))
    continued = {"01:00": 30}
    assert shown_of(cell, {"01:00": 100, "02:00": 160}, continued=continued) == {"02:00": 10}


def test_a_restart_is_believed_where_history_has_the_begin_and_nothing_was_taken_over() -> None:
    """Else it may have been before; a total above the first one is no restart then."""
    restarted = record(ALICE, ("01:00", "02:00"), (0, 0), (600, 600), 1)
    cell = Cell(restarted, Totals(500, 500), {})
    assert shown_of(cell, {"01:00": 500, "02:00": 600}, ["02:00"]) == {"02:00": 600}
    (_, merged, _), _ = collected(MERGED)
    cell = Cell(merged, merged.start, {}, taken_over=Totals(50, 50))
    assert shown_of(cell, {"01:00": 100, "02:00": 160}, ["02:00"]) == {"02:00": 10}
    plain = record(ALICE, ("01:00", "02:00"), (100, 100), (160, 160))
    cell = Cell(plain, plain.start, {})
    only_inside = {"01:30": 130, "02:00": 160}
    assert shown_of(cell, only_inside, ["01:30"]) == {"01:00": 30, "02:00": 30}


def test_a_record_that_was_taken_back_in_part_is_reversed() -> None:
    """Also where bytes of it are left in a minute."""
    moved = record(ALICE, ("01:00", "02:00"), (0, 0), (60, 60))
    left = {after_noon("02:00"): Totals(20, 20)}
    assert Cell(moved, moved.start, left, has_reversal=True).is_reversed
    assert not Cell(moved, moved.start, left).is_reversed


def test_a_hidden_restart_that_was_none_adds_no_bytes_twice() -> None:
    """Inside a record that stands, its former totals are not charged again either."""
    stands = record(ALICE, ("00:00", "03:00"), (1_000, 1_000), (1_100, 1_100))
    cell = Cell(stands, stands.start, {after_noon("03:00"): Totals(100, 100)})
    for low in (0, 10):
        history = [one("00:00", 1_000), one("01:00", low), one("02:00", low), one("03:00", 1_100)]
        read = read_history(history, {}, BELIEVE_ALL)
        found = differences(
            cell,
            [(told.collected_at, told.totals[ALICE]) for told in history],
            read.restarts[ALICE],
            BELIEVE_ALL,
            read.continued[ALICE],
        )
        assert [part.shown.uplink for part in found or []] == ([10, 90] if low else [])
