"""`usage`: reads what was used and charged in a range, in groups. Writes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import minute_of
from billing_cli.database.connection import Session
from billing_cli.database.lookup import find_account
from billing_cli.database.partitions import read_evidence_since
from billing_cli.database.schema import require_head
from billing_cli.features.usage.queries import read_deleted, read_usage
from billing_cli.features.usage.result import TIMES, UsageReport, sum_of
from billing_cli.jobs.context import check_range

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.usage.result import By
    from billing_cli.jobs.context import JobContext

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
