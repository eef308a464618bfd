"""Fixtures for the tests of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.world import World


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return an empty fleet that is served as long as the test lasts."""
    with serving_world(database_url, job_url) as made:
        yield made
