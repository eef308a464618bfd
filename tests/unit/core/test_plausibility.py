"""The plausibility limit: what an account and a node can have moved is charged, more is held."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_cli.core.model import MAX_TOTAL, DeltaPolicy, StreamName
from billing_cli.core.plausibility import CreditBook, Debt, NodeCredit, plausible_bytes
from tests.unit.core.examples import examples
from tests.unit.core.stories import ALICE, ALICE_TCP, BOB, Ledger, alice, snapshot

KILOBYTE = 8_000
POLICY = DeltaPolicy(
    account_rate_bits_per_second=KILOBYTE, line_rate_bits_per_second=2 * KILOBYTE, burst_hours=1
)
CAPACITY = 3_600_000
START = datetime(2026, 4, 8, 12, tzinfo=UTC)


def ledger(**changes: float) -> Ledger:
    """Return a ledger with a kilobyte a second for an account and two for the node."""
    accounts = {one.sample_uuid: one.sample_uuid for one in (ALICE, BOB)}
    return Ledger(replace(POLICY, **changes), accounts)  # type: ignore[arg-type]


def reasons(books: Ledger) -> list[tuple[StreamName, str, int]]:
    """Return what is held, as (stream, reason, bytes)."""
    return [(one.record.name, one.reason, one.record.total_bytes) for one in books.held]


def test_credit_starts_at_zero_with_the_baseline_and_grows_with_the_stamps() -> None:
    """A minute after its baseline, an account can have moved a minute's worth."""
    books = ledger()
    books.live(alice("00:00", 0), alice("01:00", 60_000), alice("02:00", 240_001))
    assert books.charged() == (60_000, 0)
    assert reasons(books) == [(ALICE, "account_rate", 180_001)]


def test_a_spliced_connection_that_closes_after_an_hour_is_charged() -> None:
    """Credit is kept for as long as the burst: silence saves it up."""
    books = ledger()
    idle = [alice(f"{minute:02}:00", 0) for minute in range(60)]
    books.live(*idle, alice("60:00", 3_600_000))
    assert books.charged() == (3_600_000, 0)
    assert books.held == []


def test_credit_is_never_more_than_the_burst() -> None:
    """A stamp of long ago makes no room for anything."""
    books = ledger(burst_hours=0.01)
    books.live(alice("00:00", 0), alice("50:00", 36_001))
    assert reasons(books) == [(ALICE, "account_rate", 36_001)]


def test_charged_bytes_consume_credit_and_held_ones_do_not() -> None:
    """After a minute that is held, what the account can have moved is charged as ever."""
    books = ledger()
    books.live(alice("00:00", 0), alice("10:00", 600_001), alice("11:00", 1_260_001))
    assert reasons(books) == [(ALICE, "account_rate", 600_001)]
    assert books.charged() == (660_000, 0)


@pytest.mark.parametrize("streams", [1, 100, 5_000])
def test_the_number_of_names_makes_no_difference(streams: int) -> None:
    """An account has one limit on a node, however many inbound tags are invented for it."""
    books = ledger()
    names = [StreamName(f"tag-{number}", ALICE.sample_uuid) for number in range(streams)]
    share = 60_001 // streams + 1
    books.live(
        snapshot("00:00", {BOB: (0, 0)}),
        snapshot("01:00", {BOB: (0, 0), **dict.fromkeys(names, (share, 0))}),
    )
    assert books.charged() == (0, 0)
    assert {one.reason for one in books.held} == {"account_rate"}
    assert len(books.held) == streams


def test_the_number_of_snapshots_makes_no_difference() -> None:
    """There is no minimum for a snapshot: stamps a millisecond apart bring no credit."""
    books = ledger()
    burst = [alice(f"01:00.{number:03}", number * 1_000) for number in range(100)]
    books.run_after_each(alice("00:00", 0), alice("00:59", 0), *burst)
    assert books.charged()[0] <= 60_099


def test_above_the_nodes_rate_the_nodes_minute_is_held() -> None:
    """Each account is within its own rate, but not all of them within the line's."""
    books = ledger(line_rate_bits_per_second=KILOBYTE)
    books.run_after_each(
        snapshot("00:00", {ALICE: (0, 0), BOB: (0, 0)}),
        snapshot("01:00", {ALICE: (40_000, 0), BOB: (40_000, 0)}),
        snapshot("02:00", {ALICE: (50_000, 0), BOB: (50_000, 0)}),
    )
    assert reasons(books) == [(ALICE, "line_rate", 40_000), (BOB, "line_rate", 40_000)]
    assert books.charged() == (20_000, 0)


def test_an_account_above_its_rate_does_not_hold_the_others() -> None:
    """Only the minute of that account is held, with all of its streams."""
    books = ledger()
    books.run_after_each(
        snapshot("00:00", {ALICE: (0, 0), ALICE_TCP: (0, 0), BOB: (0, 0)}),
        snapshot("01:00", {ALICE: (60_000, 0), ALICE_TCP: (1, 0), BOB: (7, 0)}),
    )
    assert {name for name, _, _ in reasons(books)} == {ALICE, ALICE_TCP}
    assert [record.name for record in books.records] == [BOB]


def test_credit_does_not_depend_on_how_a_history_is_cut_into_runs() -> None:
    """The state that is kept between runs carries the whole limit of the node."""
    history = [alice(f"{minute:02}:00", minute * 59_000) for minute in range(20)]
    history.append(alice("21:00", 19 * 59_000 + 140_000))
    at_once, live = ledger(account_rate_bits_per_second=0), ledger(account_rate_bits_per_second=0)
    at_once.run(*history)
    live.run_after_each(*history)
    assert live.records == at_once.records
    assert live.held == at_once.held
    assert live.node.credit == at_once.node.credit


def test_a_rate_of_zero_disables_the_limit() -> None:
    """Then whatever the counters say is charged, up to the largest counter."""
    books = ledger(account_rate_bits_per_second=0, line_rate_bits_per_second=0)
    books.run_after_each(alice("00:00", 0), alice("01:00", MAX_TOTAL))
    assert books.charged() == (MAX_TOTAL, 0)


def test_one_compromised_node_charges_its_line_rate_at_most() -> None:
    """Whatever it sends for an hour: at most the burst once and the rate for the time."""
    books = ledger(account_rate_bits_per_second=0)
    history = [alice("00:00", 0)]
    total = 0
    for minute in range(1, 60):
        total += 10**6 if minute % 3 else 10**9
        history.append(alice(f"{minute:02}:00", total))
    books.run_after_each(*history)
    assert books.charged()[0] <= 2 * CAPACITY + 2_000 * 59 * 60
    assert books.held


def test_more_than_a_bigint_is_held_without_any_limit() -> None:
    """Two counters that both jump over their whole range have no sum that can be stored."""
    books = ledger(account_rate_bits_per_second=0, line_rate_bits_per_second=0)
    books.run_after_each(alice("00:00", 0), snapshot("01:00", {ALICE: (MAX_TOTAL, MAX_TOTAL)}))
    assert reasons(books) == [(ALICE, "account_rate", 2 * MAX_TOTAL)]


@examples()
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 900), st.sampled_from("ab"), st.integers(0, 400_000), st.booleans()
        ),
        max_size=30,
    )
)
def test_minutes_and_corrections_together_stay_within_the_credit(
    steps: list[tuple[int, str, int, bool]],
) -> None:
    """Whatever is charged by collect or found by reconcile, no more than what the rate allows.

    Between any two moments that is the capacity and what grew since; a debt of up to a minute may
    be forgotten.
    """
    policy = replace(POLICY, burst_hours=0.1)
    at, book, charged = START, CreditBook(policy, NodeCredit()), []
    for seconds, account, size_bytes, is_correction in steps:
        at += timedelta(seconds=seconds)
        if is_correction:
            is_charged = book.spend(account, size_bytes, at)
        else:
            held, all_held = book.admit({account: size_bytes}, at)
            is_charged = not (held or all_held)
        if is_charged:
            charged.append((at, account, size_bytes))
    for first, (since, account, _) in enumerate(charged):
        for names, rate in (({account}, 1_000), ({"a", "b"}, 2_000)):
            total = 0
            for moment, name, size_bytes in charged[first:]:
                total += size_bytes if name in names else 0
                assert total <= rate * (360 + 60 + (moment - since).total_seconds())


def test_what_an_account_can_have_moved_is_its_rate_up_to_the_burst() -> None:
    """Without an earlier snapshot it is the burst; without a limit it is what can be stored."""
    hour = START + timedelta(hours=1)
    assert plausible_bytes(POLICY, START, START + timedelta(seconds=7)) == 7_000
    assert plausible_bytes(POLICY, START, START + timedelta(milliseconds=1.5)) == 1
    assert plausible_bytes(POLICY, START, hour + timedelta(hours=1)) == CAPACITY
    assert plausible_bytes(POLICY, None, hour) == CAPACITY
    assert plausible_bytes(POLICY, hour, START) == 0
    for rate, expected in ((0, MAX_TOTAL), (1, 450)):
        policy = replace(POLICY, account_rate_bits_per_second=rate)
        assert plausible_bytes(policy, None, hour) == expected


def test_bytes_that_are_found_later_consume_credit_as_far_as_it_reaches() -> None:
    """Of the account and of the node; too little of either, and nothing is consumed."""
    book = CreditBook(POLICY, NodeCredit())
    assert book.spend("a", CAPACITY, START)
    assert not book.spend("a", 1, START)
    assert book.spent == {"a": Debt(CAPACITY, START)}
    assert book.spend("a", 1_000, START + timedelta(seconds=1))
    assert book.spend("b", CAPACITY - 1_000, START + timedelta(seconds=1))
    assert book.spent_by_node == Debt(2 * CAPACITY - 2_000, START + timedelta(seconds=1))
    assert not book.spend("c", 2_001, START + timedelta(seconds=1))
    assert book.spend("c", 2_000, START + timedelta(seconds=1))
    assert book.spent["c"] == Debt(2_000, START + timedelta(seconds=1))


def test_bytes_that_are_found_later_consume_nothing_without_a_limit() -> None:
    """Of the account, of the node, or of both."""
    for account_rate, node_rate in ((0, KILOBYTE), (KILOBYTE, 0), (0, 0)):
        policy = replace(
            POLICY,
            account_rate_bits_per_second=account_rate,
            line_rate_bits_per_second=node_rate,
        )
        book = CreditBook(policy, NodeCredit())
        assert book.spend("a", 1, START)
        assert book.spent == ({"a": Debt(1, START)} if account_rate else {})
        assert book.spent_by_node == (Debt(1, START) if node_rate else None)
        assert book.spend("b", CAPACITY + 1, START) is (not account_rate and not node_rate)


def test_bytes_that_are_found_after_a_baseline_have_the_credit_since() -> None:
    """An account that has no debt of its own began with none."""
    book = CreditBook(POLICY, NodeCredit(since=START))
    at = START + timedelta(seconds=10)
    assert not book.spend("a", 10_001, at)
    assert book.spend("a", 10_000, at)


def test_a_debt_that_the_next_minute_pays_off_is_not_kept() -> None:
    """60 seconds at a kilobyte each."""
    for size_bytes, is_kept in ((60_000, False), (60_001, True)):
        book = CreditBook(POLICY, NodeCredit())
        book.admit({"a": size_bytes}, START)
        assert book.state(START).accounts == ({"a": Debt(size_bytes, START)} if is_kept else {})
