"""Accounts for a shell to complete: read from the database once, within a second or two."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from billing_cli.database.connection import Session

if TYPE_CHECKING:
    from psycopg import Connection

    from billing_cli.database.connecting import Database

LIMIT = 50

# A range of the key, so that an index leads to it.
READ_UUIDS = """
SELECT uuid::text FROM public.users WHERE uuid BETWEEN %(first)s AND %(last)s
 ORDER BY uuid LIMIT %(limit)s
"""
READ_EMAILS = """
SELECT email FROM public.users WHERE starts_with(lower(email), lower(%(prefix)s))
 ORDER BY email LIMIT %(limit)s
"""


def account_names(database: Database, prefix: str, *, has_emails: bool) -> list[str]:
    """Return the first account uuids with a prefix; where none has it, the e-mail addresses.

    Raises BillingError where the database can't be read in time.
    """
    wanted: dict[str, Any] = {"prefix": prefix, "limit": LIMIT}
    digits = prefix.replace("-", "")
    with suppress(ValueError):
        wanted["first"] = uuid.UUID(digits.ljust(32, "0"))
        wanted["last"] = uuid.UUID(digits.ljust(32, "f"))
    hasty = replace(
        database, connect_timeout_seconds=1, statement_timeout_seconds=1, grace_seconds=1
    )

    def work(connection: Connection) -> list[str]:
        found = connection.execute(READ_UUIDS, wanted).fetchall() if "last" in wanted else []
        if not found and has_emails:
            found = connection.execute(READ_EMAILS, wanted).fetchall()
        return [row[0] for row in found]

    with Session(hasty) as session:
        return session.read(work)
