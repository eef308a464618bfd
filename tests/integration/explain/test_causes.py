"""The causes that `explain` gives for usage records that are not of an ordinary minute."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.cli.printing import text_of
from billing_cli.features.explain.job import explain
from billing_cli.features.explain.text import explain_parts
from billing_cli.features.held.job import release_held
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.simulator.publication import as_counted, both, merged
from tests.support.story import START

if TYPE_CHECKING:
    from billing_cli.simulator.traffic import User
    from tests.support.story import Story


def explained(story: Story, user: User) -> str:
    """Return the text about a user's charges."""
    return text_of(explain_parts(explain(story.context(), user.uuid)))


def test_a_reversed_minute_is_not_explained_by_the_exporter_s_history(story: Story) -> None:
    """The record that takes it back names `billing reverse`."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 0))
    story.collect()
    order = Order("jp-1", START, None, None, "the node was compromised")
    reverse(replace(story.context(), job="reverse"), order)

    text = explained(story, user)

    assert "taken back by `billing reverse`, within" in text
    assert "the exporter's history" not in text


def test_a_released_duplicate_was_not_above_a_rate(story: Story) -> None:
    """The reason why it was held is that of the held delta."""
    user, node = story.add_user(), story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 20))
    node.naming = both(as_counted, merged)
    story.minute((stream, 1, 2))
    story.collect()
    held = [held_id for (held_id,) in story.rows("SELECT held_id FROM billing.held_deltas")]
    release_held(story.context(), held, "it is another device")
    story.minute((stream, 1, 0))
    story.collect()

    text = explained(story, user)

    cause = "another stream counts the same bytes"
    assert f"it was held ({cause}) and released: it is another device" in text
