"""Errors of versions before revision 0003, whose usage records have no run: notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from billing_cli.features.audit.findings import Finding
    from tests.integration.audit.full_story import FullStory

ACCOUNT = "11111111-1111-1111-1111-111111111111"

# (stream, tag, origin, first seen, first total, epoch, last total, absent since); minutes of an
# hour, bytes of each direction.
STREAM = """
INSERT INTO billing.streams (stream_id, stored_node_id, inbound_tag, sample_uuid, account_uuid,
       origin, first_seen_at, first_uplink_total, first_downlink_total, seen_at,
       uplink_total, downlink_total, reset_epoch, absent_since)
OVERRIDING SYSTEM VALUE
SELECT id, 'prod:old', tag, %(account)s, %(account)s, origin, pg_temp.at(seen),
       first, first, pg_temp.at(coalesce(absent, 9)), last, last, epoch, pg_temp.at(absent)
  FROM (VALUES {rows}) AS given (id, tag, origin, seen, first, epoch, last, absent)
"""
AT = """
CREATE FUNCTION pg_temp.at(minute integer) RETURNS timestamptz LANGUAGE sql AS
$$ SELECT '2026-01-01 12:00:00+00'::timestamptz + minute * interval '1 minute' $$
"""
RECORD = """
INSERT INTO billing.usage_records (bucket_start, stream_id, from_at, revision, reset_epoch, to_at,
       uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, run_id)
SELECT pg_temp.at(until), id, pg_temp.at(since), 0, epoch, pg_temp.at(until), first, last, first,
       last, %(account)s, %(run_id)s
  FROM (VALUES {rows}) AS given (id, epoch, since, until, first, last)
"""
RUN = "22222222-2222-2222-2222-222222222222"

MERGED = (
    (
        "(1, 'tcp', 'new', 1, 0, 0, 300, 5), (2, 'xhttp', 'new', 1, 0, 0, 200, 5),"
        "(3, '', 'new', 6, 550, 0, 550, NULL::integer)"
    ),
    "(3, 0, 5, 6, 0, 550)",
)
RESTARTED = "(1, 'tcp', 'new', 1, 0, 1, 1100, NULL::integer)"
CLOCK_BACK = "(1, 0, 1, 5, 0, 1000), (1, 1, 5, 6, 0, 950), (1, 1, 6, 7, 950, 1100)"
REAL_RESTART = "(1, 0, 1, 5, 0, 1000), (1, 1, 5, 6, 0, 50), (1, 1, 6, 7, 50, 100)"


def notices(
    story: FullStory, kind: str, streams: str, records: str, run_id: str | None = None
) -> list[Finding]:
    """Return what an audit finds of a kind where these rows are all that is stored."""
    given = {"account": ACCOUNT, "run_id": run_id}
    with psycopg.connect(story.database_url) as connection:
        connection.execute(AT)
        connection.execute(STREAM.format(rows=streams).encode(), given)
        connection.execute(RECORD.format(rows=records).encode(), given)
    return [finding for finding in story.audit().findings if finding.kind == kind]


def test_a_counter_that_was_charged_again_under_another_name_is_named(story: FullStory) -> None:
    """Two inbounds became one: with account, node, minute and the bytes charged twice."""
    (found,) = notices(story, "past_succession", *MERGED)
    assert (found.account_uuid, found.keys["node_id"]) == (ACCOUNT, "prod:old")
    assert (found.found["streams"], found.found["bytes"]) == (1, 1000)
    assert f"{found.keys['bucket_start']:%H:%M}" == "12:06"
    assert not found.is_violation


def test_what_this_version_charged_is_no_past_error(story: FullStory) -> None:
    """Its records have their run: it decided about successions itself."""
    assert notices(story, "past_succession", *MERGED, run_id=RUN) == []


def test_a_clock_change_that_was_charged_as_a_restart_is_named(story: FullStory) -> None:
    """The counters were back within minutes; charged twice is what they had counted before."""
    (found,) = notices(story, "past_clock_change", RESTARTED, CLOCK_BACK)
    assert (found.account_uuid, found.found["bytes"]) == (ACCOUNT, 2000)
    assert f"{found.keys['bucket_start']:%H:%M}" == "12:06"


@pytest.mark.parametrize(
    ("records", "run_id"), [(REAL_RESTART, None), (CLOCK_BACK, RUN)], ids=["restart", "new"]
)
def test_a_restart_is_no_past_error(story: FullStory, records: str, run_id: str | None) -> None:
    """Counters that stay below, and what this version decided about."""
    assert notices(story, "past_clock_change", RESTARTED, records, run_id) == []
