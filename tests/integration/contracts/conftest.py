"""Fixtures for the contracts with the systems around `billing`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.times import minute_of
from tests.integration.jobs.world import FIRES_AT, serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.jobs.world import World

MINUTES = 12


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return a fleet whose history has just ended, with minutes that are not as they should be.

    Snapshots of one of two nodes came late, so that their bytes are in a later minute.
    """
    start = minute_of(datetime.now(UTC)) - timedelta(minutes=MINUTES + 2)
    with serving_world(database_url, job_url, start) as made:
        users = made.add_users(2)
        made.add_node("jp-1", users)
        made.add_node("us-1", users)
        made.flow_until(MINUTES)
        late = made.fleet.nodes["jp-1"]
        late.withhold(made.at(3), made.at(6), published_at=made.at(9))
        for minute in (2, 7, 8, MINUTES + 1):
            made.run_unchecked(made.at(minute) + FIRES_AT)
        # From here on everything is published.
        made.fleet.present = None
        yield made
