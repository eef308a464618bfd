"""What was taken back is charged again from history: bursts, and records across the range's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.features.reverse.job import Order, reverse
from billing_cli.jobs.reconcile import reconcile
from tests.integration.attacks.hostile import HOUR, MINUTE, START, Attack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from billing_cli.core.result import SourceResult
    from tests.integration.attacks.hostile import Node

LATE = (1, 2, 3, 4, 6, 7, 8, 9)


def take_back(attack: Attack, since: int, until: int | None = None) -> None:
    """Reverse minutes of the node, by their count after the start."""
    end = None if until is None else START + until * MINUTE
    order = Order("jp-1", START + since * MINUTE, end, None, "the node was compromised")
    reverse(attack.context(START + HOUR), order)


def charge_again(attack: Attack, since: int, until: int | None = None) -> SourceResult:
    """Compare minutes of the node with its history."""
    end = None if until is None else START + until * MINUTE
    result = attack.run(START + HOUR, reconcile, since=START + since * MINUTE, until=end)
    return result.sources[0]


def charged(attack: Attack) -> dict[int, int]:
    """Return the bytes that are charged by minute."""
    rows = attack.connection.execute(
        "SELECT bucket_start, sum(included_bytes + rated_bytes)::bigint FROM billing.charges"
        " GROUP BY 1 HAVING sum(included_bytes + rated_bytes) <> 0 ORDER BY 1"
    )
    return {(minute - START) // MINUTE: size_bytes for minute, size_bytes in rows}


def test_a_burst_after_silence_is_charged_again_as_far_as_credit_goes(attack: Attack) -> None:
    """A connection's bytes are counted when it closes: 80,000 where 6,000 a minute are allowed."""
    node, (user,) = attack.node(), attack.users()
    node.limits = {"account_rate_bits_per_second": 800, "line_rate_bits_per_second": 0}
    for minute in range(31):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", 0)]
    node.snapshots[START + 31 * MINUTE] = [(user, "tcp", 80_000)]
    node.snapshots[START + 32 * MINUTE] = [(user, "tcp", 81_000)]
    attack.run(START + HOUR)
    burst = {31: 80_000, 32: 1_000}
    assert charged(attack) == burst

    take_back(attack, 30)
    assert charged(attack) == {}
    source = charge_again(attack, 0)
    assert (source.status, source.notes) == ("ok", ())
    assert charged(attack) == burst

    # 192,000 bytes of credit grew in 32 minutes; a third time exceeds them.
    take_back(attack, 30)
    source = charge_again(attack, 0)
    assert source.status == "partial"
    assert any("than the plausibility limit allows now" in note for note in source.notes)
    assert charged(attack) == {32: 1_000}


def split_records(attack: Attack) -> tuple[Node, dict[int, int]]:
    """Charge records of five minutes, which late snapshots then split; return what is charged."""
    node, (user,) = attack.node(), attack.users()
    publish(node, (0, 5, 10, 11, 12), user)
    attack.run(START + HOUR)
    assert charged(attack) == {5: 500, 10: 500, 11: 100, 12: 100}
    publish(node, LATE, user)
    charge_again(attack, 0)
    minutes = dict.fromkeys(range(1, 13), 100)
    assert charged(attack) == minutes
    return node, minutes


def publish(node: Node, minutes: Iterable[int], *users: str) -> None:
    """Publish snapshots of users' streams with 100 bytes a minute."""
    for minute in minutes:
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", minute * 100) for user in users]


def test_a_record_that_ends_after_the_range_is_charged_again(attack: Attack) -> None:
    """The range of the reversal is enough. What was compared beyond it is said; then it is done."""
    _, minutes = split_records(attack)
    take_back(attack, 3, 8)
    assert charged(attack) == {
        minute: size for minute, size in minutes.items() if not 3 <= minute < 8
    }

    source = charge_again(attack, 3, 8)
    assert source.status == "ok"
    assert source.notes == (
        "compared until 2026-04-08T12:11:00Z, where records end that were taken back",
    )
    assert charged(attack) == minutes
    source = charge_again(attack, 3, 8)
    assert (source.corrections, source.notes) == (0, ())


def test_the_range_is_extended_once(attack: Attack) -> None:
    """Records that begin after its end stay as they are, and the next range takes them."""
    _, minutes = split_records(attack)
    take_back(attack, 3)
    assert charge_again(attack, 3, 8).status == "ok"
    assert charged(attack) == {minute: size for minute, size in minutes.items() if minute < 11}
    charge_again(attack, 11)
    assert charged(attack) == minutes


def test_another_reversal_beyond_the_range_is_left_alone(attack: Attack) -> None:
    """Also of a record that begins within the range."""
    node, (user, other) = attack.node(), attack.users(2)

    publish(node, (0, 5, 11), user, other)
    publish(node, (10,), other)
    attack.run(START + HOUR)
    publish(node, LATE, user, other)
    charge_again(attack, 0)
    for since, until, account in ((3, 8, user), (9, 10, other)):
        begin, end = START + since * MINUTE, START + until * MINUTE
        reverse(attack.context(START + HOUR), Order("jp-1", begin, end, account, "test"))
    before = charged(attack)
    source = charge_again(attack, 3, 8)
    assert source.status == "partial"
    assert charged(attack)[9] == before[9]


def test_later_records_that_were_taken_back_are_not_charged_again_unasked(attack: Attack) -> None:
    """Where a longer range would have them in it the result says what is left, and until where."""
    node, (user, other) = attack.node(), attack.users(2)

    publish(node, (0, 5, 15), user, other)
    publish(node, (10, 11), user)
    attack.run(START + HOUR)
    publish(node, (7,), user, other)
    charge_again(attack, 0)
    everything = charged(attack)
    assert everything == {5: 1_000, 7: 400, 10: 300, 11: 100, 15: 1_200}

    take_back(attack, 6)
    source = charge_again(attack, 6, 8)
    assert source.status == "partial"
    left = "its records go on until 2026-04-08T12:16:00Z, and others were taken back there too"
    assert f"some of what was taken back is not charged again: {left}" in source.notes
    assert charged(attack) == {5: 1_000}
    assert charge_again(attack, 6, 16).status == "ok"
    assert charged(attack) == everything
