"""The first thing that is sent in every transaction: BEGIN and the settings of the session.

A role, a database or a pooled session may have other defaults. Each setting is LOCAL: it ends with
the transaction, because behind PgBouncer the session then belongs to somebody else. All of it is
one message, answered once, so a transaction costs no more round trips than a bare BEGIN.

With this `search_path` no table, function or operator of schema `public` is ever used by accident:
statements name the schema of every table, and what has no schema is PostgreSQL's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.datetime import TimestamptzBinaryLoader, TimestamptzLoader

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection
    from psycopg.abc import AdaptContext, Buffer

READ_COMMITTED = "READ COMMITTED"
ONE_STATE = "REPEATABLE READ, READ ONLY"
"""Every statement sees the same committed state, and none may write."""
ONE_STATE_AND_NOTES = "REPEATABLE READ"
"""The same for work that notes what it found."""

# `search_path` comes before any expression: until then another role's functions could be found.
# The encoding is also given at connection time, which is what the driver starts from; here it only
# guards against a pooled session that was left with another one. Doubles are read as the shortest
# decimals that stand for them.
SEARCH_PATH = "SET LOCAL search_path = pg_catalog, pg_temp"
SETTINGS = f"""
{SEARCH_PATH};
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL client_encoding = 'UTF8';
SET LOCAL extra_float_digits = 1
"""

# Rows of a hundred thousand streams fit into this; with PostgreSQL's own 4 MB they would go through
# temporary files. Where the server gives more, it stays.
WORK_MEM_KILOBYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the server lets a transaction wait, in seconds; 0 is for ever.

    `idle_seconds` is how long it may be left open without a statement.
    """

    statement_seconds: float
    lock_seconds: float
    idle_seconds: float


def begin(connection: Connection[Any], mode: str, limits: Limits, *, numbered: bool = False) -> str:
    """Open a transaction with the settings of every session; `mode` is what BEGIN is given.

    With `numbered` the transaction gets its number at once, which is returned: it is what the
    server is asked for where the answer to COMMIT is lost. Otherwise the empty string is returned.
    The connection must be in autocommit mode, so that the driver sends no BEGIN of its own.
    """
    cursor = connection.execute(
        f"""
BEGIN ISOLATION LEVEL {mode};{SETTINGS};
SET LOCAL statement_timeout = {_milliseconds(limits.statement_seconds)};
SET LOCAL lock_timeout = {_milliseconds(limits.lock_seconds)};
SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(limits.idle_seconds)};
SELECT set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024,
                                       {WORK_MEM_KILOBYTES})::text, true),
       {"pg_current_xact_id()" if numbered else "''"}::text
""".encode()
    )
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    return row[1] if row else ""


def load_moments_as_utc(connection: Connection[Any]) -> None:
    """Have every `timestamptz` loaded as an aware datetime in `datetime.timezone.utc`.

    In a zone with daylight saving two instants of the repeated hour compare equal: Python ignores
    `fold` between datetimes that share a zone.
    """
    connection.adapters.register_loader("timestamptz", UtcLoader)
    connection.adapters.register_loader("timestamptz", UtcBinaryLoader)


class UtcLoader(Loader):
    """Loads the text of a `timestamptz`, whatever zone it is written in."""

    format = Format.TEXT
    driver_loader: type[Any] = TimestamptzLoader

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        self._load = self.driver_loader(oid, context).load

    def load(self, data: Buffer) -> datetime:
        """Return the moment. Raises DataError for one that Python can't hold."""
        moment: datetime = self._load(data)
        return moment.astimezone(UTC)


class UtcBinaryLoader(UtcLoader):
    """Loads a `timestamptz` that was sent in binary."""

    format = Format.BINARY
    driver_loader = TimestamptzBinaryLoader


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
