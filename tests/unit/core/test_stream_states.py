"""A restart that can be revoked: what streams regain, what they owe, and when it is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.core.changes import Changed, Changes
from billing_cli.core.model import Checkpoint, StreamName, Succession, SuccessionSide, Totals
from billing_cli.core.stream_states import StreamStates
from tests.unit.core.stories import ALICE, ALICE_TCP, BOB, Counts, after_noon, snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

CAROL = StreamName("x", "33333333-3333-3333-3333-333333333333")

BOB_TCP = StreamName("tcp", BOB.sample_uuid)

START, NOW = after_noon("00:00"), after_noon("05:00")
LONG_AGO = after_noon("-10:00")


def checkpoint(
    totals: Counts, before_restart: Counts | None = None, surplus: Counts | None = None
) -> Checkpoint:
    """Return where a stream stands that is present."""
    return Checkpoint(
        START,
        Totals(*totals),
        before_restart=None if before_restart is None else Totals(*before_restart),
        surplus=None if surplus is None else Totals(*surplus),
    )


def regained(
    streams: dict[StreamName, Checkpoint],
    now: dict[StreamName, Counts],
    renamed: Sequence[Succession] = (),
) -> list[tuple[dict[StreamName, Totals], bool]]:
    """Return what successions give back in a snapshot, and whether each is of surplus."""
    changed = [
        Changed(name, streams[name], Totals(*totals))
        for name, totals in now.items()
        if name in streams and totals != streams[name].totals
    ]
    states = StreamStates(streams, START)
    found = states.regained(snapshot("05:00", now), Changes(changed=changed), renamed)
    assert all(one.kind == "restart_revoked" and one.ended == one.continued for one in found)
    assert all(one.at == NOW for one in found)
    return [(dict(one.continued), one.is_surplus) for one in found]


@pytest.mark.parametrize(
    ("since", "now", "back"),
    [
        pytest.param((30, 30), (600, 600), (500, 500), id="no more than before the restart"),
        pytest.param((30, 30), (500, 500), (470, 470), id="no more than it grew"),
        pytest.param((30, 30), (499, 900), None, id="not back"),
        pytest.param((460, 460), (510, 510), None, id="grew past it"),
        pytest.param((450, 450), (500, 500), None, id="equal steps lead there"),
        pytest.param((450, 470), (500, 500), (50, 30), id="equal steps of one direction"),
        pytest.param((450, 500), (500, 500), (50, 0), id="one direction can't have stood still"),
        pytest.param((30, 900), (500, 500), None, id="back, but one direction fell to it"),
    ],
)
def test_a_restart_is_revoked_by_a_step_that_no_growth_makes(
    since: Counts, now: Counts, back: Counts | None
) -> None:
    """The stream was at 500 before it, and has counted `since` it."""
    found = regained({ALICE: checkpoint(since, (500, 500))}, {ALICE: now})
    assert found == ([] if back is None else [({ALICE: back}, False)])


def test_equal_steps_may_be_of_one_direction_alone() -> None:
    """The other one never counted."""
    assert regained({ALICE: checkpoint((40, 0), (50, 0))}, {ALICE: (50, 0)}) == []


@pytest.mark.parametrize(("since", "is_revoked"), [((0, 0), False), ((5, 0), True)])
def test_a_stream_that_is_left_out_tells_nothing_once_it_counted(
    since: Counts, *, is_revoked: bool
) -> None:
    """One that counted nothing since is still missing: the process did restart."""
    streams = {
        ALICE: checkpoint((30, 30), (500, 500)),
        BOB: checkpoint(since, (400, 400)),
    }
    assert bool(regained(streams, {ALICE: (600, 600)})) == is_revoked


@pytest.mark.parametrize(
    ("heir", "now", "is_revoked"),
    [
        pytest.param(ALICE_TCP, (400, 400), True, id="back"),
        pytest.param(ALICE_TCP, (400, 399), False, id="not back"),
        pytest.param(CAROL, (500, 500), True, id="back, with what was there"),
        pytest.param(CAROL, (499, 500), False, id="not back, with what was there"),
        pytest.param(BOB_TCP, (400, 400), True, id="back under a name of long ago"),
    ],
)
def test_streams_that_are_renamed_tell_as_much_as_others(
    heir: StreamName, now: Counts, *, is_revoked: bool
) -> None:
    """One stream that grew past its former totals in a step does not speak for them."""
    streams = {
        ALICE: checkpoint((30, 30), (500, 500)),
        BOB: checkpoint((20, 20), (400, 400)),
        CAROL: checkpoint((100, 100)),
        BOB_TCP: checkpoint((300, 300))._replace(seen_at=LONG_AGO),
    }
    renamed = [renaming(BOB, heir, (20, 20))]
    found = regained(streams, {ALICE: (600, 600), CAROL: (100, 100), heir: now}, renamed)
    assert bool(found) == is_revoked


def test_what_an_earlier_revocation_left_is_owed_as_well() -> None:
    """Both were charged before."""
    streams = {ALICE: checkpoint((30, 30), (500, 500), (50, 60))}
    assert regained(streams, {ALICE: (9_000, 9_000)}) == [({ALICE: (550, 560)}, False)]


@pytest.mark.parametrize(
    ("now", "taken", "back"),
    [
        pytest.param((80, 0), 0, (30, 0), id="what it grew"),
        pytest.param((900, 9), 0, (100, 0), id="no more than the surplus"),
        pytest.param((80, 0), 10, (20, 0), id="less what it takes over"),
        pytest.param((80, 0), 40, None, id="it takes over more"),
        pytest.param((50, 7), 0, None, id="the other direction grew"),
    ],
)
def test_surplus_is_absorbed_by_later_growth(now: Counts, taken: int, back: Counts | None) -> None:
    """100 bytes of uplink were charged beyond; the stream is at 50."""
    streams = {ALICE: checkpoint((50, 0), surplus=(100, 0)), BOB: checkpoint((taken, 0))}
    found = regained(streams, {ALICE: now}, [renaming(BOB, ALICE, (taken, 0))])
    assert found == ([] if back is None else [({ALICE: back}, True)])


def test_a_stream_without_surplus_regains_nothing_beside_one_that_has_some() -> None:
    """Its growth is charged."""
    streams = {ALICE: checkpoint((50, 0), surplus=(100, 0)), BOB: checkpoint((50, 0))}
    assert regained(streams, {BOB: (80, 0), ALICE: (51, 0)}) == [({ALICE: (1, 0)}, True)]


def renaming(name: StreamName, heir: StreamName, totals: Counts) -> Succession:
    """Return that a stream goes on under another name."""
    ended, continued = (SuccessionSide(side, Totals(*totals)) for side in (name, heir))
    return Succession("renamed", NOW, (ended,), (continued,))


def succession(name: StreamName, back: Counts, *, is_surplus: bool) -> Succession:
    """Return what gives a stream back so much."""
    side = SuccessionSide(name, Totals(*back))
    return Succession("restart_revoked", NOW, (side,), (side,), is_surplus=is_surplus)


def test_a_revoked_restart_leaves_what_was_charged_beyond_as_surplus() -> None:
    """Streams that are left out keep all of it; it can't be revoked a second time."""
    states = StreamStates(
        {ALICE: checkpoint((30, 30), (500, 500), (7, 8)), BOB: checkpoint((20, 20), (400, 400))},
        START,
    )
    assert states.revoke(succession(ALICE, (70, 90), is_surplus=False)) is True
    assert states.known[ALICE] == checkpoint((30, 30), None, (437, 418))
    assert states.known[BOB] == checkpoint((20, 20), None, (400, 400))
    assert not states.is_passed(snapshot("05:00", {BOB: (9_000, 9_000)}))
    assert states.changed(START) == states.known


def test_surplus_that_is_absorbed_leaves_the_last_restart_as_it_is() -> None:
    """That one can still be revoked."""
    states = StreamStates(
        {
            ALICE: checkpoint((30, 30), (500, 500), (100, 0)),
            BOB: checkpoint((20, 20), (400, 400)),
        },
        START,
    )
    assert states.revoke(succession(ALICE, (40, 0), is_surplus=True)) is False
    assert states.known[ALICE] == checkpoint((30, 30), (500, 500), (60, 0))
    assert states.known[BOB] == checkpoint((20, 20), (400, 400))
    assert states.is_passed(snapshot("05:00", {BOB: (401, 401)}))
    states.revoke(succession(ALICE, (60, 0), is_surplus=True))
    assert states.known[ALICE].surplus is None


@pytest.mark.parametrize(
    ("now", "is_passed"),
    [({ALICE: (501, 500)}, True), ({ALICE: (500, 500)}, False), ({ALICE: (499, 900)}, False)],
)
def test_a_stream_above_its_totals_before_a_restart_passed_them(
    now: dict[StreamName, Counts], *, is_passed: bool
) -> None:
    """In no direction below, and in one above."""
    states = StreamStates({ALICE: checkpoint((500, 500)), BOB: checkpoint((1, 1))}, START)
    states.restart([ALICE])
    assert states.known[ALICE] == checkpoint((0, 0), (500, 500))._replace(reset_epoch=1)
    assert states.is_passed(snapshot("05:00", {**now, BOB: (9, 9)})) == is_passed


def test_a_confirmed_restart_can_not_be_revoked() -> None:
    """The totals before it are forgotten, also in what is kept."""
    states = StreamStates({ALICE: checkpoint((500, 500))}, START)
    states.restart([ALICE])
    states.confirm_restart()
    now = snapshot("05:00", {ALICE: (600, 600)})
    assert states.known[ALICE].before_restart is None
    assert states.changed(START)[ALICE].before_restart is None
    assert not states.is_passed(now)
    assert states.regained(now, Changes(), []) == []


def test_present_streams_were_seen_with_the_last_samples_absent_ones_before() -> None:
    """Only those that changed are kept; without any samples each keeps its own stamp."""
    streams = {ALICE: checkpoint((5, 5)), BOB: checkpoint((7, 7))}
    states = StreamStates(streams, START)
    states.set(ALICE, checkpoint((6, 6)))
    assert states.changed(NOW) == {ALICE: checkpoint((6, 6))._replace(seen_at=NOW)}
    assert states.changed(None) == {ALICE: checkpoint((6, 6))}
    states.leave([ALICE], START)
    assert states.changed(NOW) == {ALICE: checkpoint((6, 6))}
    assert states.absent == {ALICE}


def pass_on(states: StreamStates, ended: StreamName, heir: StreamName, totals: Counts) -> None:
    """Apply a snapshot in which one stream continues another, and now has `totals`."""
    before = states.known.get(heir, checkpoint((0, 0)))
    side = SuccessionSide(heir, Totals(*totals))
    states.end(Succession("renamed", NOW, (SuccessionSide(ended, Totals(1, 1)),), (side,)))
    states.set(heir, before._replace(totals=Totals(*totals), state="active"))
    states.hand_over()


def test_a_former_name_that_comes_back_takes_over_what_can_be_revoked() -> None:
    """The stream was continued under another name, which restarted, and is continued by it."""
    former = checkpoint((20, 20))._replace(state="continued")
    states = StreamStates({ALICE: checkpoint((30, 30), (500, 500)), ALICE_TCP: former}, START)
    pass_on(states, ALICE, ALICE_TCP, (31, 31))
    assert states.known[ALICE_TCP].before_restart == Totals(500, 500)
    assert states.known[ALICE].before_restart is None
    assert states.is_passed(snapshot("05:00", {ALICE_TCP: (501, 501)}))


def test_a_name_that_was_given_up_shows_nothing_of_a_restart() -> None:
    """It is published again, beside the one that continues it."""
    states = StreamStates({ALICE: checkpoint((30, 30), (500, 500))}, START)
    pass_on(states, ALICE, ALICE_TCP, (31, 31))
    assert not states.is_passed(snapshot("05:00", {ALICE: (40, 40), ALICE_TCP: (50, 50)}))


def test_a_renamed_stream_that_a_restarted_one_joins_later_has_nothing_to_go_back_to() -> None:
    """It did not restart itself, whatever it continued alone before."""
    streams = {BOB: checkpoint((40, 40)), ALICE: checkpoint((30, 30), (500, 500))}
    states = StreamStates(streams, START)
    pass_on(states, BOB, ALICE_TCP, (41, 41))
    pass_on(states, ALICE, ALICE_TCP, (72, 72))
    assert states.known[ALICE_TCP].before_restart is None


def test_what_is_given_back_is_in_the_order_of_the_names() -> None:
    """Runs over the same snapshots write alike."""
    names = [StreamName(f"in-{number}", ALICE.sample_uuid) for number in range(10, 40)]
    states = StreamStates({name: checkpoint((30, 30), (500, 500)) for name in names}, START)
    now = snapshot("05:00", dict.fromkeys(names, (600, 600)))
    (found,) = states.regained(now, Changes(), [])
    assert [side.name for side in found.ended] == names
