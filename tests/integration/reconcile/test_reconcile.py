"""Reconcile against the truth of a simulated fleet, on a real database and over real HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg

from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.expectation import expected_by_account
from billing_cli.simulator.invariants import compare_with_expected
from billing_cli.simulator.publication import in_turn, merged, with_uuids

if TYPE_CHECKING:
    from tests.integration.reconcile.conftest import World


def late_history(world: World) -> None:
    """Collect half an hour in which the snapshots of six minutes are published late."""
    world.node.run(world.minutes(30), poll_seconds=60)
    world.node.withhold(world.minutes(10), world.minutes(16), world.minutes(29))
    world.collect_every_minute(3, 28, step=5)


def test_bytes_that_were_billed_late_are_moved_to_their_minutes(world: World) -> None:
    """Snapshots published late blur minutes; reconcile makes them sharp."""
    late_history(world)
    world.assert_books_agree()

    result = world.reconcile(world.minutes(30))

    assert result.status == "ok"
    assert result.corrections > 0
    world.assert_true()


def test_usage_that_waited_for_an_account_is_moved_to_its_minutes_too(world: World) -> None:
    """It is on record like any other, once the account is there."""
    stranger = world.fleet.new_uuid()
    world.node.add_stream(stranger, "xhttp")
    late_history(world)
    world.users.append(world.fleet.add_user(stranger))
    with psycopg.connect(world.database_url) as connection:
        save_users(connection, world.users)
    world.catch_up(world.minutes(31))

    world.reconcile(world.minutes(31))

    world.assert_true()
    with psycopg.connect(world.database_url) as connection:
        minutes = connection.execute(
            "SELECT FROM traffic_minute_buckets WHERE account_uuid = %s AND bucket_start < %s",
            (stranger, world.minutes(15)),
        ).fetchall()
    assert len(minutes) > 10


def test_a_second_reconcile_changes_nothing(world: World) -> None:
    """What is right is left alone."""
    late_history(world)
    world.reconcile(world.minutes(30))
    before = world.facts()

    again = world.reconcile(world.minutes(30))

    assert again.corrections == 0
    assert world.facts() == before


def test_moving_bytes_within_an_account_changes_no_balance(world: World) -> None:
    """Where the price is the same, refund and charge cancel out to the nano."""
    world.quota = 0
    late_history(world)
    with psycopg.connect(world.database_url) as connection:
        before = connection.execute("SELECT * FROM account_quota_states").fetchall()

    result = world.reconcile(world.minutes(30))

    assert abs(result.amount) <= result.corrections * world.price
    assert result.charged_bytes == 0
    with psycopg.connect(world.database_url) as connection:
        after = connection.execute("SELECT * FROM account_quota_states").fetchall()
    assert [row[:2] for row in sorted(before)] == [row[:2] for row in sorted(after)]


def test_bytes_that_a_hidden_reset_had_swallowed_are_recovered(world: World) -> None:
    """A restart between two seen snapshots loses bytes until history shows what lay between."""
    world.node.run(world.minutes(12), poll_seconds=60)
    world.node.restart_xray(world.minutes(12))
    world.node.run(world.minutes(30), poll_seconds=60)
    world.node.withhold(world.minutes(10), world.minutes(16), world.minutes(29))
    world.collect_every_minute(3, 28, step=5)

    result = world.reconcile(world.minutes(30))

    assert result.charged_bytes + result.included_bytes > 0
    world.assert_true()


def test_the_rates_of_the_source_itself_decide_what_is_plausible(world: World) -> None:
    """History that the source's own limit rules out corrects nothing, and the result says so."""
    late_history(world)
    before = world.facts()
    world.source_options["account_rate_bits_per_second"] = 1

    result = world.reconcile(world.minutes(30))

    assert result.corrections == 0
    assert any("can't be compared" in note for note in result.sources[0].notes)
    assert world.facts()[:5] == before[:5]


def test_gaps_that_history_now_covers_are_resolved(world: World) -> None:
    """A late gap is closed when the snapshots inside it have been compared."""
    late_history(world)

    result = world.reconcile(world.minutes(30))

    assert result.sources[0].resolved_gaps == 1
    with psycopg.connect(world.database_url) as connection:
        rows = connection.execute(
            "SELECT kind FROM billing.gaps WHERE resolved_at IS NULL"
        ).fetchall()
    assert rows == []


def test_a_dry_run_tells_the_differences_and_writes_nothing(world: World) -> None:
    """The differences are listed by minute; the database stays as it was."""
    late_history(world)
    before = world.facts()

    result = world.reconcile(world.minutes(30), dry_run=True)

    assert result.corrections > 0
    assert (
        sum(
            difference.uplink_bytes + difference.downlink_bytes for difference in result.differences
        )
        == 0
    )
    assert world.facts() == before


def test_what_history_no_longer_covers_is_left_alone(world: World) -> None:
    """History that was compared once and is gone since takes nothing back."""
    late_history(world)
    world.reconcile(world.minutes(30))
    before = world.facts()
    world.node.forget_before(world.minutes(20))

    result = world.reconcile(world.minutes(30))

    assert result.corrections == 0
    assert "nothing before it was compared" in " ".join(result.sources[0].notes)
    assert world.facts() == before


def test_small_steps_come_to_the_same_books(world: World) -> None:
    """The range is gone through in bounded steps; their size makes no difference."""
    late_history(world)
    world.step_max_samples = 4

    result = world.reconcile(world.minutes(30))

    assert result.steps > 5
    world.assert_true()


def test_only_the_range_that_is_asked_for_is_compared(world: World) -> None:
    """Records outside of the range stay as they are."""
    late_history(world)

    before = world.reconcile(world.minutes(30), until=world.minutes(10), since=world.minutes(0))
    inside = world.reconcile(world.minutes(30), since=world.minutes(10), until=world.minutes(20))

    assert before.corrections == 0
    assert inside.corrections > 0
    world.assert_true()


def test_a_range_beyond_the_history_is_an_error(world: World) -> None:
    """One clear line, and nothing is written."""
    late_history(world)
    world.node.forget_before(world.minutes(20))
    before = world.facts()

    result = world.reconcile(world.minutes(30), since=world.minutes(5), until=world.minutes(10))

    assert result.status == "error"
    assert "holds no history" in (result.sources[0].error or "")
    assert world.facts() == before


def test_a_source_that_is_down_is_an_outage(world: World) -> None:
    """Nothing is written, and the run says that it was an outage."""
    late_history(world)
    assert world.running is not None
    world.running["jp-1"].down = True
    before = world.facts()

    result = world.reconcile(world.minutes(30))

    assert result.status == "error"
    assert result.sources[0].unreachable
    assert world.facts() == before


def test_collecting_goes_on_from_what_was_corrected(world: World) -> None:
    """Corrections leave the chain of records alone: later runs bill what flows, once."""
    late_history(world)
    world.reconcile(world.minutes(30))
    world.node.run(world.minutes(40), poll_seconds=15)
    world.collect_every_minute(30, 39)

    result = world.reconcile(world.minutes(40) + timedelta(seconds=40))

    assert result.corrections == 0
    world.assert_true()


def test_refunds_go_back_at_the_price_that_was_charged(world: World) -> None:
    """A price that changed since is used for what is missing, not for what goes back."""
    world.quota = 0
    late_history(world)
    charged = world.price
    world.price = charged * 10

    result = world.reconcile(world.minutes(30))

    back = sum(
        difference.amount_delta for difference in result.differences if difference.amount_delta > 0
    )
    moved = -sum(
        difference.uplink_bytes + difference.downlink_bytes
        for difference in result.differences
        if difference.amount_delta > 0
    )
    assert back == moved * charged
    world.assert_true()


def test_what_went_with_a_deleted_account_is_not_corrected_when_it_is_created_again(
    world: World,
) -> None:
    """The new account has no bytes of before and no money for them; what it moves is charged."""
    late_history(world)
    account = world.users[1].uuid
    with psycopg.connect(world.database_url) as connection:
        connection.execute("DELETE FROM public.users WHERE uuid = %s", (account,))
        save_users(connection, world.users)

    assert world.reconcile(world.minutes(30)).corrections > 0

    owned = "SELECT FROM {} WHERE account_uuid = %s"
    moved = "SELECT uplink_total + downlink_total FROM billing.streams WHERE account_uuid = %s"
    billed = (
        "SELECT min(bucket_start), sum(total_bytes) FROM traffic_minute_buckets"
        " WHERE account_uuid = %s"
    )
    with psycopg.connect(world.database_url) as connection:
        for table in ("traffic_minute_buckets", "billing_ledger", "account_quota_states"):
            assert connection.execute(owned.format(table).encode(), (account,)).fetchall() == []
        before = connection.execute(moved, (account,)).fetchone()
    world.node.run(world.minutes(34), poll_seconds=60)
    world.collect_every_minute(30, 34)
    world.reconcile(world.minutes(35))
    with psycopg.connect(world.database_url) as connection:
        now = connection.execute(moved, (account,)).fetchone()
        charged = connection.execute(billed, (account,)).fetchone()
    assert before is not None
    assert now is not None
    assert charged is not None
    assert charged[0] > world.minutes(27)
    assert charged[1] == now[0] - before[0] > 0


def test_late_history_of_an_upgrade_before_a_restart_charges_no_byte_twice(world: World) -> None:
    """Nobody collected in between, so that the new names seemed to have begun at zero."""
    node = world.node
    accounts = {user.proxy_uuid: user.uuid for user in world.users}
    for user in world.users:
        node.add_stream(user.proxy_uuid, "tcp")
    node.run(world.minutes(10), poll_seconds=60)
    node.naming = in_turn(with_uuids(accounts), merged)
    node.run(world.minutes(12), poll_seconds=60)
    node.restart_xray(world.minutes(12))
    node.run(world.minutes(16), poll_seconds=60)
    node.withhold(world.minutes(10), world.minutes(13), world.minutes(29))
    node.run(world.minutes(30), poll_seconds=60)
    world.collect_every_minute(3, 28, step=5)

    assert world.reconcile(world.minutes(30)).corrections > 0

    until = [snapshot for snapshot in node.snapshots if snapshot.index < 28]
    expected = expected_by_account(world.fleet, node, until)
    with psycopg.connect(world.database_url) as connection:
        assert compare_with_expected(connection, node.identity.stored, expected) == []
    world.assert_books_agree()
