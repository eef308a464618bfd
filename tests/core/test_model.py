"""The values that flow through the core: their derived figures, and what they are unless said."""

from __future__ import annotations

from decimal import Decimal

from billing_cli.core.model import (
    MAX_TOTAL,
    Bucket,
    Charge,
    Checkpoint,
    DeltaPolicy,
    Gap,
    NodeIdentity,
    Rating,
    Snapshot,
    Totals,
)
from tests.core.stories import ALICE, NODE, NOON, record
from tests.core.tariffs import bucket


def test_the_largest_total_is_that_of_a_bigint() -> None:
    """The wire's bound and the database's are one."""
    assert MAX_TOTAL == 9_223_372_036_854_775_807


def test_bytes_are_what_lies_between_start_and_end() -> None:
    """Each direction by itself."""
    one = record(ALICE, ("00:00", "01:00"), (3, 50), (7, 90))
    assert (one.uplink_bytes, one.downlink_bytes) == (4, 40)


def test_a_buckets_bytes_are_those_of_both_directions() -> None:
    """What is charged makes no difference between them."""
    assert Bucket(bucket(1).key, 5, 70).total_bytes == 75


def test_a_stored_node_is_named_with_its_environment_where_it_has_one() -> None:
    """Two environments may have nodes of one name."""
    assert NodeIdentity("prod", "jp-1").stored == "prod:jp-1"
    assert NodeIdentity("", "jp-1").stored == "jp-1"


def test_a_line_carries_two_gigabits_a_second_unless_said_otherwise() -> None:
    """Two minutes and a half are late, and a first snapshot is a baseline."""
    policy = DeltaPolicy()
    assert policy.account_rate_bits_per_second == 2 * 1000**3
    assert policy.late_after_seconds == 2.5 * 60
    assert policy.charge_first_snapshot is False


def test_what_is_not_said_of_a_value_has_not_happened() -> None:
    """No restart, no rejected sample, no stream in a gap, no charge, no reason."""
    assert Checkpoint(NOON, Totals(1, 1)).reset_epoch == 0
    assert Snapshot(NOON, NODE, {}).rejected == ()
    assert Gap("late", NOON, NOON).streams == 0
    assert (Rating().charges, Rating().accounts) == ((), {})
    money = Decimal(0)
    charge = Charge("id", bucket(1).key, 1, 0, money, money, money, 1, money, money)
    assert (charge.entry_type, charge.adjusts, charge.reason) == ("traffic_charge", None, "")
