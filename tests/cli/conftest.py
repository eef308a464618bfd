"""Fixtures for the tests of the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.times import minute_of
from tests.cli.command import MINUTES, Site
from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def site(database_url: str, job_url: str) -> Iterator[Site]:
    """Return an empty fleet whose history will have ended a moment ago, all of it closed."""
    with serving_world(database_url, job_url, history_start()) as world:
        yield Site(world)


def history_start() -> datetime:
    """Return when a history has to begin that is over, and closed, by now."""
    return minute_of(datetime.now(UTC)) - timedelta(minutes=MINUTES + 2)
