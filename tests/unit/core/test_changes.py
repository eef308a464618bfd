"""What a snapshot changes, account by account: the input of successions and of the restart rule."""

from __future__ import annotations

import pytest

from billing_cli.core.changes import (
    Changed,
    Changes,
    account_changes,
    begin_again,
    compare,
    from_zero,
)
from billing_cli.core.model import Checkpoint, StreamName, Totals
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BOB,
    BOB_MERGED,
    MERGED,
    Counts,
    account_of,
    after_noon,
    known_at,
    snapshot,
    totals_of,
)


def changed(known: dict[StreamName, Checkpoint], now: dict[StreamName, Counts]) -> list[Changed]:
    """Return how known streams changed."""
    return [Changed(name, known[name], Totals(*totals)) for name, totals in now.items()]


def test_streams_are_new_gone_returned_or_changed() -> None:
    """Those that are as they were are none of it; absent ones are gone no second time."""
    names = [StreamName("x", str(number)) for number in range(5)]
    same, grown, gone, absent, returned = names
    known = {name: known_at((5, 5)) for name in names}
    now = snapshot("01:00", {same: (5, 5), grown: (6, 5), returned: (7, 5), ALICE: (1, 2)})
    changes = compare(now, known, {absent, returned}, None)
    assert changes.new == {ALICE: (1, 2)}
    assert changes.gone == {gone: (5, 5)}
    assert changes.changed == [(grown, known[grown], (6, 5))]
    assert changes.returned == [(returned, known[returned], (7, 5))]
    assert changes.decreased == {}
    assert changes.grown == 2


@pytest.mark.parametrize("now", [(4, 9), (9, 4)])
def test_a_counter_that_fell_in_one_direction_decreased(now: Counts) -> None:
    """Whether its stream was present or not."""
    known = {ALICE: known_at((5, 5)), BOB: known_at((5, 5)), ALICE_TCP: known_at((1, 1))}
    totals = {ALICE: now, BOB: now, ALICE_TCP: (2, 2)}
    changes = compare(snapshot("01:00", totals), known, {BOB}, None)
    assert changes.decreased == {ALICE: (5, 5), BOB: (5, 5)}
    assert changes.is_present_decreased
    assert changes.grown == 1
    del totals[ALICE]
    assert not compare(snapshot("01:00", totals), known, {BOB}, None).is_present_decreased


@pytest.mark.parametrize(
    ("before", "now", "restarted", "goes_on_from", "epoch"),
    [
        pytest.param(known_at((5, 5)), (9, 9), None, (5, 5), 3, id="no restart"),
        pytest.param(known_at((5, 5)), (9, 9), "00:01", (0, 0), 4, id="since a restart"),
        pytest.param(known_at((5, 5)), (9, 9), "00:00", (5, 5), 3, id="seen at the restart"),
        pytest.param(known_at((5, 5)), (5, 5), "00:01", (5, 5), 3, id="as it was"),
        pytest.param(known_at((0, 0)), (9, 9), "00:01", (0, 0), 3, id="never used"),
        pytest.param(
            known_at((5, 5), before_restart=(8, 8)), (9, 9), "00:01", (5, 5), 3, id="restarted"
        ),
    ],
)
def test_an_absent_stream_begins_at_zero_after_a_restart(
    before: Checkpoint, now: Counts, restarted: str | None, goes_on_from: Counts, epoch: int
) -> None:
    """In an epoch of its own, where it was not seen since."""
    at = None if restarted is None else after_noon(restarted)
    (stream,) = compare(snapshot("01:00", {ALICE: now}), {ALICE: before}, {ALICE}, at).returned
    assert (stream.before.totals, stream.before.reset_epoch) == (goes_on_from, epoch)


ROLLED_BACK = {ALICE: known_at((100, 100)), ALICE_TCP: known_at((50, 50))}


@pytest.mark.parametrize(
    ("between", "now", "begins", "uncertain"),
    [
        pytest.param((150, 150), (160, 160), True, {}, id="as much was counted in between"),
        pytest.param((900, 900), (901, 901), True, {}, id="more was counted in between"),
        pytest.param((149, 150), (160, 160), False, {account_of(ALICE): 1}, id="a little less"),
        pytest.param((900, 900), (160, 160), False, {}, id="not all of it is there"),
        pytest.param((90, 90), (95, 95), True, {}, id="below their own totals"),
    ],
)
def test_former_names_begin_again_where_they_take_over(
    between: Counts, now: Counts, uncertain: dict[str, int], *, begins: bool
) -> None:
    """Or go on from their own totals, where that charges less: then a gap says by how much."""
    known = {**ROLLED_BACK, MERGED: known_at(between)}
    returned = changed(known, {ALICE: (now[0] - 10, now[1] - 10), ALICE_TCP: (10, 10)})
    if now[0] > 100:
        returned[1] = returned[1]._replace(before=known_at((0, 0)))
    decreased = {} if now[0] > 100 else totals_of({ALICE: (100, 100), ALICE_TCP: (50, 50)})
    changes = Changes(returned=returned, gone=totals_of({MERGED: between}), decreased=decreased)
    begin_again(changes, known, account_of)
    first = changes.returned[0].before
    assert (first.totals, first.reset_epoch) == (((0, 0), 4) if begins else ((100, 100), 3))
    assert changes.uncertain == uncertain
    assert changes.decreased == {}


def begun(changes: Changes, known: dict[StreamName, Checkpoint]) -> set[StreamName]:
    """Return which streams begin again."""
    begin_again(changes, known, account_of)
    return {one.name for one in changes.returned if one.before.totals == (0, 0)}


def test_each_account_begins_again_by_itself() -> None:
    """One whose totals are not there hides no other, nor does one after the other."""
    carol = StreamName("x", "33333333-3333-3333-3333-333333333333")
    names = (BOB, ALICE, carol)
    known = {name: known_at((100, 100)) for name in names}
    gone = {name._replace(inbound_tag=""): (200, 200) for name in names}
    known |= {name: known_at(totals) for name, totals in gone.items()}
    for missing in names:
        now = {name: (1, 1) if name == missing else (201, 201) for name in names}
        changes = Changes(returned=changed(known, now), gone=totals_of(gone))
        assert begun(changes, known) == {*names} - {missing}


def test_names_that_return_beside_another_accounts_upgrade_go_on() -> None:
    """Nothing of their own account is gone, so that nothing of it is uncertain."""
    known = {ALICE: known_at((100, 100)), BOB: known_at((100, 100)), MERGED: known_at((200, 200))}
    changes = Changes(
        returned=changed(known, {ALICE: (201, 201), BOB: (101, 101)}),
        gone=totals_of({MERGED: (200, 200)}),
    )
    assert begun(changes, known) == {ALICE}
    assert changes.uncertain == {}


@pytest.mark.parametrize(("own", "between"), [("duplicate", "active"), ("active", "duplicate")])
def test_streams_that_are_not_charged_begin_nothing_again(own: str, between: str) -> None:
    """Neither as those that return, nor as those that are gone."""
    known = {ALICE: known_at((100, 100), state=own), MERGED: known_at((200, 200), state=between)}
    gone = totals_of({MERGED: (200, 200)})
    changes = Changes(returned=changed(known, {ALICE: (201, 201)}), gone=gone)
    assert begun(changes, known) == set()


@pytest.mark.parametrize(
    ("now", "state", "begins"),
    [
        pytest.param((3, 3), "active", True, id="it fell"),
        pytest.param((201, 201), "active", False, id="it grew"),
        pytest.param((3, 3), "duplicate", False, id="it is not charged"),
    ],
)
def test_former_names_take_over_from_one_that_fell(
    now: Counts, state: str, *, begins: bool
) -> None:
    """As well as from those that are gone."""
    known = {ALICE: known_at((100, 100)), MERGED: known_at((200, 200), state=state)}
    fell = totals_of({MERGED: (200, 200)}) if now < (200, 200) else {}
    changes = Changes(
        returned=changed(known, {ALICE: (201, 201)}),
        changed=changed(known, {MERGED: now}),
        decreased=fell,
    )
    assert begun(changes, known) == ({ALICE} if begins else set())


def parts(changes: Changes, known: dict[StreamName, Checkpoint]) -> list[tuple[object, ...]]:
    """Return what is gone, new and grown in each account of which something is gone."""
    found = account_changes(changes, known, account_of)
    return [(dict(one.gone), dict(one.new), dict(one.growth)) for one in found]


def test_a_succession_is_looked_for_in_each_account_of_which_a_stream_is_gone() -> None:
    """Among its new streams and those that grew."""
    known = {name: known_at((5, 5)) for name in (ALICE, ALICE_TCP, BOB)}
    changes = Changes(
        changed=changed(known, {ALICE_TCP: (7, 9), BOB: (8, 8)}),
        gone=totals_of({ALICE: (5, 5)}),
        new=totals_of({MERGED: (1, 2), BOB_MERGED: (3, 3)}),
    )
    assert parts(changes, known) == [({ALICE: (5, 5)}, {MERGED: (1, 2)}, {ALICE_TCP: (2, 4)})]


def test_streams_that_are_not_charged_take_no_part_in_a_succession() -> None:
    """Whatever stands behind them in the snapshot does."""
    known = {
        BOB: known_at((5, 5), state="duplicate"),
        ALICE: known_at((5, 5), state="duplicate"),
        ALICE_TCP: known_at((5, 5)),
        MERGED: known_at((5, 5)),
    }
    gone = totals_of({BOB: (5, 5), MERGED: (5, 5)})
    changes = Changes(changed=changed(known, {ALICE: (9, 9), ALICE_TCP: (7, 7)}), gone=gone)
    assert parts(changes, known) == [({MERGED: (5, 5)}, {}, {ALICE_TCP: (2, 2)})]


@pytest.mark.parametrize(
    ("new", "returned", "is_split"),
    [
        pytest.param({MERGED: (3, 3)}, None, True, id="beside a new stream"),
        pytest.param({}, (0, 0), True, id="beside one that begins again"),
        pytest.param({}, (1, 1), False, id="beside one that goes on"),
        pytest.param({BOB_MERGED: (3, 3)}, None, False, id="beside a new one of another account"),
    ],
)
def test_a_counter_that_fell_may_have_been_split(
    new: dict[StreamName, Counts], returned: Counts | None, *, is_split: bool
) -> None:
    """It is gone and new then, in an account with streams that begin."""
    known = {ALICE: known_at((5, 5)), ALICE_TCP: known_at(returned or (0, 0))}
    back = changed(known, {ALICE_TCP: (2, 2)}) if returned is not None else []
    changes = Changes(
        changed=changed(known, {ALICE: (4, 4)}),
        returned=back,
        new=totals_of(new),
        decreased=totals_of({ALICE: (5, 5)}),
    )
    found = parts(changes, known)
    assert bool(found) == is_split
    assert not found or (found[0][0], found[0][1]) == ({ALICE: (5, 5)}, {ALICE: (4, 4), **new})


@pytest.mark.parametrize(
    ("surplus", "totals", "owed"),
    [
        pytest.param((1_000, 1_000), (5, 7), (5, 7), id="no more than it charged"),
        pytest.param((5, 0), (7, 7), (5, 0), id="one direction"),
        pytest.param((5, 0), (0, 7), None, id="nothing of the other one"),
        pytest.param(None, (7, 7), None, id="nothing"),
    ],
)
def test_what_is_owed_after_a_restart_was_charged(
    surplus: Counts | None, totals: Counts, owed: Counts | None
) -> None:
    """The totals of before an earlier restart are of no counter any more."""
    stream = known_at(totals)._replace(surplus=surplus and Totals(*surplus))
    begun = from_zero(stream)
    assert (begun.totals, begun.reset_epoch) == ((0, 0), stream.reset_epoch + 1)
    assert begun.surplus == owed
