"""A source's daily maximum where jobs that change the sums of its days run side by side."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.daily_maximum import Payer
from billing_cli.database.daily_charges import add_daily_charges
from billing_cli.features.rerate import job as rerating
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs import daily_maximum
from billing_cli.jobs.collect import collect
from tests.integration.attacks.hostile import MINUTE, START, Attack, only
from tests.integration.database.stage import COUNT_BLOCKED, eventually

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult
    from billing_cli.jobs.context import JobContext

GB = 10**9
MAXIMUM = Decimal(1)
DAY = date(2026, 1, 1)


def double_prices(attack: Attack, account: str) -> tuple[JobContext, Order]:
    """Return how to charge an account twice as much as so far."""
    context = attack.context(START + 10 * MINUTE)
    tariff = replace(context.tariff, price_per_byte=2 * context.tariff.price_per_byte)
    order = Order(START, START + 2 * MINUTE, "v2", "agreed", account_uuids=(account,))
    return replace(context, tariff=tariff), order


def blocked(attack: Attack) -> int:
    """Return how many sessions wait for a lock."""
    rows = attack.connection.execute(COUNT_BLOCKED.replace("= 'billing'", "LIKE 'billing%'"))
    return sum(count for (count,) in rows)


@pytest.mark.parametrize(
    ("is_limited_before", "size_bytes"),
    [
        pytest.param(True, 4 * GB // 10, id="the day has a sum"),
        pytest.param(False, 8 * GB // 10, id="the day has none yet"),
    ],
)
def test_new_prices_of_other_accounts_count_at_once(
    attack: Attack, monkeypatch: pytest.MonkeyPatch, size_bytes: int, *, is_limited_before: bool
) -> None:
    """A collect waits for the sum that a rerate is about to commit."""
    limits = {"max_daily_charge_per_source": MAXIMUM}
    attack.tariff = limits if is_limited_before else {}
    one, other = attack.users(2)
    node = attack.node("jp-1")

    def publish(minute: int, *totals: int) -> None:
        node.snapshots[START + minute * MINUTE] = [
            (user, "tcp", total) for user, total in zip((one, other), totals, strict=True)
        ]

    publish(0, 0, 0)
    publish(1, 4 * GB // 10, 0)
    attack.run(START + MINUTE)
    assert attack.charged()[1] == Decimal("0.4")
    publish(4, 4 * GB // 10, size_bytes)
    attack.tariff = limits
    noted, go_on = threading.Event(), threading.Event()

    def note(*given: Any) -> None:
        daily_maximum.note_charged(*given)
        noted.set()
        assert go_on.wait(30)

    monkeypatch.setattr(rerating, "note_charged", note)

    def run() -> RunResult:
        return collect(attack.context(START + 6 * MINUTE))

    with ThreadPoolExecutor() as pool:
        rerated = pool.submit(lambda: rerate(*double_prices(attack, one)))
        assert noted.wait(30)
        collected = pool.submit(run)
        try:
            eventually(lambda: collected.done() or blocked(attack) == 1)
        finally:
            go_on.set()
        assert rerated.result().corrections == 1
        assert only(collected.result()).held_deltas == 1
    assert attack.charged()[1] == Decimal("0.8")


def test_sums_that_rise_and_fall_are_changed_in_one_order(attack: Attack) -> None:
    """Two jobs change the same sums in opposite ways; neither waits for the other for ever."""
    first, second, third = (Payer("node", name) for name in ("1", "2", "3"))

    def add(amounts: dict[Payer, int]) -> None:
        with psycopg.connect(attack.job_url, application_name="billing") as connection:
            add_daily_charges(
                connection, {(payer, DAY): Decimal(amount) for payer, amount in amounts.items()}
            )

    add({first: 10, second: 10, third: 10})
    with ThreadPoolExecutor() as pool, psycopg.connect(attack.job_url) as holder:
        holder.execute("UPDATE billing.daily_charges SET amount = 20 WHERE name = '3'")
        running = []
        for amounts in ({first: -1, second: 1, third: 1}, {first: 1, second: -30}):
            running.append(pool.submit(add, amounts))
            eventually(lambda: blocked(attack) == len(running))
        holder.commit()
        for job in running:
            job.result()
    rows = attack.connection.execute("SELECT name, amount FROM billing.daily_charges ORDER BY name")
    assert rows.fetchall() == [("1", 10), ("2", 0), ("3", 21)]


def test_what_is_given_back_makes_no_sum(attack: Attack) -> None:
    """Nothing was counted of the day: the maximum was not configured."""
    with psycopg.connect(attack.job_url) as connection:
        add_daily_charges(connection, {(Payer("node", "1"), DAY): Decimal(-1)})
    assert attack.count("billing.daily_charges") == 0


@pytest.mark.parametrize(
    ("tariff", "limits", "times"),
    [({}, {}, 0), ({"max_daily_charge_per_source": MAXIMUM}, {"max_daily_charge": MAXIMUM}, 1)],
)
def test_rerate_reads_the_sources_only_for_their_maxima(
    attack: Attack,
    monkeypatch: pytest.MonkeyPatch,
    tariff: dict[str, Any],
    limits: dict[str, Any],
    times: int,
) -> None:
    """The accounts are locked meanwhile."""
    read: list[object] = []
    read_sources = daily_maximum.read_sources
    monkeypatch.setattr(
        daily_maximum, "read_sources", lambda *given: read.append(given) or read_sources(*given)
    )
    attack.tariff = tariff
    (user,) = attack.users()
    node = attack.node("jp-1")
    node.limits.update(limits)
    for minute, total in enumerate((0, GB // 10)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    attack.run(START + MINUTE)
    read.clear()
    assert rerate(*double_prices(attack, user)).corrections == 1
    assert len(read) == times
