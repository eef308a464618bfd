"""What was used and charged in a range, in groups: read, as JSON and as a table. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, with_currency
from billing_cli.core.objects import attributes, plain
from billing_cli.core.times import format_rfc3339, minute_of
from billing_cli.database.connection import Session
from billing_cli.database.lookup import find_account
from billing_cli.database.partitions import read_evidence_since
from billing_cli.database.schema import require_head
from billing_cli.database.spans import LIVES
from billing_cli.jobs.context import check_range

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.cli.tables import Cell, Part
    from billing_cli.jobs.context import JobContext


By = Literal["day", "hour", "node", "inbound-tag", "account"]


TIMES = frozenset({"day", "hour"})

DEFAULT_RANGE = timedelta(days=7)


def usage(
    context: JobContext,
    by: By,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    account: str | None = None,
    top: int | None = None,
) -> UsageReport:
    """Return the groups of the minutes that begin in [since, until).

    Days and hours are in order of time, other groups begin with the largest. `top` keeps the
    largest of any kind, and sums up the rest. Raises UsageError for a range or an account that
    makes no sense, BillingError where the database can't be read.
    """
    now = context.clock()
    check_range(since, until, now)
    until = until or now
    since = minute_of(since or until - DEFAULT_RANGE)

    def work(connection: Connection) -> UsageReport:
        require_head(connection)
        uuid = find_account(connection, account).account_uuid if account else None
        rows = read_usage(connection, by, since, until, uuid)
        total = sum_of("total", rows)
        if top is not None or by not in TIMES:
            rows.sort(key=lambda row: -row.total_bytes)
        shown = rows if top is None else rows[:top]
        rest = rows[len(shown) :]
        others = sum_of("others", rest) if rest else None
        kept_since = read_evidence_since(connection)
        return UsageReport(
            by,
            since,
            until,
            uuid,
            tuple(shown),
            others,
            total,
            context.currency,
            kept_since if kept_since is not None and since < kept_since else None,
            read_deleted(connection, since, until, uuid),
        )

    with Session(context.database) as session:
        return session.read_one_state(work)


# Only charges know the node and the tag of an amount; those of another writer have none. Bytes of
# its buckets may be NULL.
READ_USAGE = """
SELECT CASE %(by)s
         WHEN 'day' THEN to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD')
         WHEN 'hour' THEN to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:00:00"Z"')
         WHEN 'node' THEN node
         WHEN 'inbound-tag' THEN inbound_tag
         ELSE account_uuid::text
       END AS key,
       sum(uplink_bytes)::bigint, sum(downlink_bytes)::bigint, sum(included_bytes)::bigint,
       sum(rated_bytes)::bigint, sum(amount)
  FROM (SELECT bucket_start, node_id AS node, line_code AS inbound_tag, account_uuid,
               coalesce(uplink_bytes, 0) AS uplink_bytes,
               coalesce(downlink_bytes, 0) AS downlink_bytes,
               0 AS included_bytes, 0 AS rated_bytes, 0 AS amount
          FROM public.traffic_minute_buckets
         WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
           AND account_uuid = coalesce(%(account)s, account_uuid)
         UNION ALL
        SELECT bucket_start, stored_node_id, line_code, account_uuid,
               0, 0, included_bytes, rated_bytes, -amount_delta
          FROM billing.charges
         WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
           AND account_uuid = coalesce(%(account)s, account_uuid)) AS fact
 GROUP BY 1
 ORDER BY 1
"""


def read_usage(
    connection: Connection, by: By, since: datetime, until: datetime, account_uuid: str | None
) -> list[Usage]:
    """Return the groups of [since, until), in the order of their keys."""
    rows = connection.execute(
        READ_USAGE, {"by": by, "since": since, "until": until, "account": account_uuid}
    )
    return [Usage(*row) for row in rows]


# What accounts were charged before they were deleted: buckets and ledger rows went with them. Only
# accounts that were charged before their oldest ledger row was written are looked at closely.
READ_DELETED = f"""
WITH suspect AS (
  SELECT account_uuid
    FROM billing.charges
   WHERE bucket_start >= %(since)s AND bucket_start < %(until)s
     AND account_uuid = coalesce(%(account)s, account_uuid)
   GROUP BY account_uuid
  HAVING min(created_at) < coalesce((SELECT min(entry.created_at)
                                       FROM public.billing_ledger AS entry
                                      WHERE entry.account_uuid = charges.account_uuid), 'infinity')
), {LIVES.format(accounts="SELECT account_uuid FROM suspect")}
SELECT coalesce(sum(-amount_delta), 0)
  FROM life
  JOIN billing.charges AS charge USING (account_uuid)
 WHERE bucket_start >= %(since)s AND bucket_start < %(until)s AND charge.created_at < begun_at
   AND NOT EXISTS (SELECT FROM public.billing_ledger AS entry WHERE entry.id = charge.ledger_id)
"""


def read_deleted(
    connection: Connection, since: datetime, until: datetime, account_uuid: str | None
) -> Decimal:
    """Return what was charged in [since, until) to accounts that were deleted since."""
    row = connection.execute(
        READ_DELETED, {"since": since, "until": until, "account": account_uuid}
    ).fetchone()
    if row is None:
        raise AssertionError("a sum has a row")
    amount: Decimal = row[0]
    return amount


class Usage(NamedTuple):
    """Bytes of minute buckets, and what was charged for them: positive amounts are paid.

    `key` is a UTC day such as `2026-04-08`, an hour such as `2026-04-08T12:00:00Z`, the stored
    id of a node, an inbound tag, or the uuid of an account.
    """

    key: str
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    included_bytes: int = 0
    rated_bytes: int = 0
    amount: Decimal = Decimal(0)

    @property
    def total_bytes(self) -> int:
        """Both directions together."""
        return self.uplink_bytes + self.downlink_bytes


def sum_of(key: str, rows: Iterable[Usage]) -> Usage:
    """Return the sum of groups under another key."""
    found = list(rows)
    return Usage(
        key,
        sum(row.uplink_bytes for row in found),
        sum(row.downlink_bytes for row in found),
        sum(row.included_bytes for row in found),
        sum(row.rated_bytes for row in found),
        sum((row.amount for row in found), Decimal(0)),
    )


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The groups in the order to be shown; `others` is the sum of those that --top left out.

    `evidence_since` is where the charges that were kept begin, if that is within the range.
    `deleted_amount` is the part of the amounts that deleted accounts were charged.
    """

    by: By
    since: datetime
    until: datetime
    account_uuid: str | None
    rows: tuple[Usage, ...]
    others: Usage | None
    total: Usage
    currency: str = ""
    evidence_since: datetime | None = None
    deleted_amount: Decimal = Decimal(0)


def usage_object(report: UsageReport) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {
        "job": "usage",
        "status": "ok",
        "error": None,
        **attributes(report, "by since until account_uuid evidence_since deleted_amount"),
        "currency": report.currency or None,
        "rows": [row_object(row) for row in report.rows],
        "others": row_object(report.others) if report.others else None,
        "total": row_object(report.total),
    }


def row_object(row: Usage) -> dict[str, Any]:
    """Return a group with plain values; the amount is a decimal as text."""
    return {**plain(row), "total_bytes": row.total_bytes}


BAR_CHARACTERS = 20

COLUMNS = (
    Column("uplink_bytes", "bytes", is_extra=True),
    Column("downlink_bytes", "bytes", is_extra=True),
    Column("total_bytes", "bytes"),
    Column("included_bytes", "bytes", is_extra=True),
    Column("rated_bytes", "bytes", is_extra=True),
    Column("amount", "money"),
)


def usage_parts(report: UsageReport, *, has_bars: bool = False) -> list[Part]:
    """Return a table with the total below; with bars, each group's share of the largest one."""
    rows = [*report.rows, *([report.others] if report.others else []), report.total]
    largest = max((row.total_bytes for row in report.rows), default=0)
    cells: list[tuple[Cell, ...]] = [
        (*_cells(row), *((_bar(row, largest if row in report.rows else 0),) if has_bars else ()))
        for row in rows
    ]
    since, until = format_rfc3339(report.since), format_rfc3339(report.until)
    columns = (_key(report), *COLUMNS, *((Column("share", is_extra=True),) if has_bars else ()))
    none = f"no usage from {since} to {until}"
    shown = Table(columns, cells if report.rows else (), empty=none)
    return [shown, *amounts_in(report.currency if report.rows else ""), *usage_notes(report)]


def usage_notes(report: UsageReport) -> list[str]:
    """Return where amounts and bytes are not of the same usage."""
    notes = []
    if report.evidence_since is not None:
        since = format_rfc3339(report.evidence_since)
        notes.append(
            f"note: charges of minutes before {since} were pruned: of those only bytes are shown"
        )
    if report.deleted_amount:
        amount = with_currency(report.deleted_amount, report.currency)
        notes.append(
            f"note: {amount} of the amounts was charged to accounts before they were deleted: "
            "of those charges no bytes are shown"
        )
    return notes


def usage_table(report: UsageReport) -> Table:
    """Return the groups as rows, without the total."""
    rows = [*report.rows, *([report.others] if report.others else [])]
    return Table((_key(report), *COLUMNS), [_cells(row) for row in rows])


def _key(report: UsageReport) -> Column:
    return Column(report.by.replace("-", "_"))


def _cells(row: Usage) -> tuple[Cell, ...]:
    return (
        row.key,
        row.uplink_bytes,
        row.downlink_bytes,
        row.total_bytes,
        row.included_bytes,
        row.rated_bytes,
        row.amount,
    )


def _bar(row: Usage, largest: int) -> str:
    return "\u2588" * round(BAR_CHARACTERS * row.total_bytes / largest) if largest else ""
