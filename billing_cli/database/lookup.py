"""Finding the account that a person means: by its uuid, or by a proxy uuid it has or had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from billing_cli.errors import UsageError

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


class FoundAccount(NamedTuple):
    """An account, what it was found by, and whether it still exists."""

    account_uuid: str
    known_by: KnownBy
    exists: bool


def find_account(connection: Connection, uuid: str) -> FoundAccount:
    """Return the account that a uuid means. Raises UsageError where it means none, or several."""
    rows = connection.execute(FIND_ACCOUNTS, {"uuid": uuid}).fetchall()
    if not rows:
        raise UsageError(f"unknown account {uuid}: no account, proxy uuid or evidence has it")
    best = [FoundAccount(*row[:3]) for row in rows if row[3] == rows[0][3]]
    if len(best) > 1:
        names = ", ".join(one.account_uuid for one in best)
        raise UsageError(f"{uuid} is the {best[0].known_by} of several accounts: {names}")
    return best[0]
