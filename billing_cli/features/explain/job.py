"""`explain`: shows what an account was charged for, from the counters to the balance.

Reads one state of the database, asks no exporter, changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import MINUTE, minute_of
from billing_cli.database.connection import Session
from billing_cli.database.lookup import find_account
from billing_cli.database.minutes import read_last_minute, read_minutes
from billing_cli.database.partitions import read_evidence_since
from billing_cli.database.schema import require_head
from billing_cli.errors import UsageError
from billing_cli.features.explain.explanation import DEFAULT_LIMIT, Explanation
from billing_cli.features.explain.queries import read_explanations, read_gaps
from billing_cli.features.explain.queries_totals import read_totals, read_waiting
from billing_cli.jobs.context import check_range

if TYPE_CHECKING:
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.jobs.context import JobContext

DEFAULT_RANGE = timedelta(hours=1)


def explain(
    context: JobContext,
    account: str,
    *,
    minute: datetime | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Explanation:
    """Return how charges were calculated: of one minute, of [since, until), or of the last hour.

    `account` is an account's uuid, a proxy uuid that it has or had, or its e-mail address. `minute`
    may be any moment within it. Without `since`, the hour that ends with the last minute with usage
    is shown, before `until` where that is given. At most `limit` minutes are shown, the first ones.
    Raises UsageError for an unknown account or a range that can't be, BillingError where the
    database can't be read.
    """
    if minute is not None and (since is not None or until is not None):
        raise UsageError("--minute excludes --since and --until")
    check_range(since, until, context.clock())

    def work(connection: Connection) -> Explanation:
        require_head(connection)
        explanation = _explain(connection, account, minute, since, until, limit)
        return replace(explanation, currency=context.currency)

    with Session(context.database) as session:
        return session.read_one_state(work)


def _explain(
    connection: Connection,
    account: str,
    minute: datetime | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> Explanation:
    is_email = "@" in account
    try:
        found = find_account(connection, account)
    except UsageError:
        waiting = () if is_email else read_waiting(connection, None, account)
        if not waiting:
            raise
        return Explanation(account, None, "unresolved", False, since, until, waiting=waiting)
    if minute is not None:
        since = minute_of(minute)
        until = since + MINUTE
    elif since is not None:
        since = minute_of(since)
    else:
        last = read_last_minute(connection, found.account_uuid, until)
        if last is not None:
            since, until = last + MINUTE - DEFAULT_RANGE, last + MINUTE
    # One more than is shown, to say where to go on.
    minutes, total = read_minutes(connection, found.account_uuid, since, until, limit + 1)
    shown = minutes[:limit]
    explained = read_explanations(connection, found.account_uuid, shown) if shown else ()
    nodes = {line.stored_node_id for part in explained for line in part.lines}
    return Explanation(
        asked=account,
        account_uuid=found.account_uuid,
        known_by=found.known_by,
        exists=found.exists,
        since=since,
        until=until,
        minutes=explained,
        total_minutes=total,
        next_minute=minutes[limit] if len(minutes) > limit else None,
        gaps=read_gaps(connection, nodes, shown[0], shown[-1]) if shown else (),
        evidence_since=read_evidence_since(connection),
        totals=read_totals(connection, found.account_uuid, since, until),
        waiting=read_waiting(
            connection, found.account_uuid, found.account_uuid if is_email else account
        ),
    )
