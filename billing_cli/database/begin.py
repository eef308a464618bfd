"""The first thing that is sent in every transaction: BEGIN and the settings of the session.

A role, a database or a pooled session may have other defaults. Each setting is LOCAL: it ends with
the transaction, because behind PgBouncer the session then belongs to another client. All of it goes
with the first statements of the transaction, where those are sent in a pipeline, else before them
in one message: a transaction costs no more round trips than a bare BEGIN, or none.

With this `search_path` no table, function or operator of schema `public` is ever used by accident:
statements name the schema of every table, and what has no schema is PostgreSQL's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import DataError
from psycopg.adapt import Loader
from psycopg.types.datetime import TimestamptzBinaryLoader

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.abc import Buffer

# What is loaded for a moment that Python can't hold, such as infinity, BC or the year 10000: it is
# no error of all rows that are read with it. `IS_MOMENT` excludes these in a statement.
FIRST_MOMENT = datetime(1000, 1, 1, tzinfo=UTC)
LAST_MOMENT = datetime(9000, 1, 1, tzinfo=UTC)
IS_MOMENT: LiteralString = "BETWEEN '0001-01-01Z' AND '9999-12-31Z'"

READ_COMMITTED = "READ COMMITTED"
ONE_STATE = "REPEATABLE READ, READ ONLY"
"""Every statement sees the same committed state, and none may write."""
ONE_STATE_AND_NOTES = "REPEATABLE READ"
"""The same for work that notes what it found."""

# It comes before any expression: until then another role's functions could be found.
SEARCH_PATH = "SET LOCAL search_path = pg_catalog, pg_temp"

# The encoding is also given at connection time, which is what the driver starts from; here it only
# guards against a pooled session that was left with another one. Doubles are read as the shortest
# decimals that stand for them.
SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "client_encoding": "UTF8",
    "extra_float_digits": "1",
    "array_nulls": "on",
}

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


def beginning(mode: str, limits: Limits, *, numbered: bool = False) -> tuple[str, ...]:
    """Return the statements that open a transaction; `mode` is what BEGIN is given.

    The last one has one row. With `numbered` the transaction gets its number at once, which is the
    last column: it is what the server is asked for where the answer to COMMIT is lost.
    """
    settings = SETTINGS | {
        "statement_timeout": _milliseconds(limits.statement_seconds),
        "lock_timeout": _milliseconds(limits.lock_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(limits.idle_seconds),
    }
    values = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    return (
        f"BEGIN ISOLATION LEVEL {mode}",
        SEARCH_PATH,
        f"""
SELECT {values},
       set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024,
                                       {WORK_MEM_KILOBYTES})::text, true),
       {"pg_current_xact_id()" if numbered else "''"}::text
""",
    )


def load_moments_as_utc(connection: Connection[Any]) -> None:
    """Have every `timestamptz` loaded as an aware datetime in `datetime.timezone.utc`.

    In a zone with daylight saving two instants of the repeated hour compare equal: Python ignores
    `fold` between datetimes that share a zone.
    """
    connection.adapters.register_loader("timestamptz", UtcLoader)
    connection.adapters.register_loader("timestamptz", UtcBinaryLoader)


class UtcLoader(Loader):
    """Loads the text of a `timestamptz` in ISO format, whatever zone it is written in.

    The driver's own loader asks for the DateStyle, which it learns only when a pipeline has ended.
    """

    def load(self, data: Buffer) -> datetime:
        """Return the moment, or FIRST_MOMENT or LAST_MOMENT where Python can't hold it."""
        text = bytes(data).decode()
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            return FIRST_MOMENT if text.startswith("-") or text.endswith("BC") else LAST_MOMENT


class UtcBinaryLoader(TimestamptzBinaryLoader):
    """Loads a `timestamptz` that was sent in binary: signed microseconds, big-endian."""

    def load(self, data: Buffer) -> datetime:
        """Return the moment, or FIRST_MOMENT or LAST_MOMENT where Python can't hold it."""
        try:
            return super().load(data).astimezone(UTC)
        except (DataError, OverflowError):
            return FIRST_MOMENT if bytes(data)[0] & 0x80 else LAST_MOMENT


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
