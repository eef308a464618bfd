"""Going on after an older writer: nothing that it charged is charged again, nothing is lost."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.core.model import BucketKey
from billing_cli.core.rating import ledger_id
from billing_cli.features.audit.job import audit
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.jobs.catch_up import SINCE_IGNORED_FOR_LEGACY
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.publication import merged, retagged
from tests.integration.reconcile.conftest import World, world

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_cli.simulator.publication import Naming

__all__ = ["world"]

NODE = "prod:jp-1.example"
OPENING = Decimal(5)


class OlderWriter:
    """Plays a writer that commits each fact of each account by itself, as it goes.

    It knows one line and one pair of totals for an account on a node.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.connection = psycopg.connect(world.database_url, autocommit=True)
        self.totals: dict[str, tuple[int, int]] = {}

    def play(self, until: datetime) -> None:
        """Charge each snapshot before `until` in full."""
        for at, accounts in self.readings(until):
            for account, totals in accounts.items():
                self.charge(at, account, totals)
                self.checkpoint(at, account, totals)
            self.watermark(at)

    def readings(
        self, until: datetime, since: datetime | None = None
    ) -> list[tuple[datetime, dict[str, tuple[int, int]]]]:
        """Return (stamp, totals by account) of each snapshot in [since, until)."""
        node = self.world.node
        readings = []
        for snapshot in node.snapshots:
            if snapshot.collected_at >= until or (since and snapshot.collected_at < since):
                continue
            sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
            for place, stream in enumerate(node.streams):
                for side in (0, 1):
                    sums[stream.name.sample_uuid][side] += snapshot.totals[2 * place + side]
            at = snapshot.collected_at
            readings.append((at, {account: (one[0], one[1]) for account, one in sums.items()}))
        return readings

    def charge(self, at: datetime, account: str, totals: tuple[int, int]) -> None:
        """Write bucket, ledger entry and quota state of an account's minute."""
        before = self.totals.get(account, totals)
        up, down = totals[0] - before[0], totals[1] - before[1]
        minute = at.replace(second=0, microsecond=0)
        key = BucketKey(minute, NODE, account, "", "xhttp")
        amount = -float(self.world.price * (up + down))
        execute: Callable[..., Any] = self.connection.execute
        execute(
            "INSERT INTO traffic_minute_buckets (bucket_start, node_id, account_uuid, region,"
            " line_code, uplink_bytes, downlink_bytes, total_bytes, rating_status)"
            " VALUES (%s, %s, %s, '', 'xhttp', %s, %s, %s, 'rated')",
            (minute, NODE, account, up, down, up + down),
        )
        execute(
            "INSERT INTO account_quota_states (account_uuid, remaining_included_quota,"
            " current_balance, arrears, throttle_state, suspend_state, effective_at, updated_at)"
            " VALUES (%s, 0, %s, false, 'normal', 'active', now(), now())"
            " ON CONFLICT (account_uuid) DO UPDATE SET current_balance = round("
            "  (account_quota_states.current_balance + %s)::numeric, 9)",
            (account, float(OPENING) + amount, amount),
        )
        execute(
            "INSERT INTO billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,"
            " rated_bytes, amount_delta, balance_after)"
            " VALUES (%s, %s, %s, %s, 'traffic_charge', %s, %s, 0)",
            (ledger_id(key), account, minute, minute + timedelta(minutes=1), up + down, amount),
        )

    def checkpoint(self, at: datetime, account: str, totals: tuple[int, int]) -> None:
        """Write an account's totals."""
        self.totals[account] = totals
        self.connection.execute(
            "INSERT INTO traffic_stat_checkpoints (node_id, account_uuid, last_uplink_total,"
            " last_downlink_total, last_seen_at) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (node_id, account_uuid) DO UPDATE SET last_seen_at = %s,"
            " last_uplink_total = %s, last_downlink_total = %s",
            (NODE, account, *totals, at, at, *totals),
        )

    def watermark(self, at: datetime) -> None:
        """Write the source's watermark."""
        self.connection.execute(
            "INSERT INTO billing_source_sync_state (source_id, last_completed_until)"
            " VALUES ('jp-1', %s) ON CONFLICT (source_id)"
            " DO UPDATE SET last_completed_until = %s",
            (at, at),
        )


@pytest.fixture
def older(world: World) -> Any:
    """Return an older writer that has not written anything yet."""
    world.quota = 0
    writer = OlderWriter(world)
    yield writer
    writer.connection.close()


def assert_everything_is_billed_once(world: World) -> None:
    """The oracle's bytes and their price are on the books, whoever wrote them."""
    expected = Oracle(world.fleet).bytes_by_account()
    with psycopg.connect(world.database_url) as connection:
        billed = dict(
            connection.execute(
                "SELECT account_uuid::text, sum(total_bytes)::bigint"
                "  FROM traffic_minute_buckets GROUP BY 1"
            ).fetchall()
        )
        assert billed == {account: sum(moved) for account, moved in expected.items()}
        balances = connection.execute(
            "SELECT account_uuid::text, current_balance::text::numeric FROM account_quota_states"
        ).fetchall()
        ledger = dict(
            connection.execute(
                "SELECT account_uuid::text, sum(amount_delta::text::numeric)"
                "  FROM billing_ledger GROUP BY 1"
            ).fetchall()
        )
    for account, balance in balances:
        assert balance == OPENING - world.price * billed[account]
        assert OPENING + ledger[account] == balance


def test_the_first_run_goes_on_from_the_older_totals(world: World, older: OlderWriter) -> None:
    """An account with one stream goes on from the totals that were left."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))

    world.collect_every_minute(31, 60)

    assert_everything_is_billed_once(world)


def test_a_backlog_after_the_older_writer_is_caught_up(world: World, older: OlderWriter) -> None:
    """The service was off for a while between the two writers."""
    world.node.run(world.minutes(10), poll_seconds=60)
    world.node.run(world.minutes(60), poll_seconds=15)
    older.play(world.minutes(10))
    world.step_max_samples = 20

    world.catch_up(world.minutes(61))

    assert_everything_is_billed_once(world)


def test_since_is_ignored_with_a_note_after_the_legacy_writer(
    world: World, older: OlderWriter
) -> None:
    """The source goes on from where the legacy writer stopped, as without `--since`."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))

    result = world.catch_up(world.minutes(61), since=world.minutes(50))

    assert SINCE_IGNORED_FOR_LEGACY in result.sources[0].notes
    assert_everything_is_billed_once(world)


def test_a_minute_that_was_charged_before_the_crash_is_not_charged_again(
    world: World, older: OlderWriter
) -> None:
    """The legacy writer died between a minute's charge and its checkpoint, for some accounts."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    at, accounts = older.readings(world.minutes(31), since=world.minutes(30))[0]
    busy = [one for one in sorted(accounts) if accounts[one] != older.totals[one]]
    for account in busy[:1]:
        older.charge(at, account, accounts[account])

    result = world.catch_up(world.minutes(61))

    assert result.replayed_minutes == 1
    assert_everything_is_billed_once(world)


@pytest.mark.parametrize(("share", "replayed"), [(1, 1), (2, 0)], ids=["all", "half of it"])
def test_what_the_older_writer_charged_is_not_taken_back(
    world: World, older: OlderWriter, share: int, replayed: int
) -> None:
    """Nor is it charged again afterwards."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    at, accounts = older.readings(world.minutes(31), since=world.minutes(30))[0]
    busy = next(one for one in sorted(accounts) if accounts[one] != older.totals[one])
    before = older.totals[busy]
    moved = [(now - then) // share for now, then in zip(accounts[busy], before, strict=True)]
    older.charge(at, busy, (before[0] + moved[0], before[1] + moved[1]))
    assert world.catch_up(world.minutes(61)).replayed_minutes == replayed
    assert_everything_is_billed_once(world)

    order = Order("jp-1", world.minutes(30), world.minutes(32), None, "the node was compromised")
    result = world.job(reverse, world.minutes(62), order=order)

    note = f"{sum(moved)} bytes were charged by the legacy writer: they are not taken back"
    assert (result.status, result.notes) == ("ok", (note,))
    assert result.corrections > 0
    with psycopg.connect(world.database_url) as connection:
        left = connection.execute(
            "SELECT account_uuid::text, total_bytes FROM traffic_minute_buckets"
            " WHERE bucket_start BETWEEN %s AND %s AND total_bytes > 0",
            (world.minutes(30), world.minutes(31)),
        ).fetchall()
    assert left == [(busy, sum(moved))]
    report: Any = world.job(audit, world.minutes(62))
    assert report.violations == 0, report.findings
    again = world.job(reverse, world.minutes(62), order=order)
    assert (again.corrections, again.notes) == (0, (note,))
    assert world.reconcile(world.minutes(62)).corrections == 0
    world.reconcile(world.minutes(62), since=world.minutes(30))
    assert_everything_is_billed_once(world)


def test_bytes_stay_in_the_minute_in_which_the_older_writer_charged_them(
    world: World, older: OlderWriter
) -> None:
    """A snapshot that comes late shows that they flowed earlier: they are not charged there too."""
    world.node.run(world.minutes(60), poll_seconds=60)
    world.node.withhold(world.minutes(30), world.minutes(31), world.minutes(61.5))
    older.play(world.minutes(30))
    at, accounts = older.readings(world.minutes(32), since=world.minutes(31))[0]
    for account in accounts:
        older.charge(at, account, accounts[account])
    result = world.catch_up(world.minutes(61))
    assert result.replayed_minutes > 0
    assert_everything_is_billed_once(world)

    result = world.reconcile(world.minutes(62), since=world.minutes(30))

    assert result.corrections == 0
    assert any("can't be compared" in note for note in result.sources[0].notes)
    assert_everything_is_billed_once(world)


def test_a_charge_without_a_bucket_is_not_charged_again(world: World, older: OlderWriter) -> None:
    """Its ledger row tells no bytes: nothing more is charged, and the bucket is entered."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    at, accounts = older.readings(world.minutes(31), since=world.minutes(30))[0]
    busy = [one for one in sorted(accounts) if accounts[one] != older.totals[one]]
    older.charge(at, busy[0], accounts[busy[0]])
    older.connection.execute(
        "DELETE FROM traffic_minute_buckets WHERE bucket_start ="
        " (SELECT max(bucket_start) FROM traffic_minute_buckets)"
    )

    result = world.catch_up(world.minutes(61))

    assert result.replayed_minutes == 1
    assert_everything_is_billed_once(world)


@pytest.mark.parametrize("share", [1.0, 0.5, 1.5])
def test_a_bucket_without_a_ledger_row_is_charged(
    world: World, older: OlderWriter, share: float
) -> None:
    """The legacy writer died between the two: our bytes count, whatever its bucket holds."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    at, accounts = older.readings(world.minutes(31), since=world.minutes(30))[0]
    busy = [one for one in sorted(accounts) if accounts[one] != older.totals[one]]
    older.charge(at, busy[0], accounts[busy[0]])
    execute: Callable[..., Any] = older.connection.execute
    execute(
        "WITH died AS (DELETE FROM billing_ledger WHERE bucket_start ="
        "  (SELECT max(bucket_start) FROM billing_ledger) RETURNING account_uuid, amount_delta)"
        " UPDATE account_quota_states AS state"
        " SET current_balance = round((current_balance - amount_delta)::numeric, 9)"
        " FROM died WHERE state.account_uuid = died.account_uuid"
    )
    execute(
        "UPDATE traffic_minute_buckets SET uplink_bytes = uplink_bytes * %(share)s,"
        " downlink_bytes = downlink_bytes * %(share)s, total_bytes ="
        " (uplink_bytes * %(share)s)::bigint + (downlink_bytes * %(share)s)::bigint"
        " WHERE bucket_start = (SELECT max(bucket_start) FROM traffic_minute_buckets)",
        {"share": share},
    )

    result = world.catch_up(world.minutes(61))

    assert result.replayed_minutes == 0
    assert_everything_is_billed_once(world)
    report: Any = world.job(audit, world.minutes(62))
    assert report.violations == 0, report.findings


def test_checkpoints_ahead_of_the_watermark_are_kept(world: World, older: OlderWriter) -> None:
    """The legacy writer died after some checkpoints and before its watermark."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    for at, accounts in older.readings(world.minutes(33), since=world.minutes(30)):
        for account in sorted(accounts)[:2]:
            older.charge(at, account, accounts[account])
            older.checkpoint(at, account, accounts[account])

    result = world.catch_up(world.minutes(61))

    assert result.sources[0].resets == 0
    assert_everything_is_billed_once(world)


@pytest.mark.parametrize("minutes_each", [1, 61])
def test_checkpoints_of_several_streams_ahead_of_the_watermark_are_kept(
    world: World, older: OlderWriter, minutes_each: int
) -> None:
    """The sum is split as the streams were when the legacy writer read them."""
    world.node.add_stream(world.users[0].uuid, "vless")
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    account = world.users[0].uuid
    for at, accounts in older.readings(world.minutes(33), since=world.minutes(30)):
        older.charge(at, account, accounts[account])
        older.checkpoint(at, account, accounts[account])

    for minute in range(30 + minutes_each, 61 + minutes_each, minutes_each):
        result = world.catch_up(world.minutes(min(minute, 61)))
        assert result.sources[0].resets == 0

    assert_everything_is_billed_once(world)


@pytest.mark.parametrize("naming", [merged, retagged({"xhttp": "xhttp-2", "vless": "vless-2"})])
def test_an_exporter_upgrade_in_the_backlog_of_the_first_run_charges_nothing_twice(
    world: World, older: OlderWriter, naming: Naming
) -> None:
    """The former names go on from the legacy totals, and the later ones from those."""
    world.node.add_stream(world.users[0].uuid, "vless")
    world.node.run(world.minutes(45), poll_seconds=60)
    older.play(world.minutes(30))
    world.node.naming = naming
    world.node.run(world.minutes(60), poll_seconds=60)

    result = world.catch_up(world.minutes(61))

    assert result.successions > 0
    assert_everything_is_billed_once(world)


def test_a_watermark_at_a_whole_minute_passes_nothing_over(
    world: World, older: OlderWriter
) -> None:
    """The older writer may note the end of the window that it asked for."""
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))
    older.watermark(world.minutes(30))

    world.collect_every_minute(31, 60)

    assert_everything_is_billed_once(world)


def test_the_sum_over_several_inbounds_is_kept_right(world: World, older: OlderWriter) -> None:
    """An account with two streams goes on from a split whose sum is exact."""
    world.node.add_stream(world.users[0].uuid, "vless")
    world.node.run(world.minutes(60), poll_seconds=60)
    older.play(world.minutes(30))

    world.catch_up(world.minutes(61))

    assert_everything_is_billed_once(world)


def test_counters_that_restarted_between_the_writers_lose_nothing(
    world: World, older: OlderWriter
) -> None:
    """A restart right after a snapshot is charged from zero, for one stream and for several."""
    world.node.add_stream(world.users[0].uuid, "vless")
    world.node.run(world.minutes(30), poll_seconds=60)
    last = world.node.snapshots[-1]
    world.node.restart_xray(last.collected_at)
    older.play(world.minutes(31))
    world.node.run(world.minutes(60), poll_seconds=60, rate=1.0)

    world.catch_up(world.minutes(61))

    assert_everything_is_billed_once(world)
