"""Whatever happens, every byte is billed once: bytes billed / bytes that flowed = 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.jobs.stories import STORIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.jobs.world import World


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_every_byte_is_billed_once(world: World, story: Callable[[World], None]) -> None:
    """Buckets, ledger evidence, quota and balance agree with the truth, after each single run."""
    story(world)
    world.assert_all_is_billed()
