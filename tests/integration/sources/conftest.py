"""Fixtures for the tests of moving sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.world import serving_world
from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.world import World
    from tests.support.story import Story


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return an empty fleet that is served as long as the test lasts."""
    with serving_world(database_url, job_url) as made:
        yield made


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story without nodes or users yet; afterwards its books are checked."""
    with told_story(database_url, job_url) as begun:
        yield begun
