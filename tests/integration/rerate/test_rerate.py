"""Re-rating on a real database: the difference to today's prices, once, as further entries."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.peak import PeakHours
from billing_cli.core.prices import NOT_CONFIGURED
from billing_cli.database.sources import try_lock_sources
from billing_cli.errors import ConfigurationError, UsageError
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.accounts import save_profile
from billing_cli.simulator.books import read_books
from tests.integration.database.stage import COUNT_BLOCKED, eventually
from tests.support.interruptions import interrupted_everywhere
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_cli.features.rerate.report import RerateResult
    from tests.support.story import Story

OLD, NEW = Decimal("0.001"), Decimal("0.003")
WHY = "the price list was not loaded"


class Billed:
    """Two users on two nodes, billed for five minutes at the old price."""

    MINUTES = 5

    def __init__(self, story: Story) -> None:
        self.users = [story.add_user(), story.add_user()]
        self.nodes = [story.add_node("jp-1"), story.add_node("us-1")]
        self.streams = [
            [node.add_stream(user.uuid, "xhttp") for user in self.users] for node in self.nodes
        ]
        story.price = OLD
        story.minute()
        for number in range(1, self.MINUTES + 1):
            story.minute(*self.moves(number))
        story.collect()
        self.until = story.now + MINUTE
        story.price = NEW

    def moves(self, number: int) -> list[Any]:
        """Return what flows in a minute: on the second node ten times as much."""
        return [
            (stream, number * 10 ** len(self.streams[:where]), number)
            for where, streams in enumerate(self.streams)
            for stream in streams
        ]


@pytest.fixture
def billed(story: Story) -> Billed:
    """Return a story in which the price was too low so far."""
    return Billed(story)


def run(story: Story, **options: Any) -> RerateResult:
    """Re-rate all that was told, or what the options say instead."""
    choices = {name: options.pop(name) for name in ("dry_run", "step_buckets") if name in options}
    order = {
        "since": START,
        "until": story.now + MINUTE,
        "pricing_rule_version": "v2",
        "reason": WHY,
        **options,
    }
    return rerate(story.context(), Order(**order), **choices)


def test_accounts_pay_what_the_new_price_would_have_cost(story: Story, billed: Billed) -> None:
    """The same bytes, three times the price: twice as much again is charged."""
    paid = [story.paid(user) for user in billed.users]
    result = run(story)
    assert [story.paid(user) for user in billed.users] == [3 * amount for amount in paid]
    assert (result.status, result.amount) == ("ok", 2 * sum(paid))
    assert (result.corrections, result.written_minutes) == (4 * Billed.MINUTES, 4 * Billed.MINUTES)
    assert [
        (account.account_uuid, account.corrections, account.amount) for account in result.accounts
    ] == sorted(
        (user.uuid, 2 * Billed.MINUTES, 2 * amount)
        for user, amount in zip(billed.users, paid, strict=True)
    )


@pytest.mark.usefixtures("billed")
def test_bytes_and_their_evidence_stay_what_they_are(story: Story) -> None:
    """Only money changes: buckets, records and quota tell the same as before."""
    queries = (
        "SELECT bucket_start, account_uuid, node_id, total_bytes FROM traffic_minute_buckets",
        "SELECT * FROM billing.usage_records",
        "SELECT remaining_included_quota FROM account_quota_states",
    )
    before = [sorted(story.rows(query)) for query in queries]
    run(story)
    assert [sorted(story.rows(query)) for query in queries] == before
    assert story.rows("SELECT sum(included_bytes) FROM billing.charges WHERE reason <> ''") == [
        (0,)
    ]


@pytest.mark.usefixtures("billed")
def test_entries_carry_the_version_and_the_reason(story: Story) -> None:
    """A reader of a bucket sees the version and the multiplier that hold for it now."""
    result = run(story)
    assert story.rows(
        "SELECT DISTINCT entry_type, pricing_rule_version, reason, run_id::text, price_per_byte"
        "  FROM billing.charges WHERE adjusts IS NOT NULL"
    ) == [("traffic_adjustment", "v2", WHY, result.run_id, NEW)]
    assert story.rows(
        "SELECT DISTINCT entry_type, pricing_rule_version, rated_bytes FROM billing_ledger"
        " WHERE entry_type <> 'traffic_charge'"
    ) == [("traffic_adjustment", "v2", 0)]
    assert story.rows("SELECT DISTINCT source_revision FROM traffic_minute_buckets") == [("v2",)]


@pytest.mark.usefixtures("billed")
def test_a_second_run_changes_nothing(story: Story) -> None:
    """Neither under the same version nor under another."""
    run(story)
    before = story.facts()
    for version in ("v2", "v3"):
        again = run(story, pricing_rule_version=version)
        assert again.status == "ok"
        assert (again.corrections, again.steps, again.accounts) == (0, 0, ())
    assert story.facts() == before


def test_a_lower_price_gives_money_back_and_ends_arrears(story: Story, billed: Billed) -> None:
    """The amount of the run is negative then."""
    for user in billed.users:
        story.top_up(user, Decimal("-4.85"))
    story.minute(*billed.moves(1))
    story.price = OLD
    story.collect()
    assert story.funds(billed.users[0]).balance < 0
    ((paid,),) = story.rows("SELECT -sum(amount_delta) FROM billing.charges")
    story.price = OLD / 10
    result = run(story)
    assert result.amount == -paid * 9 / 10
    assert story.rows("SELECT DISTINCT arrears, throttle_state FROM account_quota_states") == [
        (False, "normal")
    ]


@pytest.mark.usefixtures("billed")
def test_a_dry_run_tells_the_differences_and_writes_nothing(story: Story) -> None:
    """It finds the same that the run itself does then, and takes no lock."""
    before = story.facts()
    runs = story.rows("SELECT count(*) FROM billing.runs")
    with psycopg.connect(story.database_url) as other, other.transaction():
        other.execute("SELECT FROM account_quota_states FOR UPDATE")
        dry = run(story, dry_run=True)
    assert story.facts() == before
    assert story.rows("SELECT count(*) FROM billing.runs") == runs
    done = run(story)
    assert dry.dry_run
    assert (dry.accounts, dry.amount, dry.corrections) == (
        done.accounts,
        done.amount,
        done.corrections,
    )


@pytest.mark.usefixtures("billed")
def test_a_dry_run_that_fails_writes_nothing(story: Story) -> None:
    """Neither a row in the run history nor a failed run in the totals."""
    tables = ("SELECT * FROM billing.runs", "SELECT * FROM billing.totals")
    before = [story.rows(table) for table in tables]
    story.price = Decimal(0)
    with pytest.raises(ConfigurationError, match="no account has a price"):
        run(story, dry_run=True)
    assert [story.rows(table) for table in tables] == before


def test_only_the_minutes_of_the_range_change(story: Story, billed: Billed) -> None:
    """The range is half open, by the minute in which bytes were counted."""
    run(story, since=START + 2 * MINUTE, until=START + 4 * MINUTE)
    minutes = story.rows(
        "SELECT DISTINCT bucket_start FROM billing.charges WHERE adjusts IS NOT NULL ORDER BY 1"
    )
    assert minutes == [(START + 2 * MINUTE,), (START + 3 * MINUTE,)]
    assert run(story, since=billed.until, until=billed.until).corrections == 0


def test_only_the_accounts_that_are_named_change(story: Story, billed: Billed) -> None:
    """The others go on having paid the old price."""
    first, second = billed.users
    before = story.funds(second)
    result = run(story, account_uuids=(first.uuid,))
    assert [account.account_uuid for account in result.accounts] == [first.uuid]
    assert story.funds(second) == before


@pytest.mark.usefixtures("billed")
def test_only_the_sources_that_are_named_change(story: Story) -> None:
    """A source stands for its node; one that never answered has nothing to change."""
    story.add_node("de-1")
    assert run(story, source_ids=("de-1",)).corrections == 0
    run(story, source_ids=("us-1",))
    assert story.rows(
        "SELECT DISTINCT stored_node_id FROM billing.charges WHERE adjusts IS NOT NULL"
    ) == [("prod:us-1.svc.plus",)]


def test_each_account_is_charged_by_its_own_profile(story: Story, billed: Billed) -> None:
    """As collect would: the profile's price and multipliers, where it has them."""
    first, second = billed.users
    paid = {user.uuid: story.paid(user) for user in billed.users}
    save_profile(story.connection, first.uuid, price_per_byte=0.01, line_multiplier=1.5)
    run(story)
    assert story.paid(first) == paid[first.uuid] / OLD * Decimal("0.015")
    assert story.paid(second) == paid[second.uuid] / OLD * NEW
    assert story.rows(
        "SELECT DISTINCT multiplier FROM traffic_minute_buckets WHERE account_uuid = %s", first.uuid
    ) == [(1.5,)]


def test_peak_hours_count_as_they_do_for_collect(story: Story, billed: Billed) -> None:
    """The multiplier is that of the minute in which the bytes flowed."""
    story.price = OLD
    story.peak_hours = PeakHours(((time(12, 2), time(12, 3)),), UTC)
    first = billed.users[0]
    story.connection.execute(
        "INSERT INTO account_billing_profiles VALUES"
        " (%s, 'peak', 0, 0, 1, 1, 2, 1, '', now(), now())",
        [first.uuid],
    )
    result = run(story)
    assert result.corrections == 2
    assert story.rows(
        "SELECT DISTINCT bucket_start, multiplier FROM billing.charges WHERE adjusts IS NOT NULL"
    ) == [(START + 2 * MINUTE, 2)]


def test_included_bytes_cost_nothing_at_any_price(story: Story) -> None:
    """What the quota covered stays covered."""
    story.quota = 10**9
    Billed(story)
    assert run(story).corrections == 0


def test_small_steps_come_to_the_same_funds(story: Story, billed: Billed) -> None:
    """A step holds whole minutes, at least one, and each is a transaction."""
    result = run(story, step_buckets=1)
    assert result.steps == Billed.MINUTES
    assert story.paid(billed.users[0]) == NEW * sum(
        number * 11 + 2 * number for number in range(1, Billed.MINUTES + 1)
    )
    stamps = story.rows("SELECT bucket_start FROM billing_ledger ORDER BY created_at, id")
    assert stamps[-4 * Billed.MINUTES :] == sorted(stamps[-4 * Billed.MINUTES :])


def test_an_interrupted_run_is_completed_by_the_next(story: Story, billed: Billed) -> None:
    """Whatever statement a signal comes before, the steps that are done stand and count once."""
    paid = [story.paid(user) for user in billed.users]
    interruptions = 0
    for _ in interrupted_everywhere(lambda: run(story, step_buckets=8)):
        assert story.broken_invariants() == []
        interruptions += 1
    assert interruptions > 10
    assert [story.paid(user) for user in billed.users] == [3 * amount for amount in paid]


def test_it_runs_beside_a_collect(story: Story, billed: Billed) -> None:
    """No source's lock is needed, and no minute that is collected meanwhile is lost."""
    story.minute(*billed.moves(7))
    with psycopg.connect(story.database_url) as other, other.transaction():
        try_lock_sources(other, ["jp-1", "us-1"])
        assert run(story, until=billed.until).corrections == 4 * Billed.MINUTES
    paid = story.paid(billed.users[0])
    story.collect()
    assert story.paid(billed.users[0]) == paid + NEW * (77 + 2 * 7)


def test_runs_at_the_same_moment_charge_the_difference_once(
    story: Story, billed: Billed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits for the accounts, and then finds their charges right."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    paid = [story.paid(user) for user in billed.users]
    story.minute(*billed.moves(7))
    jobs: list[Callable[[], object]] = [
        lambda: run(story, until=billed.until, step_buckets=4),
        lambda: run(story, until=billed.until, step_buckets=7),
        story.collect,
    ]
    all_ready = threading.Barrier(len(jobs))
    failures: list[BaseException] = []

    def take_part(job: Callable[[], object]) -> None:
        all_ready.wait()
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=take_part, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    later = NEW * (77 + 2 * 7)
    assert [story.paid(user) for user in billed.users] == [3 * one + later for one in paid]


def test_entries_are_stamped_in_the_order_of_their_balances(
    story: Story, billed: Billed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run has waited for another that began after it."""
    monkeypatch.setattr("billing_cli.jobs.accounts.LOCK_WAIT_SECONDS", 30.0)
    first, second = sorted(user.uuid for user in billed.users)
    moves = [move for move in billed.moves(6) if move[0].name.sample_uuid == second]
    until = billed.until
    story.minute(*moves)
    query = "SELECT FROM account_quota_states WHERE account_uuid = %s FOR UPDATE"
    with (
        ThreadPoolExecutor(1) as thread,
        psycopg.connect(story.database_url) as other,
        other.transaction(),
    ):
        other.execute(query, [first])
        waiting = thread.submit(run, story, until=until)
        eventually(lambda: waiting.done() or story.rows(COUNT_BLOCKED) == [(1,)])
        assert not waiting.done(), waiting.result()
        story.collect()
    assert waiting.result().status == "ok"
    entries = story.rows(
        "SELECT balance_after FROM billing_ledger WHERE account_uuid = %s ORDER BY created_at",
        second,
    )
    assert entries == sorted(entries, reverse=True)


def test_an_account_that_is_locked_is_left_to_the_next_run(story: Story, billed: Billed) -> None:
    """All others are brought to their prices; the result names it."""
    late = story.add_user()
    story.minute((billed.nodes[0].add_stream(late.uuid, "xhttp"), 10, 0))
    story.price = OLD
    story.collect()
    story.price, story.lock_timeout_seconds = NEW, 0.05
    with psycopg.connect(story.database_url) as other, other.transaction():
        query = "SELECT FROM account_quota_states WHERE account_uuid = %s FOR UPDATE"
        other.execute(query, [late.uuid])
        result = run(story, step_buckets=1)
    assert result.status == "partial"
    assert result.corrections > 0
    assert any(late.uuid in note and "locked" in note for note in result.notes)
    assert [account.account_uuid for account in run(story).accounts] == [late.uuid]
    assert story.paid(late) == 10 * NEW


@pytest.mark.usefixtures("billed")
def test_a_version_can_not_name_two_prices_of_a_charge(story: Story) -> None:
    """Prices that were wrong again get a further version; nothing is written under the old one."""
    run(story)
    story.price = NEW * 2
    before = story.facts()
    with pytest.raises(UsageError, match="20 charges of the range have version 'v2' already"):
        run(story)
    assert story.facts() == before
    assert run(story, pricing_rule_version="v3").corrections == 4 * Billed.MINUTES


@pytest.mark.usefixtures("billed")
def test_the_version_of_the_charges_themselves_is_taken(story: Story) -> None:
    """They were charged under it, at the wrong price."""
    with pytest.raises(UsageError, match="have version 'v1' already, at another price"):
        run(story, pricing_rule_version="v1")


def test_a_price_of_nothing_must_be_meant(story: Story, billed: Billed) -> None:
    """A shell without the service's environment would give everything back."""
    story.price = Decimal(0)
    before = story.facts()
    with pytest.raises(ConfigurationError, match="no account has a price"):
        run(story)
    assert story.facts() == before
    first, second = billed.users
    paid = story.paid(second)
    save_profile(story.connection, first.uuid, price_per_byte=0.5)
    result = run(story)
    assert (result.status, story.paid(second)) == ("partial", paid)
    assert result.notes == (f"account {second.uuid} can't be charged: {NOT_CONFIGURED.reason}",)
    save_profile(story.connection, first.uuid, price_per_byte=0)
    run(story, is_zero_price_meant=True, pricing_rule_version="v3")
    assert [story.paid(user) for user in billed.users] == [0, 0]


def test_minutes_of_another_writer_are_left_alone_and_told(story: Story) -> None:
    """Nobody knows at which price they were charged."""
    story.connection.execute(
        "INSERT INTO traffic_minute_buckets (bucket_start, node_id, account_uuid, region,"
        " line_code, uplink_bytes, downlink_bytes, total_bytes, rating_status)"
        " VALUES (%s, 'prod:old', %s, '', '', 1, 2, 3, 'rated')",
        [START, story.add_user().uuid],
    )
    story.books = read_books(story.connection)
    Billed(story)
    result = run(story)
    assert (result.status, result.corrections) == ("partial", 4 * Billed.MINUTES)
    (note,) = result.notes
    assert note.startswith("1 minutes were charged by another writer")


def test_an_account_with_a_price_beyond_reason_is_left_alone_and_told(
    story: Story, billed: Billed
) -> None:
    """The others are re-rated."""
    first, second = billed.users
    paid = {user.uuid: story.paid(user) for user in billed.users}
    save_profile(story.connection, first.uuid, price_per_byte=1e300)
    result = run(story)
    assert result.status == "partial"
    assert first.uuid in result.notes[0]
    assert story.paid(first) == paid[first.uuid]
    assert story.paid(second) == 3 * paid[second.uuid]


def test_an_account_with_a_balance_beyond_reason_is_left_alone_and_told(
    story: Story, billed: Billed
) -> None:
    """Its charges are brought to the price when the balance is right again."""
    first, second = billed.users
    paid = story.paid(second)
    query = "UPDATE account_quota_states SET current_balance = %s WHERE account_uuid = %s"
    balance = float(story.funds(first).balance)
    story.connection.execute(query, [1e16, first.uuid])
    result = run(story)
    assert (result.status, result.corrections) == ("partial", 2 * Billed.MINUTES)
    assert result.notes == (f"account {first.uuid} can't be charged: a balance of 1e+16",)
    assert story.paid(second) == 3 * paid
    story.connection.execute(query, [balance, first.uuid])
    assert [account.account_uuid for account in run(story).accounts] == [first.uuid]


@pytest.mark.usefixtures("billed")
def test_what_does_not_exist_can_not_be_re_rated(story: Story) -> None:
    """One line names it, and nothing is written."""
    before = story.facts()
    stranger = story.fleet.new_uuid()
    with pytest.raises(UsageError, match=f"unknown account {stranger}"):
        run(story, account_uuids=(stranger,))
    with pytest.raises(UsageError, match="unknown source mars-1"):
        run(story, source_ids=("mars-1",))
    with pytest.raises(UsageError, match="--since is after --until"):
        run(story, since=START + MINUTE, until=START)
    assert story.facts() == before


def test_bytes_that_reconcile_takes_back_go_at_the_price_they_were_brought_to(
    story: Story, billed: Billed
) -> None:
    """Moving bytes between re-rated minutes costs nothing."""
    late = story.minute(*billed.moves(6))
    billed.nodes[0].withhold(late, late + MINUTE, late + 3 * MINUTE)
    story.minute(*billed.moves(7))
    story.price = OLD
    story.collect()
    story.price = NEW
    run(story)
    paid = story.paid(billed.users[0])
    story.minute(*billed.moves(8))
    story.minute()
    story.collect()
    result = reconcile(story.context())
    assert result.corrections > 0
    assert result.amount == 0
    assert story.paid(billed.users[0]) == paid + NEW * (8 * 11 + 16)
    assert run(story, pricing_rule_version="v3").corrections == 0
