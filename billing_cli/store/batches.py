"""Reading many rows without having all of them twice in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Cursor

Row = TypeVar("Row", bound=tuple[Any, ...])

BATCH = 5_000


def batches(cursor: Cursor[Row]) -> Iterator[list[Row]]:
    """Yield a result's rows, a few thousand at once, converted as they are wanted."""
    while rows := cursor.fetchmany(BATCH):
        yield rows
