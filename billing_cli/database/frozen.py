"""Reading one state of the database, whatever others commit meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from billing_cli.database.connection import Database

# Must come first in a transaction. What reads only disturbs nobody, and takes no part in deadlocks.
READ_ONE_STATE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"

# For this transaction only. Sorting 10 million rows goes to temporary files beyond `work_mem`;
# doubles are read as the shortest decimals that stand for them.
SET_LOCAL_LIMITS = """
SELECT set_config('statement_timeout', %(statement_timeout)s, true),
       set_config('idle_in_transaction_session_timeout', %(statement_timeout)s, true),
       set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('work_mem', '64MB', true),
       set_config('extra_float_digits', '1', true)
"""


@contextmanager
def frozen(
    connection: Connection, database: Database, statement_timeout_seconds: float | None = None
) -> Iterator[None]:
    """Show every statement of the block the same committed state, and let none write.

    `statement_timeout_seconds` defaults to the database's.
    """
    seconds = statement_timeout_seconds or database.statement_timeout_seconds
    with connection.transaction():
        connection.execute(READ_ONE_STATE)
        connection.execute(
            SET_LOCAL_LIMITS,
            {
                "statement_timeout": f"{seconds * 1000:.0f}",
                "lock_timeout": f"{database.lock_timeout_seconds * 1000:.0f}",
            },
        )
        yield
