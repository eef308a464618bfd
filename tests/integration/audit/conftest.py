"""The fleet's story, served as long as a test lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.simulator.server import serve
from tests.integration.audit.full_story import FullStory, copied

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Databases


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[FullStory]:
    """Return a story that is still to be told."""
    made = FullStory(database_url, job_url)
    with serve(made.fleet) as running:
        made.running = running
        yield made


@pytest.fixture(scope="session")
def told(databases: Databases) -> Iterator[FullStory]:
    """Return a story whose traffic is billed, for copies."""
    with databases.database(migrated=True) as url:
        made = FullStory(url, databases.job_url(url))
        with serve(made.fleet) as made.running:
            made.play()
        yield made


@pytest.fixture(scope="session")
def told_after_an_audit(databases: Databases) -> Iterator[FullStory]:
    """Return a story whose traffic was billed after a clean audit, for copies."""
    with databases.database(migrated=True) as url:
        made = FullStory(url, databases.job_url(url))
        with serve(made.fleet) as made.running:
            assert made.audit().is_full
            made.play()
        yield made


@pytest.fixture
def billed_after_an_audit(
    told_after_an_audit: FullStory, databases: Databases
) -> Iterator[FullStory]:
    """Return a story whose traffic was billed after a clean audit."""
    with copied(told_after_an_audit, databases) as story:
        yield story


@pytest.fixture
def billed(told: FullStory, databases: Databases) -> Iterator[FullStory]:
    """Return a story whose traffic is billed."""
    with copied(told, databases) as story:
        yield story
