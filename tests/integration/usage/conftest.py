"""A story for each test of usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.story import Story


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story without nodes or users yet; afterwards its books are checked."""
    with told_story(database_url, job_url) as begun:
        yield begun
