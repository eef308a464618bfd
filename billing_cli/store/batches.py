"""Reading many rows without having all of them twice in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Cursor

Row = TypeVar("Row", bound=tuple[Any, ...])

BATCH = 5_000


def in_batches(cursor: Cursor[Row]) -> Iterator[Row]:
    """Yield a result's rows: nearly as quick as `fetchall`, but converted as they are wanted."""
    while rows := cursor.fetchmany(BATCH):
        yield from rows
