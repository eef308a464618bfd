"""Reads facts as canonical lines, and what is stored of seals and of the log."""

from __future__ import annotations

from datetime import UTC, date, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from billing_cli.core.merkle import NodePlace
from billing_cli.core.seals import Seal, SealedDay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from psycopg import Connection

LOG_TREE = 0
ADOPTION_RUN = "00000000-0000-0000-0000-000000000000"
ADOPTION_JOB = "adoption"


def _time(column: LiteralString) -> LiteralString:
    """Return a time in RFC 3339; every session is in UTC."""
    return f'to_char({column}, \'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\')'


USAGE_LINE: LiteralString = f"""
       {_time("fact.bucket_start")}, fact.stream_id, {_time("fact.from_at")}, fact.revision,
       {_time("fact.to_at")}, fact.reset_epoch, fact.uplink_start, fact.uplink_end,
       fact.downlink_start, fact.downlink_end, fact.account_uuid, fact.kind"""

CHARGE_LINE: LiteralString = f"""
       {_time("fact.bucket_start")}, fact.account_uuid, fact.ledger_id, fact.entry_type,
       fact.adjusts, fact.stored_node_id, fact.region, fact.line_code, fact.included_bytes,
       fact.rated_bytes, fact.price_per_byte, fact.multiplier, fact.amount_delta,
       fact.quota_before, fact.balance_before, fact.pricing_rule_version, fact.reason"""

USAGE_KEY: LiteralString = "fact.bucket_start, fact.stream_id, fact.from_at, fact.revision"
CHARGE_KEY: LiteralString = "fact.bucket_start, fact.account_uuid, fact.ledger_id"


class FactTable(NamedTuple):
    """A table of facts: its name, and the SQL of a fact's canonical line and of its key."""

    name: LiteralString
    line: LiteralString
    key: LiteralString


RECORDS = FactTable("billing.usage_records", USAGE_LINE, USAGE_KEY)
CHARGES = FactTable("billing.charges", CHARGE_LINE, CHARGE_KEY)

SEAL_COLUMNS: LiteralString = """
       seal.run_id::text, seal.step, seal.job, seal.created_at, seal.first_bucket,
       seal.last_bucket, seal.records, seal.records_sha256, seal.charges, seal.charges_sha256"""

READ_HEAD = "SELECT tree_size, note, is_adopted FROM billing.log_head"

READ_NODES = """
SELECT node.level, node.position, node.hash
  FROM billing.tree_nodes AS node
  JOIN unnest(%(levels)s::smallint[], %(positions)s::bigint[]) AS wanted (level, position)
    ON node.level = wanted.level AND node.position = wanted.position
 WHERE node.tree = %(tree)s
"""

# The charges of the seals of a range of leaves.
READ_BOOKED: LiteralString = f"""
SELECT seal.leaf_number, coalesce(fact.ordinal, 0), {CHARGE_LINE}
  FROM billing.seals AS seal
  JOIN billing.charges AS fact
    ON fact.run_id = seal.run_id AND fact.step = seal.step
   AND fact.bucket_start >= seal.first_bucket AND fact.bucket_start <= seal.last_bucket
 WHERE seal.leaf_number BETWEEN %(first_leaf)s AND %(last_leaf)s
   AND fact.bucket_start BETWEEN %(first_bucket)s AND %(last_bucket)s
 ORDER BY fact.account_uuid, seal.leaf_number, fact.bucket_start, fact.ledger_id
"""

READ_ADOPTED_MONTHS: LiteralString = """
SELECT min(fact.bucket_start), max(fact.bucket_start)
  FROM {table} AS fact
 WHERE fact.step = 0
"""

ADOPT = """
INSERT INTO billing.seals
       (run_id, step, job, first_bucket, last_bucket, records, records_sha256, charges,
        charges_sha256)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

MARK_ADOPTED = "UPDATE billing.log_head SET is_adopted = true"


class LogHead(NamedTuple):
    """The head of the log: how many leaves it has, and the newest signed checkpoint, if any.

    `is_adopted` tells whether the facts of earlier versions are sealed.
    """

    tree_size: int
    note: str | None
    is_adopted: bool


def read_head(connection: Connection, *, is_locked: bool = False) -> LogHead:
    """Return the head of the log; with `is_locked`, keep others from appending until the end."""
    lock: LiteralString = " FOR UPDATE" if is_locked else ""
    row = connection.execute(READ_HEAD + lock).fetchone()
    if row is None:
        return LogHead(0, None, is_adopted=False)
    return LogHead(*row)


def read_nodes(
    connection: Connection, tree: int, places: Collection[NodePlace]
) -> dict[NodePlace, bytes]:
    """Return the nodes of a tree at these places, as far as they are stored."""
    parameters = {
        "tree": tree,
        "levels": [place.level for place in places],
        "positions": [place.position for place in places],
    }
    rows = connection.execute(READ_NODES, parameters)
    return {NodePlace(level, position): node for level, position, node in rows}


def tree_of_day(day: date) -> int:
    """Return the number of a day's tree."""
    return int(day.strftime("%Y%m%d"))


def seal_of(row: Sequence[Any]) -> Seal:
    """Return a seal from a row of SEAL_COLUMNS."""
    return Seal(*row)


def sealed_day_of(row: Sequence[Any]) -> SealedDay:
    """Return a day from a row of day, accounts, salts_sha256 and root."""
    return SealedDay(*row)


def copy_lines(
    connection: Connection, query: LiteralString, parameters: Mapping[str, object] | None = None
) -> Iterator[bytes]:
    """Yield the rows of a query as lines of COPY's text format."""
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY ({query}) TO STDOUT", parameters) as copy,
    ):
        for row in copy:
            yield bytes(row)


def read_booked(
    connection: Connection, bounds: dict[str, object]
) -> Iterator[tuple[str, tuple[int, int], bytes]]:
    """Yield a day's charges: account, place and canonical line, by account and as booked."""
    for row in copy_lines(connection, READ_BOOKED, bounds):
        leaf_number, ordinal, line = row.split(b"\t", 2)
        yield line.split(b"\t", 2)[1].decode(), (int(leaf_number), int(ordinal)), line


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
    query: LiteralString = f"""
SELECT {table.line}
  FROM {table.name} AS fact
 WHERE fact.step = 0 AND fact.bucket_start >= %(month)s AND fact.bucket_start < %(end)s
 ORDER BY {table.key}
"""
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


def add_nodes(connection: Connection, tree: int, nodes: Iterable[tuple[NodePlace, bytes]]) -> None:
    """Store nodes of a tree."""
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY billing.tree_nodes (tree, level, position, hash) FROM STDIN") as copy,
    ):
        for place, node in nodes:
            copy.write_row((tree, *place, node))
