"""A server that attacks may crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.torture.arena import opened_arena

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.arena import Arena


@pytest.fixture(scope="session")
def arena() -> Iterator[Arena]:
    """Return a server for all attacks of a worker."""
    with opened_arena() as opened:
        yield opened
