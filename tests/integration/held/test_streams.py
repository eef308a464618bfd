"""`billing streams`: whose the counters are, and what waits for an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.cli.printing import text_of
from billing_cli.errors import UsageError
from billing_cli.features.streams.report import list_streams, streams_object, streams_parts
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.publication import as_counted, both, merged
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import Stream
    from tests.support.story import Story


@pytest.fixture
def stranger(story: Story) -> Stream:
    """Return a stream without account, beside one that has an account and one of another node."""
    user = story.add_user()
    node = story.add_node("jp-1")
    known = node.add_stream(user.uuid, "xhttp")
    unknown = node.add_stream(story.fleet.new_uuid(), "xhttp")
    story.add_node("us-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((known, 1, 2), (unknown, 30, 40))
    story.minute((unknown, 5, 0))
    story.collect()
    return unknown


def test_an_unresolved_stream_shows_what_waits_for_its_account(
    story: Story, stranger: Stream
) -> None:
    """Its bytes are kept, and charged when the account appears."""
    (found,) = list_streams(story.context(), is_unresolved_only=True)
    assert (found.name, found.account_uuid) == (stranger.name, None)
    assert (found.source_id, found.stored_node_id) == ("jp-1", "prod:jp-1.svc.plus")
    assert (found.first_seen_at, found.changed_at) == (START, START + 2 * MINUTE)
    assert (found.totals, found.pending_bytes) == ((35, 40), 75)


def test_a_resolved_stream_waits_for_nothing(story: Story, stranger: Stream) -> None:
    """What was pending is billed with the next collect, and the stream has its account."""
    user = story.fleet.add_user(stranger.name.sample_uuid)
    save_users(story.connection, [user])
    story.minute()
    story.collect()
    assert list_streams(story.context(), is_unresolved_only=True) == []
    (found,) = [stream for stream in list_streams(story.context()) if stream.name == stranger.name]
    assert (found.account_uuid, found.pending_bytes) == (user.uuid, 0)
    assert story.paid(user) == 75 * story.price


@pytest.mark.usefixtures("stranger")
def test_streams_can_be_narrowed_to_sources(story: Story) -> None:
    """A name that nobody knows is an error; one that never answered has no streams."""
    story.add_node("de-1")
    assert [stream.source_id for stream in list_streams(story.context())] == [
        "jp-1",
        "jp-1",
        "us-1",
    ]
    assert [stream.source_id for stream in list_streams(story.context(), ["us-1"])] == ["us-1"]
    assert list_streams(story.context(), ["de-1"]) == []
    with pytest.raises(UsageError, match="unknown source mars-1"):
        list_streams(story.context(), ["us-1", "mars-1"])


def test_the_command_prints_streams_as_json_or_as_a_table(story: Story, stranger: Stream) -> None:
    """The same figures in both."""
    printed = story.billing("streams", "--unresolved", "--json")
    assert (printed.exit_code, printed.json["job"]) == (0, "streams")
    (one,) = printed.json["streams"]
    assert (one["sample_uuid"], one["pending_bytes"]) == (stranger.name.sample_uuid, 75)
    table = story.billing("streams", "--source", "jp-1").stdout
    assert stranger.name.sample_uuid in table
    assert "75 B" in table
    assert story.billing("streams", "--source", "mars-1").exit_code == 2


def test_no_streams_are_said_to_be_none() -> None:
    """An empty table would look like a mistake."""
    assert text_of(streams_parts([])) == "no streams"


def test_a_stream_s_state_is_shown_and_how_a_duplicate_is_decided(story: Story) -> None:
    """Names that were given up are continued, and those published in addition are duplicates."""
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 20))
    node.naming = both(as_counted, merged)
    story.minute((stream, 1, 2))
    story.collect()
    streams = list_streams(story.context())
    assert [(one.name.inbound_tag, one.state) for one in streams] == [
        ("", "duplicate"),
        ("xhttp", "active"),
    ]
    assert "`billing held release` charges it from now on" in text_of(streams_parts(streams))
    assert [one["state"] for one in streams_object(streams)["streams"]] == ["duplicate", "active"]
