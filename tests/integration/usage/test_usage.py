"""`billing usage`: bytes and money of a range, in groups that add up."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.cli.printing import text_of
from billing_cli.core.times import format_rfc3339
from billing_cli.features.usage.command import GROUPS
from billing_cli.features.usage.report import usage, usage_parts
from billing_cli.simulator.accounts import save_users
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from tests.support.story import Story

PRICE = Decimal("0.001")


@pytest.fixture
def used(story: Story) -> list[Any]:
    """Return two users who used 300 and 30 bytes on a node each, in both directions."""
    users = [story.add_user(), story.add_user()]
    streams = [
        story.add_node(name).add_stream(user.uuid, tag)
        for name, tag, user in zip(("jp-1", "us-1"), ("xhttp", "tcp"), users, strict=True)
    ]
    story.quota = 100
    story.minute()
    story.minute((streams[0], 100, 200), (streams[1], 10, 20))
    story.collect()
    return users


def report(story: Story, by: Any, **options: Any) -> Any:
    """Return the usage of the whole story."""
    return usage(story.context(), by, since=START, until=story.now + MINUTE, **options)


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("by", GROUPS)
def test_the_groups_add_up_to_what_was_billed(story: Story, by: Any) -> None:
    """Bytes to the buckets, money to the ledger, whatever they are grouped by."""
    found = report(story, by)
    ((total_bytes, amount),) = story.rows(
        "SELECT (SELECT sum(total_bytes) FROM traffic_minute_buckets)::bigint,"
        " -(SELECT sum(amount_delta) FROM billing.charges)"
    )
    assert found.total.total_bytes == total_bytes == 330
    assert found.total.amount == amount
    assert found.total.included_bytes + found.total.rated_bytes == total_bytes
    assert sum(row.total_bytes for row in found.rows) == total_bytes


def test_groups_are_named_and_the_largest_comes_first(story: Story, used: list[Any]) -> None:
    """Nodes, tags and accounts by size; days and hours by time."""
    assert [row.key for row in report(story, "account").rows] == [user.uuid for user in used]
    assert [row.key for row in report(story, "inbound-tag").rows] == ["xhttp", "tcp"]
    nodes = [row.key for row in report(story, "node").rows]
    assert [node.partition("-")[0].rpartition(":")[2] for node in nodes] == ["jp", "us"]
    assert [row.key for row in report(story, "day").rows] == [f"{START:%Y-%m-%d}"]
    hour = START.replace(minute=0)
    assert [row.key for row in report(story, "hour").rows] == [format_rfc3339(hour)]


def test_charges_of_an_account_that_was_deleted_are_noted(story: Story, used: list[Any]) -> None:
    """Its buckets went with it; it may have been created again."""
    # At the end, the buckets do not explain the charges of the deleted account.
    story.broken_invariants = list  # type: ignore[method-assign]
    assert report(story, "account").deleted_amount == 0
    story.connection.execute("DELETE FROM public.users WHERE uuid = %s", (used[0].uuid,))
    save_users(story.connection, used[:1])
    stream = next(iter(story.fleet.nodes.values())).streams[0]
    story.minute((stream, 1, 2))
    story.collect()
    found = report(story, "account")
    ((former, all_charges),) = story.rows(
        "SELECT -sum(amount_delta) FILTER (WHERE bucket_start < %s), -sum(amount_delta)"
        " FROM billing.charges",
        story.now,
    )
    assert (found.deleted_amount, found.total.amount) == (former, all_charges)
    assert found.total.total_bytes == 33
    note = f"note: {former:f} of the amounts was charged to accounts before they were deleted"
    assert note in text_of(usage_parts(found))
    assert report(story, "account", account=used[1].uuid).deleted_amount == 0


@pytest.mark.usefixtures("used")
def test_top_sums_up_the_others(story: Story) -> None:
    """Nothing is left out of the total."""
    found = report(story, "account", top=1)
    assert (len(found.rows), found.others.total_bytes, found.total.total_bytes) == (1, 30, 330)


@pytest.mark.usefixtures("used")
def test_bars_show_the_share_of_the_largest(story: Story) -> None:
    """On a terminal; the total has none."""
    lines = text_of(usage_parts(report(story, "account"), has_bars=True)).splitlines()
    assert [line.count("█") for line in lines] == [0, 20, 2, 0]


@pytest.mark.parametrize("by", GROUPS)
def test_bytes_that_are_null_count_as_0(story: Story, by: Any) -> None:
    """Another writer's, where the columns of a deployment allow it."""
    user = story.add_user()
    story.connection.execute(
        "ALTER TABLE public.traffic_minute_buckets ALTER uplink_bytes DROP NOT NULL,"
        " ALTER downlink_bytes DROP NOT NULL"
    )
    story.connection.execute(
        "INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid,"
        " uplink_bytes, downlink_bytes, total_bytes) VALUES (%s, 'prod:old', %s, NULL, NULL, 0)",
        [START, user.uuid],
    )
    (row,) = report(story, by).rows
    assert (row.total_bytes, row.amount) == (0, 0)
    # The check of the invariants at the end adds up numbers.
    story.connection.execute("DELETE FROM public.traffic_minute_buckets")


def test_csv_holds_plain_numbers(story: Story, used: list[Any]) -> None:
    """One line a group, for a spreadsheet."""
    done = story.billing("usage", "--by", "account", *full_range(story), "--output", "csv")
    assert done.exit_code == 0, done.stderr
    first, second = csv.DictReader(io.StringIO(done.stdout))
    assert (first["account"], first["total_bytes"], second["total_bytes"]) == (
        used[0].uuid,
        "300",
        "30",
    )
    assert Decimal(first["amount"]) == Decimal(first["rated_bytes"]) * PRICE


def full_range(story: Story) -> tuple[str, ...]:
    """Return the options of a range that holds the story."""
    return ("--since", format_rfc3339(START), "--until", format_rfc3339(story.now + MINUTE))
