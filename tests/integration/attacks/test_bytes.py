"""What a compromised node can charge: its line rate for the burst period and the time that passes.

Names, stamps and numbers are the attacker's to choose; the limits are the defaults.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.model import DeltaPolicy
from billing_cli.jobs.reconcile import reconcile
from tests.integration.attacks.hostile import (
    BITS,
    HOUR,
    MINUTE,
    PRICE,
    START,
    Attack,
    maximum_bytes,
    only,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

TB = 10**12
LIMITS = DeltaPolicy()
ACCOUNT_BYTES_PER_MINUTE = LIMITS.account_rate_bits_per_second * 60 // BITS


def one_stream_just_below(attack: Attack) -> datetime:
    """One user at its account's rate, minute by minute for two hours."""
    node, (user,) = attack.node(), attack.users()
    for minute in range(121):
        total = minute * (ACCOUNT_BYTES_PER_MINUTE - 1)
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    return START + 2 * HOUR


def every_user_at_its_rate(attack: Attack) -> datetime:
    """Fifty users, each just below its own limit: five times what the line can carry."""
    node, users = attack.node(), attack.users(50)
    for minute in range(31):
        total = minute * (ACCOUNT_BYTES_PER_MINUTE - 1)
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total) for user in users]
    return START + 30 * MINUTE


def invented_tags(attack: Attack) -> datetime:
    """A hundred tags of one user, each with what an account can move in the time."""
    node, (user,) = attack.node(), attack.users()
    node.snapshots[START] = [(user, "tcp", 0)]
    for minute in (30, 31):
        node.snapshots[START + minute * MINUTE] = [
            (user, f"tag-{tag}", minute * ACCOUNT_BYTES_PER_MINUTE - 1) for tag in range(100)
        ]
    return START + 31 * MINUTE


def snapshots_a_microsecond_apart(attack: Attack) -> datetime:
    """Five thousand snapshots within 5 ms, each with what a second could carry."""
    node, (user,) = attack.node(), attack.users()
    node.snapshots[START] = [(user, "tcp", 0)]
    begin = START + MINUTE
    for index in range(5_000):
        at = begin + index * timedelta(microseconds=1)
        node.snapshots[at] = [(user, "tcp", index * LIMITS.account_rate_bits_per_second // BITS)]
    return begin


def an_old_empty_baseline(attack: Attack) -> datetime:
    """A new node whose history begins 72 hours back without users, and then claims all of it."""
    node, users = attack.node(), attack.users(50)
    now = START + 72 * HOUR
    node.snapshots[START] = []
    node.snapshots[now] = [(user, "tcp", 72 * 60 * ACCOUNT_BYTES_PER_MINUTE) for user in users]
    return now


def first_contact(attack: Attack) -> datetime:
    """15,000 tags at 64 TB each in the very first snapshot, of a hundred users."""
    node, users = attack.node(), attack.users(100)
    samples = [(user, f"t{tag}", 64 * TB) for user in users for tag in range(150)]
    node.snapshots[START] = []
    node.snapshots[START + MINUTE] = samples
    return START + MINUTE


def return_after_absence(attack: Attack) -> datetime:
    """A known node is silent for ten hours, and claims fifteen times its line rate."""
    node, users = attack.node(), attack.users(50)
    node.snapshots[START] = [(user, "tcp", 0) for user in users]
    node.snapshots[START + 10 * HOUR] = [
        (user, "tcp", 1800 * ACCOUNT_BYTES_PER_MINUTE) for user in users
    ]
    return START + 10 * HOUR


ATTACKS = (
    one_stream_just_below,
    every_user_at_its_rate,
    invented_tags,
    snapshots_a_microsecond_apart,
    an_old_empty_baseline,
    first_contact,
    return_after_absence,
)


@pytest.mark.parametrize("publish", ATTACKS, ids=lambda one: one.__name__)
def test_no_attack_charges_more_than_the_maximum(
    attack: Attack, publish: Callable[[Attack], datetime]
) -> None:
    """The maximum is printed, in bytes and money; the audit stays clean."""
    end = publish(attack)
    attack.run(end)
    elapsed = end - START
    size_bytes, amount = attack.charged()
    most = maximum_bytes(elapsed)
    print(  # noqa: T201 - figures for docs/security.md and for whoever sets the limits
        f"{publish.__name__}: {size_bytes:,} bytes charged for {amount:,.2f}; the maximum after "
        f"{elapsed} is {most:,} bytes for {most * PRICE:,.2f}"
    )
    assert size_bytes <= most
    assert amount == size_bytes * PRICE


def test_the_maximum_of_a_new_node_has_no_burst(attack: Attack) -> None:
    """Its credit starts at zero at its baseline: at most its line rate for the time since."""
    attack.run(every_user_at_its_rate(attack))
    size_bytes, _ = attack.charged()
    assert 0 < size_bytes <= maximum_bytes(30 * MINUTE) - maximum_bytes(timedelta())
    assert attack.held_bytes() > 0


def test_a_stream_within_its_limit_is_charged_in_full(attack: Attack) -> None:
    """Nothing of it is held."""
    attack.run(one_stream_just_below(attack))
    assert attack.charged()[0] == 120 * (ACCOUNT_BYTES_PER_MINUTE - 1)
    assert attack.held_bytes() == 0


def test_a_rewritten_history_before_reconcile_charges_no_more_than_the_maximum(
    attack: Attack,
) -> None:
    """Invented restarts between the snapshots that were collected add up to what credit allows."""
    node, users = attack.node(), attack.users(50)
    for minute in range(0, 61, 2):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", minute * 1000) for user in users]
    attack.run(START + HOUR)
    before, _ = attack.charged()
    assert before == 50 * 60_000
    for minute in range(1, 60, 2):
        at = START + minute * MINUTE
        node.snapshots[at] = [(user, "tcp", ACCOUNT_BYTES_PER_MINUTE - 1) for user in users]
        node.snapshots[at + timedelta(seconds=10)] = [(user, "tcp", 0) for user in users]
    result = attack.run(START + HOUR, reconcile, since=START)
    size_bytes, _ = attack.charged()
    assert size_bytes <= maximum_bytes(HOUR) - maximum_bytes(timedelta())
    assert only(result).corrections > 0 or size_bytes == before
