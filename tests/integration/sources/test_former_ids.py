"""A node id that was given up by a move: another machine that comes with it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from billing_cli.errors import BillingError
from billing_cli.features.audit.job import audit
from billing_cli.features.sources.job import MoveResult, move_source
from billing_cli.jobs.collect import collect
from tests.integration.jobs.world import only_source
from tests.support.story import MINUTE

if TYPE_CHECKING:
    from billing_cli.config.source import Source
    from billing_cli.core.result import RunResult
    from tests.support.story import Story

FORMER_ID = "jp-1.svc.plus"
FORMER = f"prod:{FORMER_ID}"
READ_BYTES = "SELECT coalesce(sum(total_bytes), 0) FROM public.traffic_minute_buckets"
READ_NODES = "SELECT source_id, stored_node_id, former_nodes FROM billing.sources ORDER BY 1"


class Renamed:
    """A machine that gave up its id, with 5,000 bytes charged, and one that may take it."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.node = story.add_node("jp-1")
        self.user = story.add_user()
        self.stream = self.node.add_stream(self.user.uuid, "x")
        story.minute()
        story.minute((self.stream, 5_000, 0))
        story.collect()
        self.node.rename("b")
        assert self.move("jp-1", "prod:b").status == "ok"
        story.minute((self.stream, 1_000, 0))
        story.collect()

    def move(self, old: str, new: str) -> MoveResult:
        """Let the counters of a source go on under another id."""
        return move_source(self.story.context(), old, new, is_same_counters=True)

    def add_machine(self, node_id: str) -> None:
        """Add a new machine with the same user and tag, which counts from zero."""
        machine = self.story.fleet.add_node("jp-9", node_id=node_id)
        stream = machine.add_stream(self.user.uuid, "x")
        for uplink in (300, 600, 600):
            self.story.minute((stream, uplink, 0), (self.stream, 100, 0))

    def assert_charged(self, charged: int) -> None:
        """Nothing is held, and the books agree."""
        assert self.story.rows(READ_BYTES) == [(charged,)]
        assert self.story.rows("SELECT count(*) FROM billing.held_deltas") == [(0,)]
        assert audit(self.story.context()).findings == ()


@pytest.fixture
def renamed(story: Story) -> Renamed:
    """Return a machine that gave up its id."""
    return Renamed(story)


def errors_of(result: RunResult) -> dict[str, str | None]:
    """Return the error of each source."""
    return {source.source_id: source.error for source in result.sources}


@pytest.mark.parametrize("is_expected", [True, False], ids=["expected", "not expected"])
def test_a_new_machine_with_a_former_id_is_refused(renamed: Renamed, *, is_expected: bool) -> None:
    """Its counters would be mixed up with those that went on; under an id of its own they count."""
    story = renamed.story
    renamed.add_machine(FORMER_ID)

    def sources() -> tuple[Source, ...]:
        first, second = story.context().sources
        return (first, second if is_expected else replace(second, expected_node_id=None))

    result = collect(replace(story.context(), sources=sources()))
    errors = errors_of(result)
    assert errors["jp-1"] is None
    assert errors["jp-9"] == (
        f"node {FORMER!r} was the former id of source 'jp-1', whose counters go on as 'prod:b'; "
        "give the new machine an id of its own"
    )
    renamed.assert_charged(6_300)

    machine = story.fleet.nodes["jp-9"]
    machine.rename("jp-9.svc.plus")
    machine.lose_history(story.now + MINUTE / 2)
    for _ in range(2):
        story.minute((machine.streams[0], 50, 0))
        result = story.collect()
    assert set(errors_of(result).values()) == {None}
    renamed.assert_charged(6_350)


def test_the_counters_of_another_machine_do_not_go_on_under_a_former_id(renamed: Renamed) -> None:
    """It is not free."""
    story = renamed.story
    renamed.add_machine("c")
    story.collect()
    with pytest.raises(BillingError, match=r"was the former id of source 'jp-1'.* of its own"):
        renamed.move("jp-9", FORMER)
    assert story.rows(READ_NODES) == [("jp-1", "prod:b", [FORMER]), ("jp-9", "prod:c", [])]


def test_a_machine_gets_its_own_former_id_back(renamed: Renamed) -> None:
    """Its source may be called something else then."""
    story = renamed.story
    renamed.node.rename(FORMER_ID)
    (source,) = story.context().sources
    context = replace(
        story.context(),
        sources=(replace(source, source_id="tokyo-1", expected_node_id=FORMER_ID),),
    )
    assert move_source(context, "jp-1", "tokyo-1", is_same_counters=True).status == "ok"
    story.minute((renamed.stream, 1_000, 0))
    now = replace(story.context(), sources=context.sources)
    assert only_source(collect(now)).error is None
    renamed.assert_charged(7_000)


def test_who_carries_a_former_id_already_goes_on(renamed: Renamed) -> None:
    """Earlier versions let machines share an id."""
    story = renamed.story
    renamed.add_machine("c")
    story.collect()
    story.connection.execute(
        "UPDATE billing.sources SET former_nodes = ARRAY['prod:c'] WHERE source_id = 'jp-1'"
    )
    story.minute((story.fleet.nodes["jp-9"].streams[0], 50, 0))
    assert set(errors_of(story.collect()).values()) == {None}
