"""What is decided together: an account's minute, a node's minute, a duplicate stream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from billing_cli.errors import BillingError, UsageError
from billing_cli.features.audit.job import audit
from billing_cli.features.held.job import list_held, reject_held, release_held, select_held
from billing_cli.jobs.collect import collect
from billing_cli.simulator.publication import as_counted, both, merged
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult
    from billing_cli.features.held.result import HeldUnit
    from billing_cli.simulator.traffic import Stream, User
    from tests.support.story import Story

WHY = "a load test"
JUMP = 1_000_000


def units(story: Story) -> list[HeldUnit]:
    """Return what waits for a decision."""
    return list(list_held(story.context()).units)


def is_clean(story: Story) -> bool:
    """Tell whether an audit finds no violation."""
    return audit(story.context()).violations == 0


class Duplicate:
    """A counter that a new exporter publishes in addition under the tag ''."""

    def __init__(self, story: Story) -> None:
        self.user: User = story.add_user()
        node = story.add_node("jp-1")
        self.stream: Stream = node.add_stream(self.user.uuid, "xhttp")
        story.minute()
        story.minute((self.stream, 10, 20))
        node.naming = both(as_counted, merged)
        story.minute((self.stream, 1, 2))
        story.minute((self.stream, 3, 4))
        story.collect()


def test_an_account_s_minute_is_one_unit(story: Story) -> None:
    """All its streams on the node together."""
    user, node = story.add_user(), story.add_node("jp-1")
    streams = [node.add_stream(user.uuid, tag) for tag in ("tcp", "xhttp")]
    story.minute()
    story.minute((streams[0], JUMP, 0), (streams[1], 0, JUMP))
    context = story.context()
    slow = replace(context.deltas, account_rate_bits_per_second=8_000, line_rate_bits_per_second=0)
    collect(replace(context, deltas=slow))
    (unit,) = units(story)
    assert (unit.held_reason, unit.account_uuid, unit.minute) == (
        "account_rate",
        user.uuid,
        START + MINUTE,
    )
    assert (unit.total_bytes, len(unit.deltas)) == (2 * JUMP, 2)


def test_a_node_s_minute_is_one_unit(story: Story) -> None:
    """Of all accounts together, each of which is within its own rate."""
    users, node = [story.add_user() for _ in range(2)], story.add_node("jp-1")
    streams = [node.add_stream(user.uuid, "xhttp") for user in users]
    story.minute()
    story.minute(*((stream, JUMP, 0) for stream in streams))
    context = story.context()
    slow = replace(context.deltas, account_rate_bits_per_second=0, line_rate_bits_per_second=8_000)
    collect(replace(context, deltas=slow))
    (unit,) = units(story)
    assert (unit.held_reason, unit.account_uuid, unit.total_bytes) == ("line_rate", None, 2 * JUMP)


def test_units_of_a_source_are_decided_by_time(story: Story) -> None:
    """All that was seen from a minute on, and before another one."""
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    for _ in range(3):
        story.minute((stream, JUMP, 0))
    story.collect()
    context = story.context()
    second, third = START + 2 * MINUTE, START + 3 * MINUTE
    ids = select_held(context, "jp-1", second, third)
    assert len(ids) == 1
    release_held(context, ids, WHY)
    assert [unit.minute for unit in units(story)] == [START + MINUTE, third]
    assert story.paid(user) == JUMP * story.price
    with pytest.raises(UsageError, match="source jp-1 has no held deltas from 2026-"):
        select_held(context, "jp-1", third + MINUTE)
    with pytest.raises(UsageError, match="unknown source mars-1"):
        select_held(context, "mars-1", START)


def test_the_command_names_units_by_source_and_time(story: Story) -> None:
    """Ids and --source exclude each other, and one of them is needed."""
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, JUMP, 0))
    story.collect()
    why, source = ("--reason", WHY), ("--source", "jp-1", "--since", "2026-04-08T00:00:00Z")
    assert story.billing("held", "release", *why).exit_code == 2
    assert story.billing("held", "release", "1", *source, *why).exit_code == 2
    done = story.billing("held", "release", *source, *why, "--json")
    assert (done.exit_code, done.json["charged_bytes"]) == (0, JUMP)


def test_a_release_consumes_no_credit(story: Story) -> None:
    """What an operator decided leaves the limits of the account and the node as they were."""
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, JUMP, 0))
    story.collect()
    credit = (
        "SELECT source.debt_bytes, source.debt_at, source.credit_since, account_key,"
        "       debt.debt_bytes, as_of"
        "  FROM billing.sources AS source LEFT JOIN billing.account_debts AS debt"
        " USING (stored_node_id) ORDER BY account_key"
    )
    before = story.rows(credit)
    release_held(story.context(), [unit.deltas[0].held_id for unit in units(story)], WHY)
    assert story.rows(credit) == before


def test_more_bytes_than_a_bucket_can_hold_are_refused(story: Story) -> None:
    """With the delta, the limit and what can be done; nothing is changed."""
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, JUMP, 0))
    story.collect()
    (unit,) = units(story)
    story.connection.execute("UPDATE billing.held_deltas SET downlink_end = 9223372036854775807")
    before = story.facts()
    with pytest.raises(BillingError, match="more than 9223372036854775807 bytes, which no bucket"):
        release_held(story.context(), [unit.deltas[0].held_id], WHY)
    assert story.facts() == before
    story.connection.execute("UPDATE billing.held_deltas SET downlink_end = 0")


def test_a_duplicate_stream_is_one_unit(story: Story) -> None:
    """Whatever it counted so far; the stream that was there before is charged."""
    duplicate = Duplicate(story)
    (unit,) = units(story)
    assert (unit.held_reason, unit.account_uuid) == ("duplicate", duplicate.user.uuid)
    assert unit.total_bytes == 40
    assert story.paid(duplicate.user) == 40 * story.price
    assert is_clean(story)


def test_a_released_duplicate_is_charged_from_then_on(story: Story) -> None:
    """Its held bytes are charged, and its stream is active."""
    duplicate = Duplicate(story)
    release_held(story.context(), [delta.held_id for delta in units(story)[0].deltas], WHY)
    assert story.paid(duplicate.user) == 80 * story.price
    story.minute((duplicate.stream, 100, 0))
    result: RunResult = story.collect()
    assert result.sources[0].held_deltas == 0
    assert story.paid(duplicate.user) == 280 * story.price
    assert is_clean(story)


def test_a_rejected_duplicate_is_ignored_from_then_on(story: Story) -> None:
    """Neither held nor charged, however long it goes on."""
    duplicate = Duplicate(story)
    reject_held(story.context(), [delta.held_id for delta in units(story)[0].deltas], WHY)
    assert story.rows("SELECT state FROM billing.streams WHERE inbound_tag = ''") == [("ignored",)]
    for _ in range(2):
        story.minute((duplicate.stream, 100, 0))
        assert story.collect().sources[0].held_deltas == 0
    assert units(story) == []
    assert story.paid(duplicate.user) == 240 * story.price
    assert is_clean(story)


def test_uncertain_bytes_are_listed_for_information(story: Story) -> None:
    """Those of open gaps; nothing can be decided about them here."""
    story.add_node("jp-1")
    story.minute()
    story.collect()
    story.connection.execute(
        "INSERT INTO billing.gaps (source_id, kind, from_at, to_at, streams, uncertain_bytes,"
        " resolved_at) VALUES ('jp-1', 'uncertain', %(at)s, %(at)s, 1, 77, NULL),"
        " ('jp-1', 'disorder', %(at)s, %(at)s, 1, 0, NULL),"
        " ('jp-1', 'disorder', '2026-01-01', '2026-01-01', 1, 5, now())",
        {"at": START},
    )
    (gap,) = list_held(story.context()).gaps
    assert (gap.source_id, gap.kind, gap.uncertain_bytes) == ("jp-1", "uncertain", 77)
    assert "77 B" in story.billing("held", "list").stdout
