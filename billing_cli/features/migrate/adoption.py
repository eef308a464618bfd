"""Seals the facts of versions that had no seals: once, a month of minutes in each seal."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, LiteralString

from billing_cli.database.seals import (
    ADOPTION_JOB,
    ADOPTION_RUN,
    CHARGES,
    RECORDS,
    FactTable,
    copy_lines,
    read_head,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import Connection

READ_ADOPTED_MONTHS: LiteralString = """
SELECT min(fact.bucket_start), max(fact.bucket_start)
  FROM {table} AS fact
 WHERE fact.step = 0
"""

READ_ADOPTED: LiteralString = """
SELECT {line}
  FROM {name} AS fact
 WHERE fact.step = 0 AND fact.bucket_start >= %(month)s AND fact.bucket_start < %(end)s
 ORDER BY {key}
"""

ADOPT = """
INSERT INTO billing.seals
       (run_id, step, job, first_bucket, last_bucket, records, records_sha256, charges,
        charges_sha256)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

MARK_ADOPTED = "UPDATE billing.log_head SET is_adopted = true"


def adopt_facts(connection: Connection) -> int:
    """Seal the facts of earlier versions, a month in each seal; return how many seals.

    Does nothing where that was done before.
    """
    if read_head(connection, is_locked=True).is_adopted:
        return 0
    months = _adopted_months(connection)
    seals = 0
    for month in months:
        bounds = {"month": month, "end": _next_month(month)}
        found = [_adopted(connection, table, bounds) for table in (RECORDS, CHARGES)]
        (records, records_hash, *_), (charges, charges_hash, *_) = found
        buckets = [bucket for *_, first, last in found for bucket in (first, last) if bucket]
        if buckets:
            seal = (ADOPTION_RUN, adoption_step(month), ADOPTION_JOB, min(buckets), max(buckets))
            facts = (records, records_hash, charges, charges_hash)
            connection.execute(ADOPT, (*seal, *facts))
            seals += 1
    connection.execute(MARK_ADOPTED)
    return seals


def adoption_step(month: datetime) -> int:
    """Return the step of the seal that covers a month's facts of earlier versions."""
    return month.year * 100 + month.month


def _adopted(
    connection: Connection, table: FactTable, bounds: Mapping[str, datetime]
) -> tuple[int, bytes, str | None, str | None]:
    """Return number and hash of a month's facts, and the first and last of their buckets."""
    query = READ_ADOPTED.format(**table._asdict())
    digest, count, line, first = sha256(), 0, b"", None
    for line in copy_lines(connection, query, bounds):
        digest.update(line)
        count += 1
        first = first or _bucket(line)
    return count, digest.digest(), first, _bucket(line) if line else None


def _bucket(line: bytes) -> str:
    return line.partition(b"\t")[0].decode()


def _adopted_months(connection: Connection) -> list[datetime]:
    """Return the first instants of the months between the oldest and the newest such fact."""
    found: list[datetime] = []
    for table in (RECORDS.name, CHARGES.name):
        row = connection.execute(READ_ADOPTED_MONTHS.format(table=table)).fetchone()
        found += [at for at in row or () if at is not None]
    if not found:
        return []
    month = min(found).astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    months = []
    while month <= max(found):
        months.append(month)
        month = _next_month(month)
    return months


def _next_month(month: datetime) -> datetime:
    carry, index = divmod(month.month, 12)
    return month.replace(year=month.year + carry, month=index + 1)
