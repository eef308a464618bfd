"""Notes in the log what is pruned, and seals anew what is left of runs that reach over its end.

The hash of such a run can't be computed any more. So the seal of a prune covers the facts that are
left of all of them, after it compared them with the seals that they had until then.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, LiteralString

from billing_cli.core.canonical import time_text
from billing_cli.core.seals import LineDigest, is_cut
from billing_cli.database.seals import (
    CHARGES,
    PRUNE_JOB,
    REACHES_OVER,
    RECORDS,
    SEAL_COLUMNS,
    copy_lines,
    fact_of,
    read_last_prune,
    seal_of,
)
from billing_cli.errors import BillingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.seals import Seal
    from billing_cli.database.seals import FactTable

# Those that reach over the new end, and those that reached over the last one.
REACHING: LiteralString = f"""
   ({REACHES_OVER.format(kept_since="%(kept_since)s", pruned_at="%(pruned_at)s")}
    OR {REACHES_OVER.format(kept_since="%(before)s::timestamptz", pruned_at="%(before_at)s")})"""

READ_REACHING: LiteralString = f"""
SELECT {SEAL_COLUMNS}
  FROM billing.seals AS seal
 WHERE {REACHING}
"""

READ_FACTS: LiteralString = f"""
SELECT fact.run_id, fact.step, {{line}}
  FROM {{name}} AS fact
  JOIN billing.seals AS seal ON seal.run_id = fact.run_id AND seal.step = fact.step
 WHERE fact.bucket_start BETWEEN %(first)s AND %(last)s AND {REACHING}
 ORDER BY {{key}}
"""

ADD_SEAL = """
INSERT INTO billing.seals (run_id, step, job, created_at, first_bucket, last_bucket, records,
                           records_sha256, record_checks, charges, charges_sha256, charge_checks)
SELECT %(run_id)s, 1 + count(*), %(job)s, %(pruned_at)s, %(kept_since)s, %(last)s, %(records)s,
       %(records_sha256)s, %(record_checks)s, %(charges)s, %(charges_sha256)s, %(charge_checks)s
  FROM billing.seals WHERE run_id = %(run_id)s
"""

# After the locks: whoever wrote into what goes was stamped before.
READ_NOW = "SELECT clock_timestamp()"

Key = tuple[str, int]


def seal_prune(
    connection: Connection, run_id: str, kept_since: datetime, *, is_unproven_meant: bool
) -> None:
    """Seal that facts before `kept_since` go, while they are still there and their tables locked.

    Raises BillingError where runs that reach over it are not what was sealed, unless that is meant.
    """
    ((pruned_at,),) = connection.execute(READ_NOW)
    last = read_last_prune(connection)
    given: dict[str, Any] = {
        "kept_since": kept_since,
        "pruned_at": pruned_at,
        "before": last.first_bucket if last else None,
        "before_at": last.created_at if last else None,
    }
    seals = [seal_of(row) for row in connection.execute(READ_REACHING, given)]
    owners: dict[Key, Key] = {}
    for seal in seals:
        owners[_key(seal)] = _key(last if last and is_cut(seal, last) else seal)
    wanted = {_key(seal): seal for seal in ([*seals, last] if last else seals)}
    wanted = {key: seal for key, seal in wanted.items() if key in owners.values()}
    given["first"] = min((seal.first_bucket for seal in seals), default=kept_since)
    given["last"] = max((seal.last_bucket for seal in seals), default=kept_since)
    left = {}
    for table in (RECORDS, CHARGES):
        facts = _read(connection, table, given)
        left[table.name] = _compare(table, facts, owners, wanted, kept_since, is_unproven_meant)
    records, charges = left[RECORDS.name], left[CHARGES.name]
    given |= {
        "run_id": run_id,
        "job": PRUNE_JOB,
        "last": max(given["last"], kept_since),
        "records": records.count,
        "records_sha256": records.sha256,
        "record_checks": records.checks,
        "charges": charges.count,
        "charges_sha256": charges.sha256,
        "charge_checks": charges.checks,
    }
    connection.execute(ADD_SEAL, given)


def _key(seal: Seal) -> Key:
    return seal.run_id, seal.step


def _read(
    connection: Connection, table: FactTable, given: dict[str, Any]
) -> Iterator[tuple[Key, bytes]]:
    rows = copy_lines(connection, READ_FACTS.format(**table._asdict()), given)
    for run_id, step, line in map(fact_of, rows):
        yield (run_id.decode(), int(step)), line


def _compare(
    table: FactTable,
    facts: Iterator[tuple[Key, bytes]],
    owners: dict[Key, Key],
    wanted: dict[Key, Seal],
    kept_since: datetime,
    is_unproven_meant: bool,
) -> LineDigest:
    """Return the digest of what is left; raise where a seal is not that of its facts."""
    hashes = {key: sha256() for key in wanted}
    left = LineDigest()
    start = time_text(kept_since).encode()
    for key, line in facts:
        hashes[owners[key]].update(line)
        if line >= start:
            left.add(line.decode())
    for key, seal in wanted.items():
        digest = seal.records_sha256 if table is RECORDS else seal.charges_sha256
        if hashes[key].digest() != digest and not is_unproven_meant:
            raise BillingError(
                f"{table.name} of run {key[0]}, which reaches into months that are kept, are not "
                "what was sealed: `billing verify` shows details; --unproven overrides this"
            )
    return left
