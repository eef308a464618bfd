from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator.demo import play
from billing_cli.simulator.demo_fleet import DemoFleet, build_fleet
from billing_cli.simulator.demo_report import report
from billing_cli.simulator.oracle import Oracle
from billing_cli.simulator.traffic import DEFAULT_START
from tests.integration.simulator.planted import Planted, planted_books

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def planted(database_url: str) -> Iterator[Planted]:
    """Return two minutes of one account, rightly billed."""
    with planted_books(database_url) as books:
        yield books


def test_the_demo_bills_every_byte_once(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an empty database to the closing table, through real processes and real HTTP."""
    is_right = play(empty_database_url, datetime.now(UTC))
    shown = capsys.readouterr().out
    assert is_right, shown
    assert "was billed exactly once." in shown
    assert "$ billing catch-up --since" in shown
    assert "broken:" not in shown


def test_the_closing_tables_say_where_the_truth_was_missed(planted: Planted) -> None:
    """Right books show a ratio of 1.0000 everywhere; one missing byte shows, and is named."""
    told = DemoFleet(
        fleet=planted.fleet,
        endpoints={},
        middle=planted.fleet.start,
        end=planted.fleet.start + timedelta(hours=1),
        known_users=planted.fleet.users,
        funds={},
        default_funds=planted.before.default,
    )
    lines, is_right = report(planted.connection, told, planted.before)
    assert is_right
    assert [line.split()[3] for line in lines[1:3]] == ["1.0000", "1.0000"]
    assert "bytes:  buckets 33 = charged or included 33" in lines

    planted.damage(
        """
        UPDATE public.traffic_minute_buckets SET uplink_bytes = 9, total_bytes = 29
        WHERE uplink_bytes = 10
        """
    )
    lines, is_right = report(planted.connection, told, planted.before)
    assert not is_right
    assert lines[1].split()[1:4] == ["33", "32", "0.969696970"]
    assert any(line.startswith("broken: ") for line in lines)


def test_the_demo_fleet_has_what_its_story_tells() -> None:
    """Restart, outage, two inbounds, stranger, renewal and an idle user are really there."""
    start = DEFAULT_START
    told = build_fleet(start, start + timedelta(minutes=30))
    jp, us, de = told.fleet.nodes.values()
    assert len(jp.restarts) == 1
    assert any(share.reason == "reset" for share in Oracle(told.fleet).unbilled())
    stamps = [snapshot.collected_at for snapshot in us.snapshots]
    assert max(later - earlier for earlier, later in pairwise(stamps)) > timedelta(minutes=6)
    names = [stream.name.sample_uuid for stream in jp.streams]
    assert names.count(told.fleet.users[0].uuid) == 2
    known = {user.proxy_uuid for user in told.known_users}
    assert len({stream.name.sample_uuid for stream in de.streams} - known) == 2
    assert told.fleet.users[1].uuid not in Oracle(told.fleet).bytes_by_account()
    assert len(told.fleet.users) == len(told.known_users) + 1
