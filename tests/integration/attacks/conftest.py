"""A compromised exporter for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.attacks.hostile import attacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.attacks.hostile import Attack


@pytest.fixture
def attack(database_url: str, job_url: str) -> Iterator[Attack]:
    """Return hostile nodes that serve until the test ends."""
    with attacking(database_url, job_url) as begun:
        yield begun
