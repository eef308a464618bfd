"""Accounts for a shell to complete: read from the database once, within a second or two."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from billing_cli.database.connection import Session

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.database.connection import Database

LIMIT = 50

# A range of the key, so that an index leads to it.
READ_ACCOUNTS = """
SELECT uuid::text FROM public.users WHERE uuid BETWEEN %(first)s AND %(last)s
 ORDER BY uuid LIMIT %(limit)s
"""


def account_uuids(database: Database, prefix: str) -> list[str]:
    """Return the first account uuids with a prefix. Raises ValueError where no uuid has it."""
    digits = prefix.replace("-", "")
    wanted = {
        "first": uuid.UUID(digits.ljust(32, "0")),
        "last": uuid.UUID(digits.ljust(32, "f")),
        "limit": LIMIT,
    }
    hasty = replace(
        database, connect_timeout_seconds=1, statement_timeout_seconds=1, grace_seconds=1
    )

    def work(connection: Connection) -> list[str]:
        return [row[0] for row in connection.execute(READ_ACCOUNTS, wanted)]

    with Session(hasty) as session:
        return session.read(work)
