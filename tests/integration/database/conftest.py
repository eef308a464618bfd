"""Fixtures for the tests of what the database may do to a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.database.stage import behind
from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.world import World


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return a fleet that is two minutes behind."""
    with serving_world(database_url, job_url) as made:
        behind(made)
        yield made


@pytest.fixture(autouse=True)
def driver_is_silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that the driver logs nothing beside the one line that a run says itself."""
    yield
    assert [
        record.getMessage() for record in caplog.records if record.name.startswith("psycopg")
    ] == []
