"""Finding the account that a person means: by uuid, by proxy uuid, or by e-mail address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from psycopg.errors import InsufficientPrivilege, UndefinedColumn

from billing_cli.errors import SchemaError, UsageError

if TYPE_CHECKING:
    from psycopg import Connection

KnownBy = Literal["account uuid", "proxy uuid", "former proxy uuid"]

# In the order in which they count: an account's own uuid, its proxy uuid, evidence of an account
# that is deleted, a proxy uuid that was renewed since. A proxy uuid of two accounts names neither.
FIND_ACCOUNTS = """
SELECT uuid::text, 'account uuid', true, 1 FROM public.users WHERE uuid = %(uuid)s
UNION
SELECT uuid::text, 'proxy uuid', true, 2 FROM public.users WHERE proxy_uuid = %(uuid)s
UNION
SELECT %(uuid)s::uuid::text, 'account uuid', false, 3
 WHERE EXISTS (SELECT FROM billing.streams WHERE account_uuid = %(uuid)s)
UNION
SELECT stream.account_uuid::text, 'former proxy uuid', account.uuid IS NOT NULL, 4
  FROM billing.streams AS stream
  LEFT JOIN public.users AS account ON account.uuid = stream.account_uuid
 WHERE stream.sample_uuid = %(uuid)s AND stream.account_uuid IS NOT NULL
 ORDER BY 4, 1
"""

# The column is granted where it was there when `billing migrate` granted.
FIND_BY_EMAIL = (
    "SELECT uuid::text FROM public.users WHERE lower(email) = lower(%(email)s) ORDER BY 1"
)


class FoundAccount(NamedTuple):
    """An account, what it was found by, and whether it still exists."""

    account_uuid: str
    known_by: KnownBy
    exists: bool


def find_account(connection: Connection, name: str) -> FoundAccount:
    """Return the account that a uuid or an e-mail address means.

    Raises UsageError where it means none, or several, SchemaError where this role may not read
    e-mail addresses.
    """
    uuid = _uuid_of(connection, name) if "@" in name else name
    rows = connection.execute(FIND_ACCOUNTS, {"uuid": uuid}).fetchall()
    if not rows:
        raise UsageError(
            f"unknown account {uuid}: no account, proxy uuid or evidence has it; "
            "`billing streams --unresolved` lists uuids without an account"
        )
    best = [FoundAccount(*row[:3]) for row in rows if row[3] == rows[0][3]]
    if len(best) > 1:
        names = ", ".join(account.account_uuid for account in best)
        raise UsageError(f"{uuid} is the {best[0].known_by} of several accounts: {names}")
    return best[0]


def _uuid_of(connection: Connection, email: str) -> str:
    try:
        found = [row[0] for row in connection.execute(FIND_BY_EMAIL, {"email": email})]
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
        raise UsageError(f"{email} is the e-mail address of {several}")
    return str(found[0])
