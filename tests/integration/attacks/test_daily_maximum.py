"""Usage above a daily maximum is held: neither charged nor lost, also where runs are concurrent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.cli.printing import text_of
from billing_cli.features.explain.job import explain
from billing_cli.features.explain.text import explain_parts
from billing_cli.features.held.job import RELEASE_JOB, list_held, release_held
from billing_cli.features.rerate.job import Order as NewPrices
from billing_cli.features.rerate.job import rerate
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.jobs.collect import collect
from tests.integration.attacks.hostile import HOUR, MINUTE, START, Attack, only

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult

GB = 10**9
# A GB costs 1.
MAXIMUM = Decimal(1)


def publish(attack: Attack, source_id: str, users: list[str], sizes: list[int]) -> None:
    """Publish a baseline, and then what each minute adds for each user."""
    node, total = attack.node(source_id), 0
    node.snapshots[START] = [(user, "tcp", 0) for user in users]
    for minute, size_bytes in enumerate(sizes, start=1):
        total += size_bytes
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total) for user in users]


def test_usage_above_an_account_s_maximum_is_held_and_can_be_released(attack: Attack) -> None:
    """What still fits in is charged; the next UTC day has a maximum of its own."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    users = attack.users()
    publish(attack, "jp-1", users, [4 * GB // 10] * 3 + [GB // 10])
    result = attack.run(START + 4 * MINUTE)
    assert attack.charged() == (9 * GB // 10, Decimal("0.9"))
    assert (result.status, only(result).held_deltas) == ("partial", 1)
    (unit,) = list_held(attack.context(START + HOUR)).units
    assert (unit.held_reason, unit.total_bytes) == ("daily_charge", 4 * GB // 10)
    tomorrow = START + 13 * HOUR
    attack.nodes["jp-1"].snapshots[tomorrow] = [(users[0], "tcp", 22 * GB // 10)]
    attack.run(tomorrow)
    assert attack.charged()[1] == Decimal("1.8")
    release_held(attack.context(tomorrow + 2 * MINUTE), [unit.deltas[0].held_id], "it was a backup")
    assert attack.charged()[1] == Decimal("2.2")
    attack.run(tomorrow)


def test_usage_above_a_maximum_is_explained(attack: Attack) -> None:
    """`explain --minutes` names the reason, and that nothing was charged."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    users = attack.users()
    publish(attack, "jp-1", users, [12 * GB // 10])
    attack.run(START + 2 * MINUTE)
    text = text_of(explain_parts(explain(attack.context(START + HOUR), users[0])))
    assert "above the maximum of a day, not charged, held" in text


def test_two_sources_at_once_do_not_exceed_it_together(attack: Attack) -> None:
    """Each run by itself would be below; the account's row orders them."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    users = attack.users()
    names = ("jp-1", "us-1", "de-1")
    for name in names:
        publish(attack, name, users, [6 * GB // 10])

    def run(name: str) -> RunResult:
        return collect(attack.context(START + 3 * MINUTE), [name])

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(run, names))
    assert sorted(only(result).held_deltas for result in results) == [0, 1, 1]
    assert attack.charged()[1] == Decimal("0.6")
    attack.run(START + MINUTE)


def test_a_source_s_own_maximum_goes_before_that_of_all(attack: Attack) -> None:
    """It counts all its accounts together, and no other source's."""
    attack.tariff = {"max_daily_charge_per_source": MAXIMUM}
    users = attack.users(4)
    publish(attack, "jp-1", users, [4 * GB // 10])
    publish(attack, "us-1", users, [4 * GB // 10])
    publish(attack, "de-1", users, [4 * GB // 10])
    attack.nodes["us-1"].limits["max_daily_charge"] = Decimal("0.5")
    attack.nodes["de-1"].limits["max_daily_charge"] = Decimal(0)
    attack.run(START + MINUTE)
    rows = attack.connection.execute(
        "SELECT stored_node_id, -sum(amount_delta) FROM billing.charges GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert rows == [
        ("prod:de-1.svc.plus", Decimal("1.6")),
        ("prod:jp-1.svc.plus", Decimal("0.8")),
        ("prod:us-1.svc.plus", Decimal("0.4")),
    ]


def publish_late(attack: Attack) -> str:
    """Let a user's node report 2.5 GB under an unknown uuid, then add the uuid to the account."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    user = attack.users()[0]
    proxy = "99999999-9999-4999-8999-999999999999"
    publish(attack, "jp-1", [proxy], [GB // 2, 2 * GB])
    attack.run(START + 2 * MINUTE)
    attack.connection.execute(
        "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s", (proxy, user)
    )
    return user


def test_late_usage_above_it_is_held(attack: Attack) -> None:
    """It is listed once, is not pending any more, and is charged when it is released."""
    publish_late(attack)
    result = attack.run(START + 27 * HOUR, collect)
    assert (result.status, only(result).status, only(result).held_deltas) == (
        *("partial", "partial"),
        1,
    )
    assert attack.charged()[0] == GB // 2
    assert pending_rows(attack) == 0
    (unit,) = list_held(attack.context(START + 28 * HOUR)).units
    assert (unit.held_reason, unit.total_bytes) == ("daily_charge", 2 * GB)
    attack.run(START + 28 * HOUR, collect)
    assert attack.count("billing.held_deltas") == 1
    release_held(attack.context(START + 29 * HOUR), [unit.deltas[0].held_id], "it was a backup")
    assert attack.charged()[0] == 5 * GB // 2
    attack.run(START + 29 * HOUR)


def test_late_usage_above_it_waits_where_no_source_carries_its_node(attack: Attack) -> None:
    """It could not be released: a note names the account, until a higher maximum charges it."""
    user = publish_late(attack)
    del attack.nodes["jp-1"]
    publish(attack, "us-1", [user], [])
    for at in (START + 27 * HOUR, START + 28 * HOUR):
        result = attack.run(at, collect)
        assert (result.status, only(result).status) == ("partial", "ok")
        assert any(user in note and "daily maximum" in note for note in result.notes)
        assert (attack.charged()[0], pending_rows(attack)) == (GB // 2, 1)
    assert attack.count("billing.held_deltas") == 0
    attack.tariff = {"max_daily_charge": Decimal(0)}
    assert attack.run(START + 29 * HOUR, collect).status == "ok"
    assert (attack.charged()[0], pending_rows(attack)) == (5 * GB // 2, 0)


def pending_rows(attack: Attack) -> int:
    """Return how many rows of usage wait for an account."""
    row = attack.connection.execute(
        "SELECT count(*) FROM billing.pending_usage WHERE billed_at IS NULL"
    ).fetchone()
    return row[0] if row else 0


def test_what_is_reversed_makes_room_for_what_really_flowed(attack: Attack) -> None:
    """The maximum was used up by a compromised node; the honest history is charged in its place."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    users = attack.users()
    publish(attack, "jp-1", users, [GB])
    attack.run(START + MINUTE)
    order = Order("jp-1", START, None, None, "node compromised")
    assert reverse(attack.context(START + 3 * MINUTE), order).amount == -MAXIMUM
    publish(attack, "us-1", users, [9 * GB // 10])
    assert attack.run(START + MINUTE).status == "ok"
    assert attack.charged() == (9 * GB // 10, Decimal("0.9"))


def release_all(attack: Attack, minute: int) -> None:
    """Release what is held."""
    units = list_held(attack.context(START + HOUR)).units
    held_ids = [delta.held_id for unit in units for delta in unit.deltas]
    context = replace(attack.context(START + minute * MINUTE), job=RELEASE_JOB)
    release_held(context, held_ids, "it was a backup")


def take_back(attack: Attack, minute: int) -> Decimal:
    """Take the charges of a minute of the first node back; return how much."""
    since = START + minute * MINUTE
    order = Order("jp-1", since, since + MINUTE, None, "no traffic of theirs")
    return reverse(attack.context(START + 10 * MINUTE), order).amount


def test_what_was_released_makes_no_room_when_it_is_reversed(attack: Attack) -> None:
    """It was charged beyond the maximum, by decision; the rest of its minute makes room."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    users = attack.users()
    publish(attack, "jp-1", users, [7 * GB // 10, 5 * GB // 10, 3 * GB // 10])
    attack.run(START + 3 * MINUTE)
    assert attack.charged()[1] == MAXIMUM
    release_all(attack, 4)
    assert attack.charged()[1] == Decimal("1.5")
    assert take_back(attack, 3) == Decimal("-0.8")
    publish(attack, "us-1", users, [5 * GB // 10, 3 * GB // 10])
    attack.run(START + 5 * MINUTE)
    assert attack.charged()[1] == MAXIMUM


def test_what_was_charged_before_a_maximum_makes_no_more_room_than_it(attack: Attack) -> None:
    """The sum of the day does not fall below 0."""
    users = attack.users()
    publish(attack, "jp-1", users, [8 * GB // 10])
    attack.run(START + MINUTE)
    attack.tariff = {"max_daily_charge": MAXIMUM}
    assert take_back(attack, 1) == Decimal("-0.8")
    publish(attack, "us-1", users, [9 * GB // 10, 2 * GB // 10])
    attack.run(START + 3 * MINUTE)
    assert attack.charged()[1] == Decimal("0.9")


def test_new_prices_count_for_it(attack: Attack) -> None:
    """What they add uses it up, and makes room only when it is given back."""
    attack.tariff = {"max_daily_charge": MAXIMUM}
    users = attack.users()
    publish(attack, "jp-1", users, [5 * GB // 10])
    attack.run(START + MINUTE)
    context = attack.context(START + 10 * MINUTE)
    tariff = replace(context.tariff, price_per_byte=2 * context.tariff.price_per_byte)
    new_prices = NewPrices(START, START + 2 * MINUTE, "v2", "agreed")
    assert rerate(replace(context, tariff=tariff), new_prices).corrections == 1
    publish(attack, "us-1", users, [GB // 10])
    attack.run(START + MINUTE)
    assert attack.charged()[1] == MAXIMUM
    assert take_back(attack, 1) == -MAXIMUM
    publish(attack, "de-1", users, [9 * GB // 10, 2 * GB // 10])
    attack.run(START + 2 * MINUTE)
    assert attack.charged()[1] == Decimal("0.9")
