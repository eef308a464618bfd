"""What most tests on a real database begin with: a story to be told, or a world to be run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.database import connection
from tests.integration.attacks.hostile import attacking
from tests.integration.jobs.world import serving_world
from tests.support.story import told_story

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.attacks.hostile import Attack
    from tests.integration.jobs.world import World
    from tests.support.story import Story


@pytest.fixture
def story(database_url: str, job_url: str) -> Iterator[Story]:
    """Return a story without nodes or users yet; afterwards its books are checked."""
    with told_story(database_url, job_url) as begun:
        yield begun


@pytest.fixture
def world(database_url: str, job_url: str) -> Iterator[World]:
    """Return an empty fleet that is served as long as the test lasts."""
    with serving_world(database_url, job_url) as made:
        yield made


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(connection, "RETRY_PAUSE_SECONDS", 0)


@pytest.fixture
def attack(database_url: str, job_url: str) -> Iterator[Attack]:
    """Return hostile nodes that serve until the test ends."""
    with attacking(database_url, job_url) as begun:
        yield begun
