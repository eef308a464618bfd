"""Staging and executing the statements of the write path."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, LiteralString

from billing_cli.core.canonical import NO_VALUE, charge_line, usage_line
from billing_cli.core.seals import LineDigest
from billing_cli.database.arrears import CLEAR_ARREARS_SINCE
from billing_cli.database.facts import StagedLines
from billing_cli.database.write_path import ARREARS_SINCE, STAGED_CHARGE, STAGING_TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection, Cursor

    from billing_cli.core.canonical import StoredUsage
    from billing_cli.core.model import Charge
    from billing_cli.database.facts import Attempts, Entries, Facts, Run
    from billing_cli.database.write_path import Statement

LINES_AT_ONCE = 10_000


def write_facts(
    connection: Connection,
    statements: Sequence[Statement],
    usage: Sequence[StoredUsage],
    facts: Facts,
    run: Run,
) -> dict[str, int]:
    """Stage usage records and the facts' charges, then execute the statements.

    All usage and charges are new, so that the seal covers what is written. The staging tables
    were created before. Returns rows by statement.
    """
    records = stage_usage(connection, usage)
    charges = stage_charges(connection, facts.entries, run)
    facts = replace(facts, records=records, charges=charges)
    with connection.pipeline():
        cursors = send(connection, statements, facts, run)
    return row_counts(cursors)


def create_staging(connection: Connection) -> None:
    """Create the staging tables, empty. They go when the transaction ends."""
    for statement in STAGING_TABLES:
        connection.execute(statement)


def stage_usage(connection: Connection, usage: Sequence[StoredUsage]) -> StagedLines:
    """Stage the canonical lines of usage records, in key order."""
    digest = LineDigest()
    lines = map(digest.add, map(usage_line, sorted(usage, key=_usage_key)))
    _stage(connection, "staged_usage", lines)
    return StagedLines(digest, frozenset(stored.record.bucket_start for stored in usage))


def stage_charges(connection: Connection, entries: Entries, run: Run) -> StagedLines:
    """Stage the canonical lines of charges, in key order."""
    digest = LineDigest()
    _stage(connection, STAGED_CHARGE, _charge_lines(entries, run.pricing_rule_version, digest))
    return StagedLines(digest, frozenset(charge.key.bucket_start for charge in entries.charges))


def send(
    connection: Connection, statements: Sequence[Statement], facts: Facts | Attempts, run: Run
) -> dict[str, Cursor[Any]]:
    """Send the statements in order, within the pipeline that is open; return their cursors.

    The server executes one while the parameters of the next are made.
    """
    values = {
        "run_id": run.run_id,
        "job": run.job,
        "now": run.now,
        "pricing_rule_version": run.pricing_rule_version,
    }
    newer: dict[str, LiteralString] = {
        "arrears_since": ARREARS_SINCE if run.has_arrears_since else "",
        "clear_since": CLEAR_ARREARS_SINCE if run.has_arrears_since else "",
    }
    return {
        name: connection.execute(sql.format(**newer), {**values, **parameters(facts)})
        for name, sql, parameters in statements
    }


def row_counts(cursors: Mapping[str, Cursor[Any]]) -> dict[str, int]:
    """Return how many rows each statement wrote, once its pipeline has ended."""
    return {name: cursor.rowcount for name, cursor in cursors.items()}


def _stage(connection: Connection, table: LiteralString, lines: Iterator[str]) -> None:
    """Fill a staging table with lines of COPY's text format, where there are any."""
    block = "".join(islice(lines, LINES_AT_ONCE))
    if not block:
        return
    with connection.cursor() as cursor, cursor.copy(f"COPY pg_temp.{table} FROM STDIN") as copy:
        while block:
            copy.write(block)
            block = "".join(islice(lines, LINES_AT_ONCE))


def _usage_key(usage: StoredUsage) -> tuple[datetime, int, datetime, int]:
    return usage.record.bucket_start, usage.stream_id, usage.record.from_at, usage.revision


def _charge_lines(entries: Entries, pricing_rule_version: str, digest: LineDigest) -> Iterator[str]:
    """Yield each charge's canonical line with its place and, for a new bucket, its bytes."""
    bucket_of, add, charges = entries.buckets.get, digest.add, entries.charges
    for place in sorted(range(len(charges)), key=lambda place: _charge_key(charges[place])):
        charge = charges[place]
        line = add(charge_line(charge, pricing_rule_version))
        bucket = bucket_of(charge.key)
        uplink, downlink = bucket[1:] if bucket is not None else (NO_VALUE, NO_VALUE)
        yield f"{line[:-1]}\t{place + 1}\t{uplink}\t{downlink}\n"


def _charge_key(charge: Charge) -> tuple[datetime, str, str]:
    return charge.key.bucket_start, charge.key.account_uuid, charge.ledger_id
