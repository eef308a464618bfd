"""History that is read again: which minutes of a cell it shows differently."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.corrections import Cell, Difference, differences
from billing_cli.core.history import read_history
from billing_cli.core.model import DeltaPolicy, Totals
from tests.unit.core.examples import examples
from tests.unit.core.stories import ALICE, BELIEVE_ALL, after_noon, record, snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

ZERO = (0, 0)


def cell(
    clocks: tuple[str, str],
    totals: tuple[tuple[int, int], tuple[int, int]],
    recorded: Mapping[str, tuple[int, int]] | None = None,
    *,
    before: tuple[int, int] | None = None,
) -> Cell:
    """Return a cell with what is on record by minute: as collected, where that is not said."""
    one = record(ALICE, clocks, *totals)
    by_minute = {one.bucket_start: Totals(one.uplink_bytes, one.downlink_bytes)}
    if recorded is not None:
        by_minute = {after_noon(clock): Totals(*pair) for clock, pair in recorded.items()}
    return Cell(one, Totals(*(before or totals[0])), by_minute)


def restarts(compared: Cell, seen: Sequence[tuple[datetime, Totals]]) -> dict[datetime, Totals]:
    """Return the stamps at which either counter is below its last value: both begin again."""
    record = compared.record
    inside = [(at, one) for at, one in seen if record.from_at < at < record.to_at]
    steps = pairwise([(record.from_at, compared.before), *inside, (record.to_at, record.end)])
    return {
        at: Totals(0, 0)
        for (_, before), (at, one) in steps
        if one[0] < before[0] or one[1] < before[1]
    }


def compare(
    compared: Cell, *history: tuple[str, tuple[int, int]], policy: DeltaPolicy = BELIEVE_ALL
) -> list[tuple[str, tuple[int, int], tuple[int, int]]] | None:
    """Return (minute, recorded, shown) of what differs, with minutes as after noon."""
    seen = [(after_noon(clock), Totals(*pair)) for clock, pair in history]
    found = differences(compared, seen, restarts(compared, seen), policy)
    if found is None:
        return None
    assert all(one.cell is compared for one in found)
    return [(f"{one.minute:%M:%S}", one.recorded, one.shown) for one in found]


BLURRED = cell(("10:30", "16:30"), ((100, 10), (700, 40)))


def test_snapshots_inside_a_cell_put_its_bytes_where_they_flowed() -> None:
    """Both ends stay, so what one minute gains the other loses."""
    assert compare(BLURRED, ("12:30", (400, 20)), ("14:30", (400, 20))) == [
        ("12:00", ZERO, (300, 10)),
        ("16:00", (600, 30), (300, 20)),
    ]


def test_a_cell_without_snapshots_inside_stands() -> None:
    """Its ends alone, and what lies around it, say nothing new."""
    history = [("09:00", (1, 1)), ("10:30", (100, 10)), ("16:30", (700, 40)), ("17:00", (900, 90))]
    assert compare(BLURRED, *history) == []
    assert compare(BLURRED) == []


def test_a_cell_without_snapshots_inside_stands_whatever_a_line_carries_today() -> None:
    """It was believed when it was charged; nothing is skipped, as nothing is compared."""
    slow = DeltaPolicy(account_rate_bits_per_second=8)
    assert compare(BLURRED, ("10:30", (100, 10)), ("16:30", (700, 40)), policy=slow) == []


def test_what_history_says_of_a_cells_beginning_is_not_asked() -> None:
    """The end of the cell before is that cell's own matter, and it may be of another epoch."""
    assert compare(BLURRED, ("10:30", (7, 7)), ("16:10", (500, 20))) == []
    assert compare(BLURRED, ("10:30", (7, 7)), ("15:00", (700, 40))) == [
        ("15:00", ZERO, (600, 30)),
        ("16:00", (600, 30), ZERO),
    ]


def test_a_cell_whose_end_is_told_differently_is_no_ground_for_a_conclusion() -> None:
    """History and evidence then speak of different counters."""
    for told in [(701, 40), (700, 41)]:
        assert compare(BLURRED, ("12:30", (400, 20)), ("16:30", told)) is None
        assert compare(BLURRED, ("16:30", told)) is None


def test_a_cell_that_history_shows_as_it_is_recorded_has_no_differences() -> None:
    """Snapshots inside the minute of the record alone change nothing."""
    assert compare(BLURRED, ("16:00", (300, 20)), ("16:30", (700, 40))) == []


def test_steps_within_one_minute_add_up() -> None:
    """A minute has one figure, whatever the number of snapshots in it."""
    history = [("12:10", (150, 11)), ("12:20", (170, 11)), ("12:30", (170, 14))]
    assert compare(BLURRED, *history) == [
        ("12:00", ZERO, (70, 4)),
        ("16:00", (600, 30), (530, 26)),
    ]


def test_bytes_of_one_direction_are_a_difference() -> None:
    """Neither direction needs the other to be seen."""
    assert compare(BLURRED, ("12:30", (100, 20))) == [
        ("12:00", ZERO, (0, 10)),
        ("16:00", (600, 30), (600, 20)),
    ]
    assert compare(BLURRED, ("12:30", (101, 10))) == [
        ("12:00", ZERO, (1, 0)),
        ("16:00", (600, 30), (599, 30)),
    ]


def test_a_minute_is_that_of_the_later_snapshot() -> None:
    """A step over a minute's boundary belongs to the minute in which it ends."""
    assert compare(BLURRED, ("13:00", (200, 10))) == [
        ("13:00", ZERO, (100, 0)),
        ("16:00", (600, 30), (500, 30)),
    ]


def test_a_restart_hidden_inside_a_cell_adds_its_bytes() -> None:
    """100, 180, (restart) 20, 150 is 80 + 20 + 130 bytes, where 50 were recorded."""
    hidden = cell(("10:30", "16:30"), ((100, 0), (150, 0)))
    assert compare(hidden, ("12:30", (180, 0)), ("14:30", (20, 0))) == [
        ("12:00", ZERO, (80, 0)),
        ("14:00", ZERO, (20, 0)),
        ("16:00", (50, 0), (130, 0)),
    ]


def test_either_counter_below_its_last_value_is_a_restart_of_both() -> None:
    """The rule is that of collecting."""
    for uplink, downlink in [(30, 200), (200, 30)]:
        hidden = cell(("10:30", "16:30"), ((100, 100), (300, 300)))
        assert compare(hidden, ("12:30", (uplink, downlink))) == [
            ("12:00", ZERO, (uplink, downlink)),
            ("16:00", (200, 200), (300 - uplink, 300 - downlink)),
        ]


def test_a_cell_behind_a_restart_begins_at_what_was_seen_before_it() -> None:
    """Its record starts at zero, but up to the restart the counters went on from there."""
    restarted = cell(("10:30", "16:30"), (ZERO, (50, 0)), before=(100, 0))
    assert compare(restarted, ("12:30", (130, 0)), ("14:30", (20, 0))) == [
        ("12:00", ZERO, (30, 0)),
        ("14:00", ZERO, (20, 0)),
        ("16:00", (50, 0), (30, 0)),
    ]


def test_a_restart_to_zero_has_no_bytes() -> None:
    """A minute in which nothing flowed is not named."""
    restarted = cell(("10:30", "16:30"), (ZERO, (50, 0)), before=(100, 0))
    assert compare(restarted, ("12:30", ZERO)) == []


def test_a_corrected_cell_has_no_more_differences() -> None:
    """What was appended counts as recorded, so a second comparison finds nothing."""
    corrected = cell(
        ("10:30", "16:30"),
        ((100, 10), (700, 40)),
        {"12:00": (300, 10), "16:00": (300, 20)},
    )
    assert compare(corrected, ("12:30", (400, 20)), ("14:30", (400, 20))) == []


def test_a_corrected_cell_is_not_forgotten_when_history_holds_less() -> None:
    """A minute that is on record and no longer shown was seen by an earlier comparison."""
    corrected = cell(
        ("10:30", "16:30"),
        ((100, 10), (700, 40)),
        {"12:00": (300, 10), "16:00": (300, 20)},
    )
    assert compare(corrected, ("14:30", (400, 20))) == []


def test_a_minute_that_history_now_shows_idle_keeps_its_bytes() -> None:
    """Where a later answer contradicts an earlier one, what was corrected once stays so."""
    corrected = cell(
        ("10:30", "16:30"),
        ((100, 10), (700, 40)),
        {"12:00": (300, 10), "16:00": (300, 20)},
    )
    assert compare(corrected, ("12:30", (100, 10)), ("14:30", (400, 20))) == []


def test_a_restart_that_history_no_longer_shows_is_not_forgotten() -> None:
    """Its bytes may be in minutes that are still shown: that there were more of them tells."""
    for recorded, history in [
        ({"16:00": (230, 0)}, [("16:20", (20, 0))]),
        ({"12:00": (100, 0), "16:00": (130, 0)}, [("12:40", (20, 0))]),
        ({"16:00": (230, 5)}, [("16:10", (180, 0)), ("16:20", (20, 0))]),
    ]:
        corrected = cell(("10:30", "16:30"), ((100, 0), (150, 0)), recorded)
        assert compare(corrected, *history) == []


def test_a_corrected_cell_can_be_corrected_further() -> None:
    """Where history shows all that was known, and more, the more is a difference."""
    corrected = cell(
        ("10:30", "16:30"),
        ((100, 10), (700, 40)),
        {"12:00": (300, 10), "16:00": (300, 20)},
    )
    assert compare(corrected, ("12:30", (400, 20)), ("14:30", (500, 20))) == [
        ("14:00", ZERO, (100, 0)),
        ("16:00", (300, 20), (200, 20)),
    ]


def test_a_minute_that_was_emptied_does_not_hold_further_corrections_back() -> None:
    """Its zero is on record, but there is nothing in it to be forgotten."""
    emptied = cell(
        ("10:30", "16:30"),
        ((100, 10), (700, 40)),
        {"12:00": (600, 30), "16:00": ZERO},
    )
    assert compare(emptied, ("12:10", (400, 20)), ("12:30", (700, 40))) == []
    assert compare(emptied, ("11:30", (200, 10)), ("12:30", (700, 40))) == [
        ("11:00", ZERO, (100, 0)),
        ("12:00", (600, 30), (500, 30)),
    ]


def test_a_cell_whose_only_minute_is_shown_empty_is_corrected() -> None:
    """Bytes that all flowed earlier leave the record's own minute without any."""
    assert compare(BLURRED, ("12:30", (700, 40))) == [
        ("12:00", ZERO, (600, 30)),
        ("16:00", (600, 30), ZERO),
    ]


def test_a_direction_that_did_not_restart_with_the_other_goes_on() -> None:
    """One counter of a pair began again inside the cell."""
    seen = [(after_noon("12:30"), Totals(400, 20)), (after_noon("14:30"), Totals(100, 30))]
    restarted = {after_noon("14:30"): Totals(0, 20)}
    found = differences(BLURRED, seen, restarted, BELIEVE_ALL)
    shown = [(one.minute, one.shown) for one in found or []]
    assert shown == [
        (after_noon("12:00"), Totals(300, 10)),
        (after_noon("14:00"), Totals(100, 10)),
        (after_noon("16:00"), Totals(600, 10)),
    ]


def test_a_decrease_that_is_no_restart_is_no_ground_for_a_conclusion() -> None:
    """History is out of order, or of another clock: the record stands."""
    seen = [(after_noon("12:30"), Totals(400, 20)), (after_noon("14:30"), Totals(300, 20))]
    assert differences(BLURRED, seen, {}, BELIEVE_ALL) is None


def test_differences_come_in_time_order() -> None:
    """Whatever is on record, and in whatever order it is handed over."""
    corrected = cell(
        ("10:30", "16:30"),
        ((0, 0), (90, 0)),
        {"16:00": (40, 0), "11:00": (50, 0)},
    )
    history = [("11:30", (10, 0)), ("13:30", (30, 0)), ("12:30", (20, 0))]
    found = compare(corrected, *sorted(history))
    assert found == [
        ("11:00", (50, 0), (10, 0)),
        ("12:00", ZERO, (10, 0)),
        ("13:00", ZERO, (10, 0)),
        ("16:00", (40, 0), (60, 0)),
    ]


KILOBYTE_A_SECOND = DeltaPolicy(account_rate_bits_per_second=8_000)


def test_a_step_that_fills_the_line_is_believed() -> None:
    """Both directions together, over the time since the snapshot before."""
    wide = cell(("10:00", "20:00"), (ZERO, (300_000, 300_000)))
    history = [("11:00", (30_000, 30_000)), ("13:00", (90_000, 90_000))]
    assert compare(wide, *history, policy=KILOBYTE_A_SECOND) == [
        ("11:00", ZERO, (30_000, 30_000)),
        ("13:00", ZERO, (60_000, 60_000)),
        ("20:00", (300_000, 300_000), (210_000, 210_000)),
    ]


def test_a_step_above_the_plausible_rate_is_no_ground_for_a_conclusion() -> None:
    """One byte too much in any step, be it the first, a middle or the last one."""
    wide = cell(("10:00", "20:00"), (ZERO, (300_000, 300_000)))
    for history in [
        [("11:00", (30_000, 30_001))],
        [("11:00", (30_000, 30_000)), ("13:00", (90_000, 90_001))],
        [("19:00", (270_000, 269_999))],
    ]:
        assert compare(wide, *history, policy=KILOBYTE_A_SECOND) is None
    one_byte = cell(("10:00", "20:00"), (ZERO, (1, 0)))
    bit_a_second = DeltaPolicy(account_rate_bits_per_second=1)
    assert compare(one_byte, ("10:01", (1, 0)), policy=bit_a_second) is None


totals = st.tuples(st.integers(0, 50), st.integers(0, 50))


@examples()
@given(st.lists(totals, min_size=1, max_size=8), totals, totals, st.data())
def test_no_byte_that_was_found_is_lost_by_comparing_with_less(
    seen: list[tuple[int, int]], start: tuple[int, int], end: tuple[int, int], data: st.DataObject
) -> None:
    """Whatever restarts there were, a part of the history can only confirm, or tell nothing."""
    is_restart = end[0] < start[0] or end[1] < start[1]
    whole = cell(("00:00", "05:00"), (ZERO if is_restart else start, end), before=start)
    history = [
        (after_noon(f"{place // 2:02}:{place % 2 * 30 + 5:02}"), Totals(*one))
        for place, one in enumerate(seen)
    ]
    part = [one for one in history if data.draw(st.booleans())]
    recorded = dict(whole.recorded)
    recorded.update(
        (difference.minute, difference.shown)
        for difference in differences(whole, history, restarts(whole, history), BELIEVE_ALL) or []
    )
    corrected = Cell(whole.record, whole.before, recorded)
    found = differences(corrected, part, restarts(whole, part), BELIEVE_ALL)
    assert found is not None
    assert sum(one.shown.uplink - one.recorded.uplink for one in found) == 0
    assert sum(one.shown.downlink - one.recorded.downlink for one in found) == 0


@examples()
@given(st.lists(totals, min_size=1, max_size=8))
def test_without_a_restart_a_cells_sum_stays(growths: list[tuple[int, int]]) -> None:
    """Bytes only move between minutes, and a second comparison finds nothing to move."""
    uplink = downlink = 0
    history = []
    for place, (up, down) in enumerate(growths):
        uplink, downlink = uplink + up, downlink + down
        history.append((after_noon(f"{place // 2 + 1:02}:{place % 2 * 30:02}"), (uplink, downlink)))
    end = history[-1][0]
    blurred = cell(("00:00", f"{end:%M:%S}"), (ZERO, (uplink, downlink)))
    told = [(at, Totals(*totals)) for at, totals in history]
    found = differences(blurred, told, {}, BELIEVE_ALL)
    assert found is not None
    assert sum(one.shown.uplink - one.recorded.uplink for one in found) == 0
    assert sum(one.shown.downlink - one.recorded.downlink for one in found) == 0
    recorded = dict(blurred.recorded)
    recorded.update((one.minute, one.shown) for one in found)
    again = Cell(blurred.record, blurred.before, recorded)
    assert differences(again, told, {}, BELIEVE_ALL) == []


def test_a_difference_names_its_cell_and_its_figures() -> None:
    """That is all that a correction is made of."""
    told = [(after_noon("12:30"), Totals(700, 40))]
    first, second = differences(BLURRED, told, {}, BELIEVE_ALL) or []
    assert first == Difference(BLURRED, after_noon("12:00"), Totals(0, 0), Totals(600, 30))
    assert second == Difference(BLURRED, after_noon("16:00"), Totals(600, 30), Totals(0, 0))


SLOW = DeltaPolicy(account_rate_bits_per_second=8, burst_hours=1)
TAKEN_BACK = cell(("10:30", "13:30"), ((100, 10), (700, 40)), {"13:00": ZERO, "12:00": ZERO})


def test_a_cell_that_was_taken_back_is_charged_as_history_shows_it() -> None:
    """From what it has at both ends, whatever the record said, and nothing of what lies around."""
    around = (("10:00", (1, 1)), ("14:00", (999, 999)))
    assert compare(
        TAKEN_BACK,
        *(around[0], ("10:30", (120, 10)), ("12:30", (400, 20)), ("13:30", (690, 40)), around[1]),
    ) == [("12:00", ZERO, (280, 10)), ("13:00", ZERO, (290, 20))]
    assert compare(TAKEN_BACK, ("10:30", (100, 10)), ("13:30", (700, 40))) == [
        ("13:00", ZERO, (600, 30))
    ]


def test_a_cell_that_was_taken_back_begins_with_what_was_seen_where_history_has_less() -> None:
    """The totals that were seen at its begin are known."""
    assert compare(TAKEN_BACK, ("12:30", (400, 20)), ("13:30", (690, 40))) == [
        ("12:00", ZERO, (300, 10)),
        ("13:00", ZERO, (290, 20)),
    ]
    assert compare(TAKEN_BACK, ("13:30", (690, 40))) == [("13:00", ZERO, (590, 30))]


def test_nothing_is_said_of_a_cell_that_was_taken_back_where_history_lacks_its_end() -> None:
    """Or has nothing of it, or shows what can't be."""
    assert compare(TAKEN_BACK) is None
    assert compare(TAKEN_BACK, ("10:00", (1, 1)), ("14:00", (999, 999))) is None
    assert compare(TAKEN_BACK, ("10:30", (100, 10)), ("12:30", (400, 20))) is None
    fast = ("10:30", (100, 10)), ("11:30", (900, 10)), ("12:30", (5, 5)), ("13:30", (700, 40))
    assert compare(TAKEN_BACK, *fast, policy=SLOW) is None


def test_a_cell_that_was_taken_back_is_charged_again_in_any_steps() -> None:
    """As many bytes as were believed once: xray counts a spliced connection when it closes."""
    burst = ("12:30", (100, 10)), ("13:30", (700, 40))
    assert compare(TAKEN_BACK, ("10:30", (100, 10)), *burst, policy=SLOW) == [
        ("13:00", ZERO, (600, 30))
    ]
    assert compare(TAKEN_BACK, *burst, policy=SLOW) == [("13:00", ZERO, (600, 30))]
    assert compare(TAKEN_BACK, ("10:30", (99, 10)), *burst, policy=SLOW) is None


def test_a_cell_without_bytes_was_not_taken_back() -> None:
    """It stands where history has nothing inside."""
    nothing = cell(("10:30", "13:30"), ((100, 10), (100, 10)), {"13:00": ZERO})
    assert not nothing.is_reversed
    assert compare(nothing) == []


def test_a_cell_that_begins_at_zero_goes_on_from_other_names_that_late_history_shows() -> None:
    """An upgrade and a restart fell into one cell: only the snapshots inside tell them apart."""
    merged = ALICE._replace(inbound_tag="")
    names = {
        "00:00": (ALICE, 500),
        "01:10": (merged, 520),
        "02:10": (merged, 5),
        "03:10": (merged, 9),
    }
    told = [snapshot(clock, {name: (total, total)}) for clock, (name, total) in names.items()]
    history = read_history(told, {}, BELIEVE_ALL)
    blurred = Cell(
        record(merged, ("00:00", "03:10"), ZERO, (9, 9)),
        Totals(*ZERO),
        {after_noon("03:00"): Totals(9, 9)},
    )
    seen = [(one.collected_at, one.totals[merged]) for one in history.snapshots[1:]]
    found = differences(
        blurred, seen, history.restarts[merged], BELIEVE_ALL, history.continued[merged]
    )
    assert [(f"{one.minute:%M:%S}", one.shown) for one in found or []] == [
        ("01:00", (20, 20)),
        ("02:00", (5, 5)),
        ("03:00", (4, 4)),
    ]
