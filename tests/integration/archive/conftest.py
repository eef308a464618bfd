"""A sealed month to archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sealing import DAY, Sealing
from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sealing(database_url: str, job_url: str, tmp_path: Path) -> Iterator[Sealing]:
    """Return a history of six minutes in April, booked on two days, which are sealed."""
    with told_story(database_url, job_url) as story:
        made = Sealing(story, tmp_path, database_url)
        node = story.add_node("jp-1")
        streams = [node.add_stream(story.add_user().uuid, tag) for tag in ("a", "b")]
        story.minute()
        story.collect()
        for later in (0 * DAY, DAY):
            for _ in range(3):
                story.minute(*((stream, 10, 20) for stream in streams))
                story.collect()
            made.seal(later)
        made.seal(2 * DAY)
        yield made
