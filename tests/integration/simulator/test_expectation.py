from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_cli.simulator.carriers import total
from billing_cli.simulator.expectation import (
    Expected,
    expected_by_account,
    snapshots_read,
)
from billing_cli.simulator.oracle import accounts_by_uuid
from billing_cli.simulator.process import Bytes
from billing_cli.simulator.publication import as_counted, both, merged, retagged
from billing_cli.simulator.restarts import restarts_in
from billing_cli.simulator.scenarios.library import SCENARIOS
from billing_cli.simulator.scenarios.playing import SETTLE, Scenario, play
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from billing_cli.simulator.process import Process
    from billing_cli.simulator.traffic import Node, Snapshot, Stream

MINUTE = timedelta(minutes=1)
NAMINGS = (as_counted, merged, retagged({"tcp": "xhttp"}), both(as_counted, merged))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_perfect_biller_charges_what_is_expected(scenario: Scenario) -> None:
    """One who knows processes and true times takes differences of counters to the same sums.

    Σ of the counting processes = charged at most + every certain exemption, to the byte.
    """
    played = play(scenario)
    for moments in played.cuttings().values():
        charged = played.expected(moments)
        assert_conserved(played.fleet, played.node, charged)
        if scenario.name == "counter_misreported":
            continue
        read = snapshots_read(played.node, moments, SETTLE)
        perfect = perfect_bytes(played.fleet, played.node, read)
        for account, expected in charged.items():
            exempted = exempt(expected, "hidden_reset").plus(exempt(expected, "held"))
            assert perfect[account] == expected.high.plus(exempted)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_truth_is_conserved_whatever_happens(data: st.DataObject) -> None:
    """Upgrades, restarts, splices, resets, clocks and missed polls, in any order."""
    fleet = chaotic_fleet(data)
    node = fleet.nodes["jp-1"]
    moments = [fleet.start + n * MINUTE for n in range(0, 60, data.draw(st.integers(1, 9)))]
    read = snapshots_read(node, moments, timedelta())
    expected = expected_by_account(fleet, node, read)
    assert_conserved(fleet, node, expected)
    perfect = perfect_bytes(fleet, node, read)
    for account, one in expected.items():
        assert perfect[account] == one.high.plus(exempt(one, "hidden_reset"))
        assert one.is_exact == (one.low == one.high)
        assert min(one.low) >= 0


def test_an_exact_figure_allows_itself_and_an_interval_both_ends() -> None:
    """Each direction has bounds of its own."""
    exact, interval = Expected(Bytes(5, 6), Bytes(5, 6)), Expected(Bytes(1, 6), Bytes(5, 9))
    assert exact.allows(Bytes(5, 6))
    assert not exact.allows(Bytes(5, 7))
    assert interval.allows(Bytes(1, 9))
    assert not interval.allows(Bytes(6, 9))
    assert (exact.is_exact, interval.is_exact) == (True, False)


def test_a_biller_reads_closed_minutes_after_the_last_it_has_read() -> None:
    """A snapshot that is replaced behind its back is not read again; one to come is not yet."""
    node = Fleet().add_node("jp-1")
    node.truncates_stamps = node.takes_older_stamps = True
    taken = [node.snapshot(node.start + n * MINUTE) for n in range(3)]
    node.clock_error = -2 * MINUTE
    taken += [node.snapshot(node.start + n * MINUTE) for n in range(3, 6)]
    moments = [node.start + n * MINUTE + MINUTE / 2 for n in (1, 3, 6)]
    assert snapshots_read(node, moments, timedelta()) == [taken[0], taken[3], taken[2], taken[5]]


@pytest.mark.parametrize(
    ("totals", "visibility"),
    [
        ([[(9, 9), (9, 9)], [(1, 1), (20, 20)], [(2, 2), (30, 30)]], "shown"),
        (
            [[(9, 9), (9, 9), (9, 9)], [(1, 1), (20, 20), (20, 20)], [(2, 2), (30, 30), (30, 30)]],
            "ambiguous",
        ),
        ([[(9, 9), (9, 9)], [(1, 1), (1, 1)], [(2, 2), (30, 30)], [(10, 10), (40, 40)]], "shown"),
        ([[(9, 9), (9, 9)], [(9, 9), (20, 20)], [(9, 9), (30, 30)]], "hidden"),
        ([[(9, 9), (9, 9)], [(1, 1), (20, 20)], [(9, 9), (30, 30)]], "ambiguous"),
        ([[(9, 9), (9, 9)], [(1, 9), (1, 9)], [(2, 9), (2, 9)]], "ambiguous"),
        ([[(9, 9), (9, 9)], [(1, 1), (1, 1)], [(2, 2), (2, 2)], [(9, 9), (9, 9)]], "ambiguous"),
    ],
)
def test_a_restart_shows_where_a_stream_stays_below_in_both_directions(
    totals: Sequence[Sequence[tuple[int, int]]], visibility: str
) -> None:
    """Decision 6 looks at the next snapshot too, and at whether all is back in one step."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    streams = [node.add_stream(fleet.add_user().uuid) for _ in totals[0]]
    for minute, wanted in enumerate(totals):
        if minute == 1:
            node.restart_xray(fleet.start + minute * MINUTE)
        for stream, (uplink, downlink) in zip(streams, wanted, strict=True):
            node.flow(stream, uplink - stream.uplink_total, downlink - stream.downlink_total)
        node.snapshot(fleet.start + minute * MINUTE)
    (restart,) = restarts_in(node.snapshots)
    assert restart.visibility == visibility


def test_a_restart_is_not_hidden_before_all_streams_are_back() -> None:
    """The one that comes back first is above its earlier totals; those still to come decide."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    first, second = (node.add_stream(fleet.add_user().uuid) for _ in range(2))
    node.flow(first, 9, 9)
    node.flow(second, 9, 9)
    node.snapshot(fleet.start)
    node.restart_xray(fleet.start + MINUTE, drop_counters=True)
    node.snapshot(fleet.start + MINUTE)
    node.flow(first, 20, 20)
    node.snapshot(fleet.start + 2 * MINUTE)
    (restart,) = restarts_in(node.snapshots)
    assert restart.visibility == "ambiguous"


@pytest.mark.parametrize(("downlink", "low"), [(1, (4, 10)), (9, (4, 9))])
def test_one_direction_may_go_on_at_an_upgrade_with_a_restart(
    downlink: int, low: tuple[int, int]
) -> None:
    """A direction that passed its former total hides that one; one that fell hides nothing."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    stream = node.add_stream(fleet.add_user().uuid)
    node.snapshot(fleet.start)
    node.flow(stream, 2, 9)
    node.snapshot(fleet.start + MINUTE)
    node.restart_xray(fleet.start + MINUTE)
    node.naming = retagged({})
    node.flow(stream, 4, downlink)
    node.snapshot(fleet.start + 2 * MINUTE)
    (expected,) = expected_by_account(fleet, node, node.snapshots).values()
    assert (expected.low, expected.high) == (Bytes(*low), Bytes(6, 9 + downlink))


@pytest.mark.parametrize(("line_bytes", "low"), [(2, 9 + 7), (6, 9 + 11 - 9)])
def test_a_line_that_begins_with_a_restart_looks_like_a_part_of_a_split_counter(
    line_bytes: int, low: int
) -> None:
    """Where the account's counters together are above their former totals, the least is charged."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    user = fleet.add_user()
    stream = node.add_stream(user.uuid)
    node.snapshot(fleet.start)
    node.flow(stream, 9, 9)
    node.snapshot(fleet.start + MINUTE)
    node.restart_xray(fleet.start + MINUTE)
    node.flow(stream, 5, 5)
    node.flow(node.add_stream(user.uuid, "line"), line_bytes, line_bytes)
    node.snapshot(fleet.start + 2 * MINUTE)
    node.snapshot(fleet.start + 3 * MINUTE)
    (expected,) = expected_by_account(fleet, node, node.snapshots).values()
    assert (expected.low, expected.high.uplink) == (Bytes(low, low), 9 + 5 + line_bytes)


@pytest.mark.parametrize(("between", "low"), [((5, 5), (9 + 6, 9 + 6)), ((2, 8), (9 + 3, 9 + 9))])
def test_names_that_return_above_their_former_totals_may_go_on_from_them(
    between: tuple[int, int], low: tuple[int, int]
) -> None:
    """What they had counted is charged again at most; what was charged in between is known."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    stream = node.add_stream(fleet.add_user().uuid)
    node.snapshot(fleet.start)
    node.flow(stream, 9, 9)
    node.snapshot(fleet.start + MINUTE)
    node.restart_xray(fleet.start + MINUTE)
    node.naming = retagged({stream.name.inbound_tag: "other"})
    node.flow(stream, *between)
    node.snapshot(fleet.start + 2 * MINUTE)
    node.naming = as_counted
    node.flow(stream, *(10 - moved for moved in between))
    node.snapshot(fleet.start + 3 * MINUTE)
    (expected,) = expected_by_account(fleet, node, node.snapshots).values()
    assert (expected.low, expected.high) == (Bytes(*low), Bytes(19, 19))


def test_who_was_absent_since_a_restart_shows_none_that_follows() -> None:
    """An absent stream begins at zero with the others: its former totals are no evidence later."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    absent, grown, fallen = (node.add_stream(fleet.add_user().uuid) for _ in range(3))
    flows = [
        {absent: 90, grown: 90, fallen: 90},
        {grown: 1, fallen: 9},
        {absent: 1, grown: 2, fallen: 1},
        {absent: 1, grown: 1, fallen: 1},
    ]
    for minute, moved in enumerate(flows):
        if minute in {1, 2}:
            node.restart_xray(fleet.start + minute * MINUTE, drop_counters=True)
        for stream, size_bytes in moved.items():
            node.flow(stream, size_bytes, size_bytes)
        node.snapshot(fleet.start + minute * MINUTE)
    first, second = restarts_in(node.snapshots)
    assert first.visibility == "shown"
    assert absent.name in first.earlier
    assert absent.name not in second.earlier


def chaotic_fleet(data: st.DataObject) -> Fleet:
    """Return a node with three counters of two users to which a drawn sequence has happened."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    node.truncates_stamps = data.draw(st.booleans())
    node.takes_older_stamps = True
    alice, bob = fleet.add_user(), fleet.add_user()
    for uuid, tag in ((alice.uuid, "xhttp"), (alice.uuid, "tcp"), (bob.proxy_uuid, "xhttp")):
        node.add_stream(uuid, tag)
    now = fleet.start
    for action in data.draw(st.lists(st.sampled_from(ACTIONS), max_size=40)):
        if action in {"poll", "miss"}:
            now += MINUTE
        if action == "poll":
            node.snapshot(now)
        elif action in TO_NODE:
            TO_NODE[action](node, data, now)
        elif action in TO_STREAM:
            stream, amount = data.draw(st.sampled_from(node.streams)), data.draw(AMOUNTS)
            TO_STREAM[action](node.process, stream, amount)
    return fleet


AMOUNTS = st.sampled_from([0, 1, 7, 1000])
TO_STREAM: dict[str, Callable[[Process, Stream, int], None]] = {
    "flow": lambda process, stream, amount: process.flow(stream, amount, 3 * amount),
    "splice": lambda process, stream, amount: process.splice(stream, amount, amount),
    "close": lambda process, stream, _: process.close_splices(stream),
    "reset up": lambda process, stream, _: process.reset_counter(stream, "uplink"),
    "reset down": lambda process, stream, _: process.reset_counter(stream, "downlink"),
}
TO_NODE: dict[str, Callable[[Node, st.DataObject, datetime], None]] = {
    "restart": lambda node, _, now: node.restart_xray(now),
    "drop": lambda node, _, now: node.restart_xray(now, drop_counters=True),
    "upgrade": lambda node, data, _: setattr(node, "naming", data.draw(st.sampled_from(NAMINGS))),
    "clock": lambda node, data, _: setattr(
        node, "clock_error", data.draw(st.integers(-5, 5)) * MINUTE
    ),
    "lose": lambda node, _, now: node.lose_history(now),
}
ACTIONS = ("flow", "poll", "poll", "miss", *TO_STREAM, *TO_NODE)


def assert_conserved(fleet: Fleet, node: Node, expected: Mapping[str, Expected]) -> None:
    """Each byte that flowed is in the figure or in one certain exemption, and in no other."""
    flowed: defaultdict[str, Bytes] = defaultdict(Bytes)
    accounts = accounts_by_uuid(fleet)
    for stream in node.streams:
        account = accounts.get(stream.name.sample_uuid, stream.name.sample_uuid)
        flowed[account] = flowed[account].plus(stream.flowed())
    for account, one in expected.items():
        certain = total(item.bytes for item in one.exemptions if item.is_certain)
        assert one.high.plus(certain) == flowed[account]
        assert min(one.high) >= 0
        assert all(min(item.bytes) >= 0 for item in one.exemptions)
    assert expected.keys() == flowed.keys()


def perfect_bytes(fleet: Fleet, node: Node, read: Sequence[Snapshot]) -> dict[str, Bytes]:
    """Take differences of counters as one can who knows which process each reading is of."""
    accounts = accounts_by_uuid(fleet)
    charged: defaultdict[str, Bytes] = defaultdict(Bytes)
    in_true_order = sorted(read, key=lambda one: one.index)
    later = [one for one in in_true_order if one.index >= read[0].index] if read else []
    for stream in node.streams:
        account = accounts.get(stream.name.sample_uuid, stream.name.sample_uuid)
        known, life = [0, 0], (0, 0, 0)
        for snapshot in later:
            if not snapshot.holds(stream):
                continue
            totals = snapshot.totals[2 * stream.index : 2 * stream.index + 2]
            now = stream.life_at(snapshot.index, snapshot.restarts)
            for side in (0, 1):
                if (now[0], now[1 + side]) != (life[0], life[1 + side]):
                    known[side] = 0
            if snapshot is not later[0]:
                moved = Bytes(totals[0] - known[0], totals[1] - known[1])
                charged[account] = charged[account].plus(moved)
            known, life = list(totals), now
        charged[account] = charged[account].plus(Bytes())
    return charged


def exempt(expected: Expected, why: str) -> Bytes:
    """Return the bytes of the certain exemptions for one reason."""
    return total(
        exemption.bytes
        for exemption in expected.exemptions
        if exemption.why == why and exemption.is_certain
    )
