"""What `seal` reads and writes. The role of the jobs may not run the statements that write."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from billing_cli.database.seals import SEAL_COLUMNS, seal_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime

    from psycopg import Connection

    from billing_cli.core.seals import Seal, SealedDay

# A transaction may commit late, so that an older seal may follow a newer one.
READ_WAITING: LiteralString = f"""
SELECT {SEAL_COLUMNS}
  FROM billing.seals AS seal
 WHERE seal.leaf_number IS NULL
 ORDER BY seal.created_at, seal.run_id, seal.step
 LIMIT %(limit)s
"""

APPEND = """
UPDATE billing.seals AS seal
   SET leaf_number = given.leaf_number, appended_at = %(now)s
  FROM unnest(%(run_ids)s::uuid[], %(steps)s::integer[], %(leaf_numbers)s::bigint[])
    AS given (run_id, step, leaf_number)
 WHERE seal.run_id = given.run_id AND seal.step = given.step AND seal.leaf_number IS NULL
"""

READ_LAST_APPENDED = """
SELECT greatest((SELECT max(appended_at) FROM billing.seals),
                (SELECT max(sealed_at) FROM billing.sealed_days))
"""

# Days with charges after the last one that is sealed. What an earlier version had charged was
# booked then, not on the day of its adoption.
READ_ENDED_DAYS = """
SELECT (seal.appended_at AT TIME ZONE 'UTC')::date AS day, min(seal.first_bucket),
       max(seal.last_bucket), min(seal.leaf_number), max(seal.leaf_number)
  FROM billing.seals AS seal
 WHERE seal.leaf_number > coalesce((SELECT max(leaf_number) FROM billing.sealed_days), -1)
   AND seal.appended_at < %(today)s AND seal.charges > 0
   AND seal.job NOT IN ('adoption', 'prune')
 GROUP BY 1
 ORDER BY 1
"""

ADD_DAY = """
INSERT INTO billing.sealed_days (day, accounts, salts_sha256, root, leaf_number, sealed_at)
VALUES (%s, %s, %s, %s, %s, %s)
"""

UPDATE_HEAD = """
UPDATE billing.log_head SET tree_size = %(tree_size)s, note = %(note)s, signed_at = %(now)s
"""


def read_waiting(connection: Connection, limit: int) -> list[Seal]:
    """Return committed seals that are not in the log yet, in the order of their leaves."""
    return [seal_of(row) for row in connection.execute(READ_WAITING, {"limit": limit})]


def append(connection: Connection, seals: Sequence[Seal], first_leaf: int, now: datetime) -> int:
    """Give seals their leaf numbers; return how many had none."""
    parameters = {
        "run_ids": [seal.run_id for seal in seals],
        "steps": [seal.step for seal in seals],
        "leaf_numbers": [first_leaf + number for number in range(len(seals))],
        "now": now,
    }
    return connection.execute(APPEND, parameters).rowcount


def read_last_appended(connection: Connection) -> datetime | None:
    """Return when the newest leaf was appended."""
    row = connection.execute(READ_LAST_APPENDED).fetchone()
    return None if row is None else row[0]


def read_ended_days(
    connection: Connection, today: datetime
) -> list[tuple[date, dict[str, object]]]:
    """Return the days before today that are to be sealed, and where their charges are."""
    names = ("first_bucket", "last_bucket", "first_leaf", "last_leaf")
    return [
        (day, dict(zip(names, bounds, strict=True)))
        for day, *bounds in connection.execute(READ_ENDED_DAYS, {"today": today})
    ]


def add_day(
    connection: Connection,
    day: SealedDay,
    salts: Iterable[tuple[str, bytes]],
    leaf_number: int,
    now: datetime,
) -> None:
    """Store a day and the salts of its accounts, in the order of their leaves."""
    connection.execute(ADD_DAY, (*day, leaf_number, now))
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY billing.day_leaves (day, account_uuid, position, salt) FROM STDIN"
        ) as copy,
    ):
        for position, (account_uuid, salt) in enumerate(salts):
            copy.write_row((day.day, account_uuid, position, salt))


def update_head(connection: Connection, tree_size: int, note: str, now: datetime) -> None:
    """Store the newest signed checkpoint."""
    parameters = {"tree_size": tree_size, "note": note, "now": now}
    connection.execute(UPDATE_HEAD, parameters)
