"""Usage that waits on nodes that no source carries any more is a matter of its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.jobs.collect import collect
from tests.integration.jobs.faults import accept_again, refuse
from tests.integration.jobs.test_settling import (
    READ_BUCKETS,
    READ_WAITING,
    let_usage_wait,
    set_balance,
)

if TYPE_CHECKING:
    from billing_cli.core.result import RunResult
    from tests.support.story import Story

TABLE = "traffic_minute_buckets"


class Retired:
    """A user whose usage waits on a node whose source is gone, and two nodes of others."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.user, *others = (story.add_user() for _ in range(3))
        self.node, *nodes = [story.add_node(name) for name in ("jp-1", "a-1", "us-1")]
        self.streams = [node.add_stream(user.uuid, "x") for node in nodes for user in others]
        let_usage_wait(story, self.user, self.node)
        story.now += timedelta(hours=25)
        self.collect()

    def collect(self) -> RunResult:
        """Let bytes flow on the two nodes, and collect from them."""
        self.story.minute(*((stream, 5, 0) for stream in self.streams))
        context = self.story.context()
        rest = [source for source in context.sources if source.source_id != "jp-1"]
        return collect(replace(context, sources=tuple(rest)))

    def require_settled(self) -> None:
        """Require that all of it was charged."""
        stored = self.node.identity.stored
        assert self.story.rows(READ_WAITING) == [(0,)]
        assert self.story.rows(READ_BUCKETS, self.user.uuid) == [(stored, 10), (stored, 5_000)]


@pytest.fixture
def retired(story: Story) -> Retired:
    """Return usage that waits for its account, on a node that no source carries."""
    return Retired(story)


def statuses(result: RunResult) -> dict[str, str]:
    """Return the statuses of the sources."""
    return {source.source_id: source.status for source in result.sources}


def test_an_account_that_can_t_be_charged_is_a_note_of_the_run(retired: Retired) -> None:
    """No source has to do with it."""
    result = retired.collect()
    assert statuses(result) == {"a-1": "ok", "us-1": "ok"}
    assert [note for note in result.notes if retired.user.uuid in note] != []
    set_balance(retired.story, retired.user, Decimal("4.99"))
    retired.collect()
    retired.require_settled()


@pytest.mark.parametrize("is_deferred", [False, True])
def test_where_it_is_refused_no_source_fails(retired: Retired, *, is_deferred: bool) -> None:
    """It is left to a later run."""
    story = retired.story
    set_balance(story, retired.user, Decimal("4.99"))
    refuse(story, TABLE, "NEW.node_id ~ 'jp-1'", is_deferred=is_deferred)
    result = retired.collect()
    assert statuses(result) == {"a-1": "ok", "us-1": "ok"}
    assert story.rows(READ_WAITING) == [(1,)]
    assert is_deferred or [note for note in result.notes if "simulated" in note] != []
    accept_again(story)
    retired.collect()
    retired.require_settled()


@pytest.mark.parametrize("is_deferred", [False, True])
def test_it_is_settled_though_the_first_source_is_refused(
    retired: Retired, *, is_deferred: bool
) -> None:
    """The source catches up when the cause is gone."""
    story = retired.story
    set_balance(story, retired.user, Decimal("4.99"))
    refuse(story, TABLE, "NEW.node_id ~ 'a-1'", is_deferred=is_deferred)
    assert statuses(retired.collect()) == {"a-1": "error", "us-1": "ok"}
    retired.require_settled()
    accept_again(story)
    assert statuses(retired.collect()) == {"a-1": "ok", "us-1": "ok"}


def test_a_run_that_settles_it_while_all_sources_are_busy_is_partial(retired: Retired) -> None:
    """Its rows are locked one by one: another run may have the sources."""
    set_balance(retired.story, retired.user, Decimal("4.99"))
    with retired.story.connection.transaction():
        retired.story.rows("SELECT FROM billing.sources FOR UPDATE")
        result = retired.collect()
    assert (result.status, result.written_minutes) == ("partial", 1)
    assert statuses(result) == {"a-1": "busy", "us-1": "busy"}
    retired.require_settled()
