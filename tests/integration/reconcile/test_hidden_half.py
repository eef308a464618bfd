"""Half the snapshots hidden, xray restarted among them, then all revealed."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from billing_cli.features.audit.job import audit
from billing_cli.jobs.collect import collect
from billing_cli.jobs.reconcile import reconcile
from tests.support.interruptions import interrupted_everywhere

if TYPE_CHECKING:
    from tests.integration.reconcile.conftest import World


def hide_half(world: World) -> None:
    """Collect half an hour of which every other snapshot, and a restart, came to light late."""
    world.quota = 0
    world.node.run(world.minutes(12.5), poll_seconds=30)
    world.node.restart_xray(world.minutes(12.5))
    world.node.run(world.minutes(30), poll_seconds=30)
    revealed = world.minutes(29)
    for half in range(60):
        if half % 2 or 20 <= half < 32:
            begin = world.minutes(half / 2)
            world.node.withhold(begin, begin + timedelta(seconds=30), revealed)
    world.collect_every_minute(3, 28, step=5)


def assert_right(world: World) -> None:
    """Buckets, ledger and audit tell the truth, and nothing is left open."""
    world.assert_true()
    with psycopg.connect(world.database_url) as connection:
        billed = connection.execute(
            "SELECT account_uuid, sum(total_bytes) FROM traffic_minute_buckets GROUP BY 1"
        ).fetchall()
        charged = dict(
            connection.execute(
                "SELECT account_uuid, -sum(amount_delta::text::numeric)"
                "  FROM billing_ledger GROUP BY 1"
            ).fetchall()
        )
        open_gaps = connection.execute(
            "SELECT kind FROM billing.gaps WHERE resolved_at IS NULL AND kind <> 'stalled'"
        ).fetchall()
    # The price has nine decimals, so that nothing is lost in rounding.
    assert charged == {account: world.price * total for account, total in billed}
    assert open_gaps == []
    report: Any = world.job(audit, world.minutes(30))
    assert report.violations == 0


def test_a_user_above_the_former_total_after_a_hidden_restart_is_charged_in_full(
    world: World,
) -> None:
    """Only the other user's counter shows that there was a restart."""
    node, (user, other, _) = world.node, world.streams
    world.source_options = {"account_rate_bits_per_second": 0, "line_rate_bits_per_second": 0}
    node.snapshot(world.minutes(0))
    for minute, moved, others, published in (
        (10, 1_000, 50_000, None),
        (20, 4_000, 0, 35),
        (25, 6_000, 100, 35),
        (30, 14_000, 100, None),
        (31, 0, 0, None),
    ):
        if minute == 25:
            node.restart_xray(world.minutes(22))
        node.flow(user, moved, moved)
        node.flow(other, others, others)
        node.snapshot(world.minutes(minute), published and world.minutes(published))
    world.job(collect, world.minutes(32.7))
    world.reconcile(world.minutes(42), since=world.minutes(0))
    with psycopg.connect(world.database_url) as connection:
        billed = connection.execute(
            "SELECT account_uuid::text, sum(uplink_bytes), sum(downlink_bytes)"
            "  FROM public.traffic_minute_buckets GROUP BY 1"
        ).fetchall()
    assert sorted(billed) == sorted(
        (stream.name.sample_uuid, *stream.flowed()) for stream in (user, other)
    )
    world.assert_books_agree()


def test_what_was_hidden_is_put_where_it_belongs(world: World) -> None:
    """Every bucket equals the truth for its minute, and the ledger the true charge."""
    hide_half(world)

    result = world.reconcile(world.minutes(30), since=world.minutes(0))

    assert result.charged_bytes > 0  # What flowed up to the hidden restart is recovered.
    assert_right(world)


def test_a_reconcile_killed_before_any_statement_leaves_nothing_behind(world: World) -> None:
    """Ended at each statement in turn the books stay as they were; the last run mends them."""
    hide_half(world)
    before = world.facts()

    cuts = 0
    for _ in interrupted_everywhere(
        lambda: world.reconcile(world.minutes(30), since=world.minutes(0))
    ):
        assert world.facts() == before
        cuts += 1

    assert cuts > 15
    assert_right(world)


def test_reconcile_and_collect_at_the_same_moment(world: World) -> None:
    """Side by side and one after the other, the database comes out the same."""
    hide_half(world)
    failures: list[BaseException] = []

    def run(work: object, **options: object) -> None:
        try:
            world.job(work, world.minutes(30) + timedelta(seconds=40), **options)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(collect,)),
        threading.Thread(target=run, args=(reconcile,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []

    # Whoever found the source locked has left it to the other; once more each, and all is done.
    run(collect)
    run(reconcile, since=world.minutes(0))

    assert failures == []
    world.assert_true()
