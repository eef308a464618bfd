"""What is remembered of the plausibility limits from one minute, and one run, to the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.core.plausibility import (
    FULL_CREDIT,
    CreditBook,
    Debt,
    NodeCredit,
    plausible_bytes,
)

KILOBYTE = 8_000
POLICY = DeltaPolicy(
    account_rate_bits_per_second=KILOBYTE, line_rate_bits_per_second=2 * KILOBYTE, burst_hours=1
)
CAPACITY = 3_600_000
NODE_CAPACITY = 2 * CAPACITY
MINUTE = 60_000
"""What an account can move in a minute, in bytes; a debt up to that is not kept."""

START = datetime(2026, 4, 8, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """Return a moment so many seconds after the start."""
    return START + timedelta(seconds=seconds)


def of_both(**changes: float) -> DeltaPolicy:
    """Return the policy with other figures."""
    return replace(POLICY, **changes)  # type: ignore[arg-type]


def next_run(book: CreditBook, at: datetime) -> CreditBook:
    """Return the book of a run that begins with what is remembered of another one."""
    return CreditBook(POLICY, book.state(at))


def test_a_fast_line_is_counted_in_whole_bytes_a_second() -> None:
    """Rates are exact, and no time makes no room."""
    fast = of_both(account_rate_bits_per_second=8_000_000)
    assert plausible_bytes(fast, START, after(1)) == 1_000_000
    assert plausible_bytes(fast, START, START) == 0


@pytest.mark.parametrize("limited", ["account_rate_bits_per_second", "line_rate_bits_per_second"])
def test_one_bit_a_second_is_a_limit(limited: str) -> None:
    """Only a rate of 0 is none: 450 bytes an hour are charged or found later, no more."""
    other = {"account_rate_bits_per_second": 0, "line_rate_bits_per_second": 0}
    policy = of_both(**{**other, limited: 1})
    is_of_account = limited.startswith("account")

    assert CreditBook(policy, FULL_CREDIT).admit({"a": 450}, START) == (set(), False)
    held, are_all_held = CreditBook(policy, FULL_CREDIT).admit({"a": 451}, START)
    assert (held, are_all_held) == (({"a"}, False) if is_of_account else (set(), True))

    book = CreditBook(policy, FULL_CREDIT)
    assert not book.spend("a", 451, START)
    assert book.spend("a", 450, START)
    assert not book.spend("a", 1, START)
    assert book.spent == ({"a": Debt(450, START)} if is_of_account else {})
    assert book.spent_by_node == (None if is_of_account else Debt(450, START))


def test_a_node_that_was_silent_may_use_its_whole_burst_in_a_minute() -> None:
    """To the byte; with one more, all of the minute is held."""
    policy = of_both(account_rate_bits_per_second=0)
    for size_bytes, are_all_held in ((NODE_CAPACITY, False), (NODE_CAPACITY + 1, True)):
        book = CreditBook(policy, FULL_CREDIT)
        assert book.admit({"a": size_bytes}, START) == (set(), are_all_held)


def test_a_small_debt_is_forgotten_within_a_run_as_between_runs() -> None:
    """So what is held does not depend on how a history is cut into runs."""
    for size_bytes, is_forgotten in ((MINUTE, True), (MINUTE + 1, False)):
        book = CreditBook(POLICY, FULL_CREDIT)
        book.admit({"a": size_bytes}, START)
        for one in (next_run(book, START), book):
            held, _ = one.admit({"a": CAPACITY}, START)
            assert held == (set() if is_forgotten else {"a"})


def test_a_small_debt_beyond_that_of_the_baseline_is_forgotten() -> None:
    """Ten minutes after the baseline, an account can have moved ten minutes' worth once more."""
    at = after(600)
    for size_bytes, is_forgotten in ((MINUTE, True), (MINUTE + 1, False)):
        book = CreditBook(POLICY, NodeCredit(since=START))
        book.admit({"a": size_bytes}, at)
        for one in (next_run(book, at), book):
            held, _ = one.admit({"a": 10 * MINUTE}, at)
            assert held == (set() if is_forgotten else {"a"})


def test_a_debt_that_became_small_is_forgotten_altogether() -> None:
    """Nothing of the former one comes back."""
    book = CreditBook(POLICY, FULL_CREDIT)
    book.admit({"a": MINUTE + 1}, START)
    book.admit({"a": 1}, after(60))
    assert book.admit({"a": CAPACITY}, after(60)) == (set(), False)


def test_a_debt_that_time_made_small_is_not_remembered() -> None:
    """An account without traffic leaves no row behind."""
    book = CreditBook(POLICY, FULL_CREDIT)
    book.admit({"a": MINUTE + 1_000}, START)
    assert book.state(START).accounts == {"a": Debt(MINUTE + 1_000, START)}
    assert book.state(after(0.999)).accounts == {"a": Debt(MINUTE + 1_000, START)}
    assert book.state(after(1)).accounts == {}


@pytest.mark.parametrize(("more", "is_kept"), [(MINUTE, False), (MINUTE + 1, True)])
def test_after_a_baseline_a_debt_is_remembered_by_what_it_is_more_than_others(
    more: int, *, is_kept: bool
) -> None:
    """Reconcile may have found a few bytes; every account has the baseline's debt."""
    at = after(600)
    debt = Debt(CAPACITY - 10 * MINUTE + more, at)
    book = CreditBook(POLICY, NodeCredit(accounts={"a": debt}, since=START))
    state = book.state(at)
    assert state.accounts == ({"a": debt} if is_kept else {})
    assert state.since == START


def test_nothing_is_remembered_of_a_debt_that_is_paid_off() -> None:
    """A node within its limits has no state, and the baseline is one of the past."""
    assert CreditBook(POLICY, FULL_CREDIT).state(START) == FULL_CREDIT

    book = CreditBook(POLICY, FULL_CREDIT)
    book.start(START)
    assert book.state(after(3_599)) == NodeCredit(Debt(2_000, after(3_599)), {}, START)
    assert book.state(after(3_600)) == FULL_CREDIT
