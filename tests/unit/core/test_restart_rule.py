"""The restart rule by itself: what is decided about a snapshot by those that follow."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.changes import Changed, Changes
from billing_cli.core.model import Checkpoint, StreamName, Succession, SuccessionSide, Totals
from billing_cli.core.restart import (
    LONGEST_DISORDER,
    MOST_SUCCESSORS,
    Verdict,
    former_names,
    judge,
    judge_names,
    lost_behind,
    may_be_earlier,
)
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BOB,
    BOB_MERGED,
    MERGED,
    Counts,
    account_of,
    after_noon,
    snapshot,
    totals_of,
)

if TYPE_CHECKING:
    from billing_cli.core.model import Snapshot

Story = list[tuple[str, dict[StreamName, Counts]]]

RESTART, SINGLE, WAIT = Verdict("restart"), Verdict("single"), Verdict("wait")


def history(story: Story) -> list[Snapshot]:
    """Return snapshots at moments after noon."""
    return [snapshot(clock, totals) for clock, totals in story]


def alone(*totals: int | Counts) -> Story:
    """Return a snapshot every minute in which Alice alone has so much in both directions."""
    return [
        (f"{minute:02}:00", {ALICE: one if isinstance(one, tuple) else (one, one)})
        for minute, one in enumerate(totals)
    ]


def both(*pairs: tuple[int | None, int | None]) -> Story:
    """Return a snapshot every minute with the totals of Alice and Bob, None where left out."""
    return [
        (
            f"{minute:02}:00",
            {
                name: (one, one)
                for name, one in zip((ALICE, BOB), pair, strict=True)
                if one is not None
            },
        )
        for minute, pair in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("story", "floor", "verdict"),
    [
        pytest.param(alone(400), 300, WAIT, id="nothing follows yet"),
        pytest.param(alone(400, 500), 0, Verdict("disorder", 1), id="back in the next one"),
        pytest.param(alone(40, 90), 300, RESTART, id="below what is older"),
        pytest.param(alone(400, 410), 300, WAIT, id="may be older"),
        pytest.param(alone(400, 410), 0, RESTART, id="nothing older is known"),
        pytest.param(alone(400, 410, 600), 300, Verdict("disorder", 2), id="back in one step"),
        pytest.param(alone(400, 299, 600), 300, RESTART, id="one in between is below"),
        pytest.param(alone(400, 410, 600, 5), 300, Verdict("disorder", 2), id="falls again after"),
        pytest.param(
            [*alone(400, 410, 420), ("59:59", {ALICE: (430, 430)})], 300, WAIT, id="within an hour"
        ),
        pytest.param(
            [*alone(400, 410, 420), ("60:00", {ALICE: (430, 430)})], 300, RESTART, id="for an hour"
        ),
        pytest.param(alone((40, 40), (50, 700)), 0, SINGLE, id="the next one is above in one"),
        pytest.param(
            alone((40, 40), (50, 50), (60, 900)), 0, RESTART, id="the next one alone is asked"
        ),
        pytest.param(
            [*alone(40), ("01:00", {BOB: (1, 1)})], 0, RESTART, id="left out of the next one"
        ),
        pytest.param(alone((600, 40), (600, 50)), 0, SINGLE, id="one direction fell"),
        pytest.param(alone((500, 40), (500, 50)), 0, SINGLE, id="one direction stood still"),
    ],
)
def test_a_counter_that_fell(story: Story, floor: int, verdict: Verdict) -> None:
    """It was at 500; `floor` is what is known to be older."""
    decreased, older = totals_of({ALICE: (500, 500)}), totals_of({ALICE: (floor, floor)})
    found = judge(history(story), decreased, older, 0, account_of, decide_now=False)
    assert found == verdict


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        pytest.param(both((400, 400), (410, 410)), WAIT, id="none is back"),
        pytest.param(both((400, 400), (500, 410), (500, 500)), Verdict("disorder", 2), id="idle"),
        pytest.param(both((400, 400), (501, 410), (600, 600)), RESTART, id="one by one"),
        pytest.param(both((400, 400), (500, None)), Verdict("disorder", 1), id="one is left out"),
        pytest.param(both((400, 400), (None, None), (500, 500)), Verdict("disorder", 2), id="all"),
        pytest.param(both((400, 400), (None, 410), (500, 500)), Verdict("disorder", 2), id="later"),
        pytest.param(both((400, 400), (410, 299), (500, 500)), RESTART, id="below what is older"),
        pytest.param(both((400, 400), (410, None), (500, 500)), Verdict("disorder", 2), id="gone"),
    ],
)
def test_counters_of_two_users_that_fell(story: Story, verdict: Verdict) -> None:
    """Both were at 500, and never below 300 before: they must be back in one step."""
    decreased = totals_of({ALICE: (500, 500), BOB: (500, 500)})
    older = totals_of({ALICE: (300, 300), BOB: (300, 300)})
    found = judge(history(story), decreased, older, 0, account_of, decide_now=False)
    assert found == verdict


@pytest.mark.parametrize(
    ("names", "verdict"),
    [
        pytest.param(
            {MERGED: (500, 500), BOB_MERGED: (500, 500)}, Verdict("disorder", 1), id="yes"
        ),
        pytest.param({MERGED: (500, 500), BOB_MERGED: (500, 499)}, WAIT, id="one too small"),
        pytest.param({MERGED: (999, 999)}, WAIT, id="one has no name"),
        pytest.param(
            {ALICE: (410, 410), MERGED: (500, 500), BOB_MERGED: (500, 500)},
            WAIT,
            id="one is there and not back",
        ),
        pytest.param(
            {MERGED: (300, 100), ALICE_TCP: (200, 400), BOB_MERGED: (500, 500)},
            Verdict("disorder", 1),
            id="two names together",
        ),
    ],
)
def test_counters_that_fell_may_be_back_under_new_names(
    names: dict[StreamName, Counts], verdict: Verdict
) -> None:
    """Account by account, where none is left of the names that they had."""
    decreased = totals_of({ALICE: (500, 500), BOB: (500, 500)})
    older = totals_of({ALICE: (300, 300), BOB: (300, 300)})
    story = [*both((400, 400)), ("01:00", names)]
    found = judge(history(story), decreased, older, 0, account_of, decide_now=False)
    assert found == verdict


def test_names_that_were_there_already_hold_nothing_that_fell() -> None:
    """Only names that the snapshot with the decrease had not may go on with its counters."""
    decreased, older = totals_of({ALICE: (500, 500)}), totals_of({ALICE: (300, 300)})
    story: Story = [
        ("00:00", {ALICE: (400, 400), MERGED: (900, 900)}),
        ("01:00", {MERGED: (900, 900)}),
    ]
    assert judge(history(story), decreased, older, 0, account_of, decide_now=False) == WAIT


@pytest.mark.parametrize("floor", [{}, {ALICE: (0, 0)}, {ALICE: (401, 1)}])
def test_without_a_known_floor_no_reading_is_an_older_one(floor: dict[StreamName, Counts]) -> None:
    """A counter that was new, or nothing, may as well have restarted."""
    decreased = totals_of({ALICE: (500, 500)})
    found = judge(
        history(alone(400, 410)), decreased, totals_of(floor), 0, account_of, decide_now=False
    )
    assert found == RESTART


def test_an_older_reading_may_have_counted_in_one_direction_only() -> None:
    """Zero is above nothing, and no counter is below it."""
    decreased, older = totals_of({ALICE: (500, 0)}), totals_of({ALICE: (300, 0)})
    story = alone((400, 0), (410, 0))
    assert judge(history(story), decreased, older, 0, account_of, decide_now=False) == WAIT
    story = alone((40, 0), (41, 0))
    assert judge(history(story), decreased, older, 0, account_of, decide_now=False) == RESTART


def test_a_snapshot_that_has_to_decide_alone_waits_where_it_may_be_an_older_reading() -> None:
    """The next run has the totals before it as its floor, so that it decides."""
    decreased, older = totals_of({ALICE: (500, 500)}), totals_of({ALICE: (300, 300)})
    found = judge(history(alone(400)), decreased, older, 0, account_of, decide_now=True)
    assert found == WAIT
    found = judge(history(alone(400)), decreased, decreased, 0, account_of, decide_now=True)
    assert found == RESTART


@pytest.mark.parametrize(
    ("story", "earlier", "verdict"),
    [
        pytest.param(alone(400, 410, 600), 300, Verdict("disorder", 2), id="back at once"),
        pytest.param(alone(400, 410, 600), 405, RESTART, id="below the earlier totals"),
        pytest.param(alone(400, 410), 300, WAIT, id="not back yet"),
        pytest.param(alone(400, 410), 405, RESTART, id="not back, below the earlier totals"),
    ],
)
def test_totals_of_before_replace_a_floor_that_may_be_of_another_clock(
    story: Story, earlier: int, verdict: Verdict
) -> None:
    """A step begins among readings of two clocks; the history goes on after it."""
    decreased = totals_of({ALICE: (500, 500)})
    before = totals_of({ALICE: (earlier, earlier)})
    found = judge(
        history(story),
        decreased,
        decreased,
        0,
        account_of,
        decide_now=False,
        is_cut=True,
        earlier=before,
    )
    assert found == verdict
    assert (
        judge(history(story), decreased, decreased, 0, account_of, decide_now=False, is_cut=True)
        == RESTART
    )
    assert may_be_earlier(history(story), decreased, account_of, is_cut=True)


def test_earlier_totals_decide_nothing_about_a_history_that_goes_on_to_now() -> None:
    """A run that waited for each restart of a busy node would charge it an hour late."""
    decreased, before = totals_of({ALICE: (500, 500)}), totals_of({ALICE: (300, 300)})
    story = history(alone(400, 410))
    found = judge(story, decreased, decreased, 0, account_of, decide_now=False, earlier=before)
    assert found == RESTART


@pytest.mark.parametrize(
    ("story", "is_cut", "may_be"),
    [
        pytest.param(alone(400, 410, 600), False, True, id="back later"),
        pytest.param(alone(400, 600), False, False, id="back in the next one"),
        pytest.param(alone(400, 410), False, False, id="not back"),
        pytest.param(alone(400, 410), True, True, id="not back, and cut"),
        pytest.param(both((400, 400), (501, 410), (600, 600)), True, False, id="one by one"),
    ],
)
def test_what_totals_of_before_can_tell_about(story: Story, is_cut: bool, may_be: bool) -> None:
    """Only counters that are back at once later, or may be."""
    decreased = totals_of({ALICE: (500, 500), BOB: (500, 500)})
    assert may_be_earlier(history(story), decreased, account_of, is_cut=is_cut) == may_be


def test_what_the_end_of_a_step_leaves_open_is_left_to_the_next() -> None:
    """But not longer than earlier readings can last."""
    decreased = totals_of({ALICE: (500, 500)})
    verdicts = [
        judge(
            history(story),
            decreased,
            decreased,
            0,
            account_of,
            decide_now=False,
            has_more=True,
        )
        for story in (
            alone(40, 50),
            [*alone(40, 50), ("60:00", {ALICE: (60, 60)})],
        )
    ]
    assert verdicts == [WAIT, RESTART]


@pytest.mark.parametrize(("grown", "verdict"), [(1, RESTART), (2, SINGLE)])
def test_a_counter_restarts_alone_where_most_others_grow(grown: int, verdict: Verdict) -> None:
    """As many that grow are no majority."""
    decreased = totals_of({ALICE: (500, 500)})
    found = judge(history(alone(40, 50)), decreased, {}, grown, account_of, decide_now=False)
    assert found == verdict


def test_an_hour_of_snapshots_is_looked_at() -> None:
    """Of an exporter with one every 15 seconds."""
    assert MOST_SUCCESSORS * timedelta(seconds=15) == LONGEST_DISORDER == timedelta(hours=1)


def checkpoint(totals: Counts, state: str = "active") -> Checkpoint:
    """Return the checkpoint of a stream."""
    return Checkpoint(after_noon("00:00"), Totals(*totals), state=state)  # type: ignore[arg-type]


def test_names_that_return_are_former_ones_where_no_name_is_left() -> None:
    """Beside a name that stays, only new ones may be."""
    known = {ALICE: checkpoint((5, 5)), MERGED: checkpoint((9, 9)), BOB: checkpoint((1, 1))}
    changes = Changes(
        returned=[Changed(ALICE, known[ALICE], Totals(6, 6))],
        new=totals_of({ALICE_TCP: (3, 3)}),
        gone=totals_of({MERGED: (9, 9)}),
    )
    assert former_names(changes, known, {ALICE}) == {ALICE_TCP: (3, 3)}
    changes.gone[BOB] = Totals(1, 1)
    assert former_names(changes, known, {ALICE}) == {ALICE_TCP: (3, 3), ALICE: (6, 6)}


@pytest.mark.parametrize(
    ("totals", "state", "former", "ended", "is_lost"),
    [
        pytest.param((5, 5), "active", ALICE_TCP, BOB, True, id="lost"),
        pytest.param((5, 0), "active", ALICE_TCP, BOB, True, id="one direction"),
        pytest.param((0, 0), "active", ALICE_TCP, BOB, False, id="nothing was counted"),
        pytest.param((5, 5), "duplicate", ALICE_TCP, BOB, False, id="not charged"),
        pytest.param((5, 5), "active", BOB, BOB, False, id="another account"),
        pytest.param((5, 5), "active", ALICE_TCP, ALICE, False, id="continued"),
    ],
)
def test_what_is_gone_and_continues_nowhere_is_lost(
    totals: Counts, state: str, former: StreamName, ended: StreamName, *, is_lost: bool
) -> None:
    """In the accounts that go by former names."""
    side = SuccessionSide(ended, Totals(1, 1))
    successions = [Succession("renamed", after_noon("01:00"), (side,), (side,))]
    changes = Changes(gone=totals_of({ALICE: totals}))
    known = {ALICE: checkpoint(totals, state)}
    found = lost_behind({former}, changes, successions, known, account_of)
    assert found == ({ALICE: totals} if is_lost else {})


OLD = {ALICE: (110, 110), BOB: (110, 110)}
BACK = {MERGED: (500, 500), BOB_MERGED: (500, 500)}


@pytest.mark.parametrize(
    ("story", "verdict"),
    [
        pytest.param([("00:00", OLD)], WAIT, id="nothing follows yet"),
        pytest.param([("00:00", {**OLD, BOB: (501, 1)})], SINGLE, id="no older one counted more"),
        pytest.param([("00:00", OLD), ("01:00", OLD)], SINGLE, id="they stay"),
        pytest.param([("00:00", OLD), ("01:00", BACK)], Verdict("disorder", 1), id="back at once"),
        pytest.param(
            [("00:00", OLD), ("01:00", OLD), ("02:00", BACK)], Verdict("disorder", 2), id="later"
        ),
        pytest.param([("00:00", OLD), ("60:00", BACK)], Verdict("disorder", 1), id="in an hour"),
        pytest.param([("00:00", OLD), ("60:01", BACK)], SINGLE, id="too late"),
        pytest.param(
            [("00:00", OLD), ("30:00", OLD), ("60:01", BACK)], SINGLE, id="too late since the first"
        ),
        pytest.param(
            [("00:00", OLD), ("01:00", {**BACK, BOB_MERGED: (500, 499)})], SINGLE, id="too small"
        ),
        pytest.param([("00:00", OLD), ("01:00", {MERGED: (500, 500)})], SINGLE, id="one is back"),
        pytest.param(
            [("00:00", OLD), ("01:00", {BOB_MERGED: (1, 1)}), ("02:00", BACK)],
            SINGLE,
            id="one was there in between",
        ),
        pytest.param(
            [("00:00", {**OLD, BOB: (501, 1)}), ("01:00", BACK)],
            SINGLE,
            id="counted more than lost",
        ),
        pytest.param(
            [("00:00", {**OLD, BOB: (500, 500)}), ("01:00", BACK)],
            Verdict("disorder", 1),
            id="counted as much as lost",
        ),
        pytest.param(
            [("00:00", {**OLD, ALICE: (300, 1), ALICE_TCP: (201, 1)}), ("01:00", BACK)],
            SINGLE,
            id="two names counted more",
        ),
        pytest.param(
            [("00:00", {ALICE: (110, 110)}), ("01:00", BACK)],
            Verdict("disorder", 1),
            id="one is left out",
        ),
        pytest.param(
            [("00:00", OLD), ("01:00", {**OLD, ALICE: (501, 501)}), ("02:00", BACK)],
            SINGLE,
            id="one in between counted more",
        ),
        pytest.param(
            [("00:00", {**OLD, ALICE._replace(inbound_tag="x"): (900, 900)}), ("01:00", BACK)],
            Verdict("disorder", 1),
            id="another name counted more",
        ),
    ],
)
def test_former_names_that_hide_later_ones(story: Story, verdict: Verdict) -> None:
    """They are older readings where the later names are back at once, as they were."""
    lost, former = totals_of(BACK), {ALICE, ALICE_TCP, BOB}
    found = judge_names(history(story), lost, former, account_of, decide_now=False)
    assert found == verdict


def test_former_names_do_not_wait_where_it_is_decided_now() -> None:
    """Each stream goes on by itself then."""
    lost = totals_of(BACK)
    found = judge_names(history([("00:00", OLD)]), lost, {ALICE, BOB}, account_of, decide_now=True)
    assert found == SINGLE


@pytest.mark.parametrize(("last", "verdict"), [("59:59", WAIT), ("60:00", SINGLE)])
def test_former_names_at_the_end_of_a_step_are_left_to_the_next(
    last: str, verdict: Verdict
) -> None:
    """But not longer than earlier readings can last."""
    lost = totals_of(BACK)
    story = history([("00:00", OLD), (last, OLD)])
    found = judge_names(story, lost, {ALICE, BOB}, account_of, decide_now=False, has_more=True)
    assert found == verdict
