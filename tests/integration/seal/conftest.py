"""A story with a role that seals it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.sealing import Sealing, seal_role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import Databases
    from tests.support.story import Story


@pytest.fixture
def sealing(
    story: Story, databases: Databases, database_url: str, tmp_path: Path
) -> Iterator[Sealing]:
    """Return the story's sealing, which runs as a role that may do nothing else."""
    with seal_role(databases, database_url) as url:
        yield Sealing(story, tmp_path, url)
