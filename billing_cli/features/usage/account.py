"""Finds an account by what a person knows of it: a uuid, or an e-mail address."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from psycopg.errors import InsufficientPrivilege, UndefinedColumn

from billing_cli.database.lookup import find_account
from billing_cli.errors import SchemaError, UsageError

if TYPE_CHECKING:
    from psycopg import Connection

# The jobs' role is not granted this column: whoever looks accounts up by it needs it.
FIND_BY_EMAIL = (
    "SELECT uuid::text FROM public.users WHERE lower(email) = lower(%(email)s) ORDER BY 1"
)


def find_account_uuid(connection: Connection, text: str) -> str:
    """Return the uuid of the account. Raises UsageError for none or several.

    Raises SchemaError where the role may not read e-mail addresses.
    """
    try:
        return find_account(connection, str(UUID(text))).account_uuid
    except ValueError:
        pass
    if "@" not in text:
        raise UsageError(f"{text!r} is neither a uuid nor an e-mail address")
    try:
        found = [row[0] for row in connection.execute(FIND_BY_EMAIL, {"email": text})]
    except UndefinedColumn:
        raise UsageError("public.users has no e-mail addresses: give the account's uuid") from None
    except InsufficientPrivilege:
        role = connection.info.user
        raise SchemaError(
            f"role {role!r} may not read e-mail addresses: give the account's uuid, or let the "
            f"owner of public.users run GRANT SELECT (email) ON public.users TO {role}",
            code="privileges",
        ) from None
    if len(found) != 1:
        several = f"several accounts: {', '.join(found)}" if found else "no account"
        raise UsageError(f"{text} is the e-mail address of {several}")
    return str(found[0])
