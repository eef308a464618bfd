"""Reading many rows without having all of them twice in memory."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg import Connection

BATCH = 1_000


def in_batches(
    connection: Connection[Any], query: str, parameters: Mapping[str, Any]
) -> Iterator[list[Any]]:
    """Yield a query's rows, a thousand at once, while the server still sends the others.

    So nobody waits for all of them or has them in memory at once. Not for use within a pipeline.
    Where libpq is older than 17, all rows are waited for.
    """
    with connection.cursor() as cursor:
        if psycopg.capabilities.has_stream_chunked():
            rows = cursor.stream(query.encode(), parameters, size=BATCH)
        else:
            rows = iter(cursor.execute(query.encode(), parameters))
        while batch := list(islice(rows, BATCH)):
            yield batch
