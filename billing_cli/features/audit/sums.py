"""The sums of an audit of all accounts: where they differ, rows are compared one by one."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_cli.features.audit import queries_sums as sums
from billing_cli.features.audit.findings import Figures

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.features.audit.scope import Scope

HOUR = timedelta(hours=1)
ZERO = Decimal(0)


@dataclass(slots=True)
class _HourSums:
    """What the rows of an hour amount to on each side."""

    recorded: Decimal = ZERO
    buckets: Decimal = ZERO
    regions: Decimal = ZERO
    charged: Decimal = ZERO
    entries: Decimal = ZERO
    ledger: Decimal = ZERO
    is_bucket_odd: bool = False
    is_entry_odd: bool = False
    is_amount_odd: bool = False


@dataclass(slots=True)
class Sums:
    """What was read, and the range of minutes in which something is to be looked at again.

    Ranges are None where nothing is. `changed` are the accounts whose balances and quotas do not
    follow from their charges alone. `others` are accounts with new rows of other services, where
    that is known. `sealed` are the sums over the seals of usage records and of charges.
    """

    rows: dict[str, int] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    bytes_range: tuple[datetime, datetime] | None = None
    ledger_range: tuple[datetime, datetime] | None = None
    amounts_range: tuple[datetime, datetime] | None = None
    seals_range: tuple[datetime | str, str] | None = None
    accounts_range: tuple[datetime | str, str] | None = None
    sealed: tuple[Decimal, Decimal] = (ZERO, ZERO)
    changed: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def read_sums(connection: Connection, scope: Scope) -> Sums:
    """Read all facts of the scope once, and compare their sums hour by hour."""
    hours: defaultdict[datetime, _HourSums] = defaultdict(_HourSums)
    found = Sums(rows=dict.fromkeys(("usage_records", "buckets", "charges", "ledger_rows"), 0))
    _read_bytes(connection, scope, hours, found)
    first_at = _read_charges(connection, scope, hours, found)
    if scope.is_incremental:
        _read_new_ledger(connection, scope, hours, found, first_at)
    else:
        _read_ledger(connection, scope, hours, found)
    found.bytes_range = _range_of(
        hour
        for hour, hour_sums in hours.items()
        if hour_sums.is_bucket_odd
        or (hour_sums.recorded - hour_sums.buckets) % sums.PRIME
        or (hour_sums.regions - hour_sums.charged) % sums.PRIME
    )
    found.ledger_range = _range_of(
        hour
        for hour, hour_sums in hours.items()
        if hour_sums.is_entry_odd or (hour_sums.entries - hour_sums.ledger) % sums.ENTRY_PRIME
    )
    found.amounts_range = _range_of(
        hour for hour, hour_sums in hours.items() if hour_sums.is_amount_odd
    )
    everything = (scope.first_minute, "infinity")
    if scope.is_incremental:
        found.seals_range = found.accounts_range = everything
        rows = connection.execute(sums.NEWLY_CHANGED_ACCOUNTS.encode(), scope.parameters())
        found.changed = tuple(sorted({uuid for (uuid,) in rows} | set(found.others)))
        return found
    if connection.execute(sums.SUM_SEALS.encode(), scope.parameters()).fetchone() != found.sealed:
        found.seals_range = everything
    changed = connection.execute(sums.CHANGED_ACCOUNTS.encode(), scope.parameters()).fetchall()
    if any(is_missing for _, is_missing in changed):
        found.accounts_range = everything
    found.changed = tuple(sorted({uuid for uuid, _ in changed}))
    return found


def _read_bytes(
    connection: Connection, scope: Scope, hours: dict[datetime, _HourSums], found: Sums
) -> None:
    recorded = shown = 0
    sealed = ZERO
    given = scope.parameters(since=scope.first_kept_minute)
    for hour, count, moved, hashed, seals in connection.execute(sums.SUM_RECORDS.encode(), given):
        found.rows["usage_records"] += count
        sealed += seals
        recorded += int(moved)
        hours[hour].recorded = hashed or ZERO
    for hour, count, total, hashed, by_region, is_odd in connection.execute(
        sums.SUM_BUCKETS.encode(), given
    ):
        found.rows["buckets"] += count
        shown += int(total)
        hour_sums = hours[hour]
        hour_sums.buckets, hour_sums.regions, hour_sums.is_bucket_odd = hashed, by_region, is_odd
    found.figures = Figures(recorded, shown)
    found.sealed = (sealed, ZERO)


def _read_charges(
    connection: Connection, scope: Scope, hours: dict[datetime, _HourSums], found: Sums
) -> datetime | None:
    """Return when the first of the charges was written."""
    first: datetime | None = None
    included = rated = 0
    amount = sealed = ZERO
    for row in connection.execute(
        sums.SUM_CHARGES.encode(), scope.parameters(since=scope.first_kept_minute)
    ):
        hour, count, paid, billed, money, first_at, seals, by_region, entries, is_odd = row
        found.rows["charges"] += count
        sealed += seals
        included, rated, amount = included + int(paid), rated + int(billed), amount + money
        first = first_at if first is None else min(first, first_at)
        hour_sums = hours[hour]
        hour_sums.charged, hour_sums.entries, hour_sums.is_amount_odd = (
            by_region,
            entries or ZERO,
            is_odd,
        )
    found.figures = replace(
        found.figures, included_bytes=included, rated_bytes=rated, amount=amount
    )
    found.sealed = (found.sealed[0], sealed)
    return first


def _read_ledger(
    connection: Connection, scope: Scope, hours: dict[datetime, _HourSums], found: Sums
) -> None:
    rows = connection.execute(
        sums.SUM_LEDGER.encode(), scope.parameters(since=scope.first_kept_minute)
    )
    for hour, count, hashed, is_odd in rows:
        found.rows["ledger_rows"] += count
        hours[hour].ledger, hours[hour].is_entry_odd = hashed or ZERO, bool(is_odd)


def _read_new_ledger(
    connection: Connection,
    scope: Scope,
    hours: dict[datetime, _HourSums],
    found: Sums,
    first_at: datetime | None,
) -> None:
    """Compare the ledger as a whole; where it differs, each hour is looked at again."""
    since = scope.proven_at if first_at is None else min(first_at, scope.proven_at or first_at)
    given = scope.parameters(since=scope.first_kept_minute, entered_since=since)
    row = connection.execute(sums.SUM_NEW_LEDGER.encode(), given).fetchone()
    if row is None:
        raise AssertionError("a SELECT of sums has a row")
    count, hashed, is_odd, others = row
    found.rows["ledger_rows"], found.others = count, tuple(others)
    difference = (hashed or ZERO) - sum(hour.entries for hour in hours.values())
    is_same = not difference % sums.ENTRY_PRIME and not is_odd
    for hour_sums in hours.values():
        hour_sums.ledger, hour_sums.is_entry_odd = hour_sums.entries, not is_same


def _range_of(hours: Iterable[datetime]) -> tuple[datetime, datetime] | None:
    """Return the minutes from the first of these hours to the end of the last."""
    listed = sorted(hours)
    return (listed[0], listed[-1] + HOUR) if listed else None
