"""The write path: canonical lines arrive as they are, and every statement has its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.canonical import StoredUsage, charge_line, usage_line
from billing_cli.core.model import (
    Account,
    Bucket,
    BucketKey,
    Charge,
    Price,
    StreamName,
    Totals,
    UsageRecord,
)
from billing_cli.database.facts import Entries, Facts, Run
from billing_cli.database.write_path import ADVANCE, CHARGE, RECORD
from billing_cli.database.writing import create_staging, write_facts

if TYPE_CHECKING:
    import psycopg

NOON = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
RUN_ID = "33333333-3333-3333-3333-333333333333"
TAG = "a\ttab, a\nline, a \\ and \\N"

STORED_USAGE = """
SELECT concat_ws(E'\\t', to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       stream_id, to_char(from_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), revision,
       to_char(to_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), reset_epoch,
       uplink_start, uplink_end, downlink_start, downlink_end, account_uuid, kind) || E'\\n'
       AS line
  FROM billing.usage_records
"""
STORED_CHARGE = """
SELECT price_per_byte, multiplier, amount_delta, balance_before, line_code, adjusts, run_id::text
  FROM billing.charges
"""


@pytest.fixture
def account(connection: psycopg.Connection[dict[str, Any]]) -> str:
    """Return an account that exists, with a quota state."""
    row = connection.execute(
        "INSERT INTO public.users (uuid, proxy_uuid, username, password)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), '', '') RETURNING uuid::text"
    ).fetchone()
    assert row is not None
    connection.execute(
        "INSERT INTO public.account_quota_states (account_uuid, remaining_included_quota,"
        " current_balance, arrears, effective_at, updated_at)"
        " VALUES (%s, 0, 1, false, now(), now())",
        [row["uuid"]],
    )
    return str(row["uuid"])


def facts_of(account: str) -> tuple[StoredUsage, Entries]:
    """Return one usage record and its charge."""
    name = StreamName(TAG, account)
    record = UsageRecord(
        name, NOON, 0, NOON - timedelta(seconds=30), NOON, Totals(1, 2), Totals(4, 6)
    )
    key = BucketKey(NOON, "prod:jp-1", account, "", TAG)
    price = Price(Decimal("3E-9"), Decimal("1.50"), Decimal(1), Decimal(1))
    charge = Charge(
        "22222222-2222-2222-2222-222222222222",
        key,
        0,
        7,
        price.per_byte,
        price.multiplier,
        Decimal("-0.000000032"),
        0,
        Decimal("1.000000000"),
        Decimal("0.999999968"),
    )
    left = Account(account, 0, charge.balance_after, price)
    entries = Entries([charge], {key: Bucket(key, 3, 4)}, (), [left])
    return StoredUsage(record, 7, account), entries


def write(
    connection: psycopg.Connection[Any], usage: StoredUsage, entries: Entries
) -> dict[str, int]:
    """Write facts in a transaction of their own."""
    run = Run(RUN_ID, NOON, "v1", has_arrears_since=False)
    statements = (*RECORD, *CHARGE, *ADVANCE)
    with connection.transaction():
        create_staging(connection)
        return write_facts(connection, statements, [usage], Facts(entries=entries), run)


def test_lines_arrive_as_they_are(
    connection: psycopg.Connection[dict[str, Any]], account: str
) -> None:
    """What is hashed is what is stored: figures, texts that need escapes, and no value."""
    usage, entries = facts_of(account)
    counts = write(connection, usage, entries)
    assert {name: rows for name, rows in counts.items() if rows} == dict.fromkeys(
        ["usage records", "buckets", "charges", "ledger", "quota states", "seal"], 1
    )
    stored = connection.execute(STORED_USAGE).fetchone()
    assert stored == {"line": usage_line(usage)}
    row = connection.execute(STORED_CHARGE).fetchone()
    assert row is not None
    fields = charge_line(entries.charges[0], "v1").split("\t")
    assert [f"{row['price_per_byte']:f}", f"{row['multiplier']:f}"] == fields[10:12]
    assert [f"{row['amount_delta']:f}", f"{row['balance_before']:f}"] == [fields[12], fields[14]]
    assert (row["line_code"], row["adjusts"], row["run_id"]) == (TAG, None, RUN_ID)


def test_facts_that_exist_are_not_written_again(
    connection: psycopg.Connection[dict[str, Any]], account: str
) -> None:
    """The row counts tell; what is stored stays as it was."""
    usage, entries = facts_of(account)
    write(connection, usage, entries)
    before = connection.execute("SELECT xmin, * FROM billing.usage_records").fetchall()
    counts = write(connection, usage, entries)
    assert {counts[name] for name in ("usage records", "buckets", "charges", "ledger")} == {0}
    assert connection.execute("SELECT xmin, * FROM billing.usage_records").fetchall() == before
