"""A server that attacks may crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.torture.arena import opened_arena

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.torture.arena import Arena


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    """Return a server for the tests of a module."""
    with opened_arena() as opened:
        yield opened
