"""Going on after an older writer: how its totals are split, and what is left to charge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.deltas import NodeState, advance
from billing_cli.core.model import Bucket, Checkpoint, Snapshot, StreamName, Totals
from billing_cli.core.takeover import (
    LegacyCheckpoint,
    beyond_charged,
    first_from_by_bucket,
    split_checkpoints,
)
from tests.unit.core.examples import examples
from tests.unit.core.stories import (
    ALICE,
    ALICE_TCP,
    BELIEVE_ALL,
    BOB,
    MERGED,
    NODE,
    after_noon,
    snapshot,
)
from tests.unit.core.tariffs import bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT_AT = after_noon("00:00")
KEY = bucket(1, minute=3).key


def left(uplink: int, downlink: int = 0) -> LegacyCheckpoint:
    """Return what an older writer left of an account at noon."""
    return LegacyCheckpoint(LEFT_AT, Totals(uplink, downlink))


def after(totals: Mapping[StreamName, Totals]) -> list[Snapshot]:
    """Return the first snapshot since then, with these totals."""
    return [Snapshot(after_noon("01:00"), NODE, totals)]


def split(older: tuple[int, int], *current: tuple[int, int]) -> list[tuple[int, int]]:
    """Return how an account's older totals are split over streams with the current ones."""
    names = [StreamName(f"inbound-{place}", ALICE.sample_uuid) for place in range(len(current))]
    totals = {name: Totals(*pair) for name, pair in zip(names, current, strict=True)}
    checkpoints = split_checkpoints(
        after(totals), dict.fromkeys(names, "alice"), {"alice": left(*older)}
    )
    assert checkpoints.keys() == set(names)
    assert {
        (checkpoint.seen_at, checkpoint.reset_epoch) for checkpoint in checkpoints.values()
    } == {(LEFT_AT, 0)}
    return [checkpoints[name].totals for name in names]


def test_an_account_with_one_stream_goes_on_from_the_older_totals() -> None:
    """There is nothing to split, so its figures are those of the older writer."""
    assert split((100, 40), (130, 50)) == [(100, 40)]


def test_an_only_stream_that_has_restarted_shows_it() -> None:
    """Its older totals are kept although they are above the current ones: that is the reset."""
    assert split((100, 40), (30, 50)) == [(100, 40)]


def test_totals_are_split_in_proportion_to_the_current_ones() -> None:
    """Each direction by itself, as each of them grew by itself."""
    assert split((90, 10), (100, 0), (50, 20), (30, 0)) == [(50, 0), (25, 10), (15, 0)]


def test_what_does_not_divide_goes_to_the_first_streams_that_have_room() -> None:
    """A stream whose counter stands at zero had no part of it."""
    assert split((2, 0), (0, 0), (1, 0), (1, 0), (1, 0)) == [(0, 0), (1, 0), (1, 0), (0, 0)]


def test_totals_that_are_still_the_current_ones_are_split_into_just_these() -> None:
    """Nothing flowed since, so nothing is charged."""
    assert split((6, 3), (1, 3), (5, 0)) == [(1, 3), (5, 0)]


def test_streams_at_zero_go_on_from_zero() -> None:
    """Where nothing has ever flowed in a direction there is nothing to be divided by."""
    assert split((0, 0), (0, 0), (0, 0)) == [(0, 0), (0, 0)]


@pytest.mark.parametrize("older", [(31, 5), (5, 31), (31, 31)])
def test_where_the_sum_has_fallen_each_stream_goes_on_from_zero(older: tuple[int, int]) -> None:
    """The counters restarted, in both directions at once, so all that they show is new."""
    assert split(older, (10, 10), (20, 20)) == [(0, 0), (0, 0)]


def test_a_single_byte_is_a_whole_to_be_split() -> None:
    """The smallest sum that can have restarted is one."""
    assert split((1, 0), (1, 0), (0, 0)) == [(1, 0), (0, 0)]
    assert split((2, 0), (1, 0), (0, 0)) == [(0, 0), (0, 0)]


def test_the_split_does_not_depend_on_the_order_of_a_snapshot() -> None:
    """A run that is done again, with samples in another order, takes over the same totals."""
    accounts = {ALICE: "alice", ALICE_TCP: "alice"}
    older = {"alice": left(3)}
    there = split_checkpoints(
        after({ALICE: Totals(2, 0), ALICE_TCP: Totals(2, 0)}), accounts, older
    )
    back = split_checkpoints(after({ALICE_TCP: Totals(2, 0), ALICE: Totals(2, 0)}), accounts, older)
    assert there == back
    assert there[ALICE_TCP].totals.uplink == 2


def test_each_account_has_its_own_totals_to_split() -> None:
    """One account's streams are no part of another's, however many each has."""
    first = BOB._replace(inbound_tag="")
    for bob in (first, BOB):
        checkpoints = split_checkpoints(
            after({bob: Totals(9, 9), ALICE: Totals(6, 0), ALICE_TCP: Totals(4, 0)}),
            {ALICE: "alice", ALICE_TCP: "alice", bob: "bob"},
            {"alice": left(5), "bob": left(7, 8)},
        )
        assert checkpoints == {
            ALICE: Checkpoint(LEFT_AT, Totals(3, 0)),
            ALICE_TCP: Checkpoint(LEFT_AT, Totals(2, 0)),
            bob: Checkpoint(LEFT_AT, Totals(7, 8)),
        }


def test_streams_that_the_older_writer_did_not_know_have_no_checkpoint() -> None:
    """Neither those of nobody nor those of an account without totals go on from anything."""
    carol = StreamName("xhttp", "33333333-3333-3333-3333-333333333333")
    checkpoints = split_checkpoints(
        after({ALICE: Totals(6, 0), BOB: Totals(9, 9), carol: Totals(1, 1)}),
        {ALICE: "alice", BOB: "bob"},
        {"alice": left(5)},
    )
    assert checkpoints == {ALICE: Checkpoint(LEFT_AT, Totals(5, 0))}


def first_step(
    older: LegacyCheckpoint, *snapshots: Snapshot
) -> tuple[dict[StreamName, Checkpoint], int]:
    """Return what an account's streams go on from, and the bytes up that the first run charges."""
    names = {name for snapshot in snapshots for name in snapshot.totals}
    accounts = {name: name.sample_uuid for name in names}
    checkpoints = split_checkpoints(snapshots, accounts, {ALICE.sample_uuid: older})
    node = NodeState(LEFT_AT, None, checkpoints)
    step = advance(node, snapshots, {}, BELIEVE_ALL, continuity_expected=False, decide_now=True)
    assert step.held == ()
    return checkpoints, sum(record.uplink_bytes for record in step.records)


def test_names_that_follow_others_in_the_first_step_continue_these() -> None:
    """An exporter upgrade in the backlog: the former names alone go on from the older totals."""
    checkpoints, charged = first_step(
        left(1_500, 1_500),
        snapshot("01:00", {ALICE: (1_000, 1_000), ALICE_TCP: (520, 520)}),
        snapshot("02:00", {MERGED: (1_530, 1_530)}),
        snapshot("03:00", {MERGED: (1_570, 1_570)}),
    )
    assert checkpoints.keys() == {ALICE, ALICE_TCP}
    assert charged == 70


def test_names_that_come_back_after_others_had_followed_them_are_no_part_of_the_totals() -> None:
    """The first names without a gap have the older totals, whatever comes later."""
    checkpoints, charged = first_step(
        left(1_000, 1_000),
        snapshot("01:00", {ALICE: (1_010, 1_010)}),
        snapshot("02:00", {MERGED: (1_020, 1_020)}),
        snapshot("03:00", {ALICE: (1_010, 1_010), ALICE_TCP: (5, 5), MERGED: (1_030, 1_030)}),
    )
    assert checkpoints == {ALICE: Checkpoint(LEFT_AT, Totals(1_000, 1_000))}
    assert charged == 35


def test_a_stream_that_is_first_there_later_has_its_part_of_the_totals() -> None:
    """Others of its account went on without a change, so that no name followed another."""
    checkpoints, charged = first_step(
        left(1_500, 1_500),
        snapshot("01:00", {ALICE: (1_000, 1_000)}),
        snapshot("02:00", {ALICE: (1_000, 1_000)}),
        snapshot("03:00", {BOB: (7, 7)}),
        snapshot("04:00", {ALICE: (1_010, 1_010), ALICE_TCP: (520, 520)}),
    )
    assert checkpoints.keys() == {ALICE, ALICE_TCP}
    assert charged == 30 + 7


def test_what_the_older_writer_applied_beyond_its_watermark_is_passed_over() -> None:
    """Its totals are those of the names there were when it read them, and of no earlier ones."""
    older = LegacyCheckpoint(after_noon("03:00"), Totals(1_600, 1_600))
    later = ALICE._replace(inbound_tag="grpc")
    checkpoints, charged = first_step(
        older,
        snapshot("01:00", {ALICE: (1_000, 1_000)}),
        snapshot("02:00", {ALICE_TCP: (540, 540)}),
        snapshot("03:00", {MERGED: (1_550, 1_550), later: (50, 50)}),
        snapshot("04:00", {MERGED: (1_570, 1_570), later: (50, 50)}),
    )
    assert {name: checkpoint.totals.uplink for name, checkpoint in checkpoints.items()} == {
        ALICE: 1_000,
        ALICE_TCP: 540,
        MERGED: 1_550,
        later: 50,
    }
    assert charged == 20


def test_totals_that_no_snapshot_has_reached_yet_charge_nothing() -> None:
    """The legacy writer read the streams after the last snapshot of the step."""
    older = LegacyCheckpoint(after_noon("05:00"), Totals(1_600, 1_600))
    _, charged = first_step(
        older,
        snapshot("01:00", {ALICE: (1_000, 1_000), ALICE_TCP: (500, 500)}),
        snapshot("02:00", {ALICE: (1_050, 1_050), ALICE_TCP: (520, 520)}),
    )
    assert charged == 0


counters = st.one_of(st.integers(0, 3), st.integers(0, 2**63 - 1))


@examples()
@given(st.lists(st.tuples(counters, counters), min_size=2, max_size=5), st.data())
def test_a_split_charges_just_what_flowed_since(
    current: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Going on from the split, the next snapshot tells no reset and just the growth."""
    sums = [sum(side) for side in zip(*current, strict=True)]
    older = (data.draw(st.integers(0, sums[0])), data.draw(st.integers(0, sums[1])))
    names = [StreamName(str(place), ALICE.sample_uuid) for place in range(len(current))]
    totals = {name: Totals(*pair) for name, pair in zip(names, current, strict=True)}
    snapshots = after(totals)
    checkpoints = split_checkpoints(snapshots, dict.fromkeys(names, "a"), {"a": left(*older)})
    node = NodeState(LEFT_AT, LEFT_AT, checkpoints)
    step = advance(node, snapshots, {}, BELIEVE_ALL, continuity_expected=False, decide_now=True)
    assert step.resets == 0
    told = [*step.records, *(delta.record for delta in step.held)]
    assert sum(one.uplink_bytes for one in told) == sums[0] - older[0]
    assert sum(one.downlink_bytes for one in told) == sums[1] - older[1]


def test_evidence_that_begins_within_the_minute_comes_on_top() -> None:
    """It starts from totals that hold the older writer's charge already."""
    ours = Bucket(KEY, 10, 20)
    for clock in ("03:00", "03:30"):
        assert beyond_charged(ours, Totals(10, 20), after_noon(clock)) == ("added", ours)


def test_evidence_of_the_same_bytes_is_a_replay() -> None:
    """Where it begins before the minute, it covers what was charged, and nothing is left."""
    overlap = beyond_charged(Bucket(KEY, 10, 20), Totals(10, 20), after_noon("02:59.999999"))
    assert overlap == ("identical", Bucket(KEY, 0, 0))


@pytest.mark.parametrize(
    ("charged", "surplus"),
    [
        ((9, 20), (1, 0)),
        ((10, 19), (0, 1)),
        ((4, 5), (6, 15)),
        ((11, 20), (0, 0)),
        ((10, 21), (0, 0)),
        ((0, 30), (10, 0)),
    ],
)
def test_of_a_minute_that_was_charged_differently_only_the_surplus_is_left(
    charged: tuple[int, int], surplus: tuple[int, int]
) -> None:
    """Each direction by itself, and what was charged too much is not taken back."""
    overlap = beyond_charged(Bucket(KEY, 10, 20), Totals(*charged), after_noon("02:00"))
    assert overlap == ("different", Bucket(KEY, *surplus))


def test_a_buckets_evidence_begins_with_its_earliest_record() -> None:
    """Several streams and epochs share a bucket, and come in any order."""
    other = KEY._replace(line_code="tcp")
    evidence = [(KEY, "02:10"), (other, "02:50"), (KEY, "02:05"), (KEY, "02:20")]
    assert first_from_by_bucket((key, after_noon(clock)) for key, clock in evidence) == {
        KEY: after_noon("02:05"),
        other: after_noon("02:50"),
    }
