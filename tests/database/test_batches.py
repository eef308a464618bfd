"""Reading many rows a thousand at a time, whatever the client library can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.store.batches import BATCH, in_batches

if TYPE_CHECKING:
    from psycopg import Connection

ROWS = "SELECT number FROM generate_series(1, %(count)s::integer) AS given (number)"


@pytest.mark.parametrize("can_stream", [True, False])
@pytest.mark.parametrize("count", [0, 1, BATCH, 2 * BATCH + 1])
def test_all_rows_come_in_their_order(
    connection: Connection[Any], monkeypatch: pytest.MonkeyPatch, count: int, *, can_stream: bool
) -> None:
    """No row is lost where a batch ends; older libraries wait for all of them first."""
    if not can_stream:
        monkeypatch.setattr(psycopg.capabilities, "has_stream_chunked", lambda: False)
    batches = list(in_batches(connection, ROWS, {"count": count}))
    assert [row["number"] for batch in batches for row in batch] == list(range(1, count + 1))
    assert all(len(batch) <= BATCH for batch in batches)


def test_a_connection_goes_on_where_nobody_read_to_the_end(connection: Connection[Any]) -> None:
    """What was not read is given back, and the transaction is as good as before."""
    rows = in_batches(connection, ROWS, {"count": 10 * BATCH})
    assert len(next(rows)) == BATCH
    del rows
    assert connection.execute("SELECT 1").fetchone() is not None
