"""Reads facts as canonical lines, and what is stored of seals and of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, NamedTuple

from billing_cli.core.merkle import NodePlace
from billing_cli.core.seals import Seal, SealedDay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import date, datetime

    from psycopg import Connection

LOG_TREE = 0
ADOPTION_RUN = "00000000-0000-0000-0000-000000000000"
ADOPTION_JOB = "adoption"
PRUNE_JOB = "prune"


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

# The last time that facts were pruned. Its seal begins with the first minute that was kept.
READ_LAST_PRUNE: LiteralString = f"""
SELECT {SEAL_COLUMNS}
  FROM billing.seals AS seal
 WHERE seal.job = 'prune'
 ORDER BY seal.first_bucket DESC, seal.created_at DESC, seal.step DESC
 LIMIT 1
"""

# Seals that reach from pruned minutes into those that were kept. What is left of their facts is
# covered by the seal of the prune.
REACHES_OVER: LiteralString = """
       seal.first_bucket < {kept_since} AND seal.last_bucket >= {kept_since}
       AND seal.created_at <= {pruned_at} AND seal.job NOT IN ('prune', 'adoption')"""

READ_HEAD = "SELECT tree_size, note, is_adopted FROM billing.log_head"

READ_NODES = """
SELECT node.level, node.position, node.hash
  FROM billing.tree_nodes AS node
  JOIN unnest(%(levels)s::smallint[], %(positions)s::bigint[]) AS wanted (level, position)
    ON node.level = wanted.level AND node.position = wanted.position
 WHERE node.tree = %(tree)s
"""

READ_FACTS: LiteralString = """
SELECT fact.run_id, fact.step, {line}
  FROM {name} AS fact
 WHERE fact.bucket_start >= %(start)s AND fact.bucket_start < %(end)s
 ORDER BY {key}
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


class LogHead(NamedTuple):
    """The head of the log: how many leaves it has, and the newest signed checkpoint, if any.

    `is_adopted` says whether the facts of earlier versions are sealed.
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


def read_last_prune(connection: Connection) -> Seal | None:
    """Return the seal of the last prune. Facts before its first minute are gone."""
    row = connection.execute(READ_LAST_PRUNE).fetchone()
    return None if row is None else seal_of(row)


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


def read_facts(
    connection: Connection, table: FactTable, start: datetime, end: datetime
) -> Iterator[bytes]:
    """Yield run, step and canonical line of the facts of [start, end), in the order of keys."""
    query = READ_FACTS.format(**table._asdict())
    return copy_lines(connection, query, {"start": start, "end": end})


def fact_of(row: bytes) -> tuple[bytes, bytes, bytes]:
    """Return run, step and canonical line of a row that begins with run and step."""
    run_id, step, line = row.split(b"\t", 2)
    return run_id, step, line


def read_booked(
    connection: Connection, bounds: dict[str, object]
) -> Iterator[tuple[str, tuple[int, int], bytes]]:
    """Yield a day's charges: account, place and canonical line, by account and as booked."""
    for row in copy_lines(connection, READ_BOOKED, bounds):
        leaf_number, ordinal, line = row.split(b"\t", 2)
        yield line.split(b"\t", 2)[1].decode(), (int(leaf_number), int(ordinal)), line


def add_nodes(connection: Connection, tree: int, nodes: Iterable[tuple[NodePlace, bytes]]) -> None:
    """Store nodes of a tree."""
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY billing.tree_nodes (tree, level, position, hash) FROM STDIN") as copy,
    ):
        for place, node in nodes:
            copy.write_row((tree, *place, node))
