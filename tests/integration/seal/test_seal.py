"""`seal`: what was committed gets leaves, days that ended get theirs, and the head is signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.notes import parse_checkpoints
from tests.support.sealing import DAY

if TYPE_CHECKING:
    from tests.support.sealing import Sealing
    from tests.support.story import Story

LEAVES = "SELECT leaf_number, job, records, charges FROM billing.seals ORDER BY leaf_number"


def grow(story: Story, minutes: int = 3) -> None:
    """Let two accounts move bytes on one node, and collect minute by minute."""
    node = story.fleet.nodes.get("jp-1") or story.add_node("jp-1")
    if not node.streams:
        for tag in ("a", "b"):
            node.add_stream(story.add_user().uuid, tag)
        story.minute()
        story.collect()
    for _ in range(minutes):
        story.minute(*((stream, 1_000, 2_000) for stream in node.streams))
        story.collect()


def test_each_committed_seal_becomes_a_leaf_once(story: Story, sealing: Sealing) -> None:
    """Running it again appends nothing, and gives the same checkpoint."""
    grow(story)
    first = sealing.seal()
    assert (first.tree_size, first.appended_seals) == (3, 3)
    assert [row[0] for row in story.rows(LEAVES)] == [0, 1, 2]
    assert sealing.seal().checkpoint == first.checkpoint
    grow(story, 1)
    second = sealing.seal()
    assert (second.tree_size, second.appended_seals) == (4, 1)
    kept = parse_checkpoints(sealing.file.read_text())
    assert [one.checkpoint.size for one in kept] == [3, 4]
    report = sealing.verify()
    assert report.findings == []
    assert (report.seals, report.records, report.charges, report.leaves) == (4, 8, 8, 4)


def test_a_day_gets_its_leaf_when_it_has_ended(story: Story, sealing: Sealing) -> None:
    """The day on which seals were appended, not the day of the minutes."""
    grow(story)
    sealing.seal()
    grow(story, 1)
    later = sealing.seal(DAY)
    assert (len(later.sealed_days), later.tree_size) == (1, 5)
    assert story.rows("SELECT accounts, leaf_number FROM billing.sealed_days") == [(2, 3)]
    grow(story, 1)
    assert sealing.seal(3 * DAY).tree_size == 7
    report = sealing.verify()
    assert (report.findings, report.days) == ([], 2)
