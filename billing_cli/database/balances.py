"""What changed balances and quotas between our own entries: for `audit` and `repair`.

Little is read where nothing happened: only the places at which an entry did not find what the one
before it had left. Rows of other services are read for the accounts of such places, and all
entries of an account only where rows do not explain its changes.
"""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.balances import explain_changes, explain_in_order, is_loss_possible, stored
from billing_cli.core.funds import (
    LATEST,
    ROW_DELAY,
    Change,
    Circumstances,
    Explanation,
    Funds,
    LostCharge,
    OtherRow,
    OwnEntry,
)
from billing_cli.core.rating import balance_of, is_balance
from billing_cli.database.balance_queries import (
    HAS_PERIODS,
    PERIODS,
    PLAN_FOR_ALL_ROWS,
    READ_CHANGES,
    READ_CHANGES_OF,
    READ_OTHER_ROWS,
    READ_OWN_ENTRIES,
    READ_PROFILE_QUOTAS,
    READ_RECENT_CHANGES_OF,
    READ_RENEWALS_SEEN,
    READ_REPAIRED,
    READ_WITHOUT_ROWS,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.funds import Loss

ACCOUNTS_AT_ONCE = 500

ALWAYS = "-infinity"

# Of these the entries of whole days are in memory at once.
DOUBTFUL_AT_ONCE = 50


class AccountChanges(NamedTuple):
    """What is to be said of an account's funds.

    `open_losses` are those that no repair has corrected. `invalid` is a balance or quota that
    nothing can be computed with, as text.
    """

    account_uuid: str
    explanation: Explanation
    open_losses: tuple[Loss, ...] = ()
    invalid: str | None = None


def read_account_changes(
    connection: Connection,
    account_uuid: str | None,
    default_quota_bytes: int,
    since: datetime | None = None,
) -> Iterator[AccountChanges]:
    """Yield the accounts whose funds were changed by others, of all accounts or only of one.

    Must be called in a transaction; rows are streamed. With `since` the charges of earlier minutes
    are left out. `default_quota_bytes` is what accounts
    without a quota in their profile begin a period with.
    """
    connection.execute(PLAN_FOR_ALL_ROWS)
    with connection.cursor(name="account_changes") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            READ_CHANGES.encode(),
            {"account": account_uuid, "since": since or ALWAYS, "until": "infinity"},
        )
        yield from _explained(connection, cursor, default_quota_bytes, since)


def read_changes_of(
    connection: Connection,
    account_uuids: Sequence[str],
    default_quota_bytes: int,
    minutes: tuple[datetime, datetime] | None = None,
) -> list[AccountChanges]:
    """Return the same of the accounts that are named, by all charges or by those of some days."""
    if minutes is None:
        rows = connection.execute(
            READ_CHANGES_OF.encode(), {"account_uuids": list(account_uuids), "since": ALWAYS}
        )
        return list(_explained(connection, rows, default_quota_bytes))
    rows = connection.execute(
        READ_RECENT_CHANGES_OF.encode(),
        {"account_uuids": list(account_uuids), "since": minutes[0], "until": minutes[1]},
    )
    return list(_explained(connection, rows, default_quota_bytes, minutes[0]))


def _explained(
    connection: Connection,
    rows: Iterable[tuple[Any, ...]],
    default_quota_bytes: int,
    since: datetime | None = None,
) -> Iterator[AccountChanges]:
    groups = ((key, list(group)) for key, group in groupby(rows, key=lambda row: row[0]))
    while batch := dict(islice(groups, ACCOUNTS_AT_ONCE)):
        circumstances = _circumstances(connection, batch, default_quota_bytes)
        repaired = set(_rows(connection, READ_REPAIRED, batch))
        changes = {account: _changes(found) for account, found in batch.items()}
        explained = {
            account: explain_in_order(found, circumstances[account])
            for account, found in changes.items()
        }
        unexplained = {
            account: changes[account]
            for account, explanation in explained.items()
            if explanation.unexplained
        }
        created_again = _may_be_created_again(connection, unexplained)
        doubtful = [
            account
            for account in unexplained
            if account in created_again
            or is_loss_possible(explained[account], circumstances[account])
        ]
        for account in unexplained.keys() - set(doubtful):
            explained[account] = explain_changes(changes[account], circumstances[account])
        for start in range(0, len(doubtful), DOUBTFUL_AT_ONCE):
            part = {account: changes[account] for account in doubtful[start:][:DOUBTFUL_AT_ONCE]}
            for account, entries in _own_entries(connection, part, since).items():
                explained[account] = explain_changes(
                    changes[account], circumstances[account], entries
                )
        for account, explanation in explained.items():
            yield AccountChanges(
                account,
                explanation,
                tuple(
                    loss
                    for loss in explanation.losses
                    if (account, loss.change.after_id) not in repaired
                ),
                _invalid(batch[account]),
            )


def _changes(rows: Iterable[tuple[Any, ...]]) -> list[Change]:
    """Return the changes in an account's rows of CHANGES.

    An entry that used a former quota found the stored one as the entry before it had left it, and
    left it so.
    """
    changes = []
    stored_quota: int | None = None
    stored_at: datetime | None = None
    for row in rows:
        _, after_id, left_at, balance_left, quota_left, found_at = row[:6]
        left_is_former, found_is_former, balance, quota = row[6:]
        if not _is_valid(row):
            continue
        if left_is_former:
            quota_left = quota if stored_quota is None else stored_quota
        known_at = stored_at if left_is_former else None
        stored_quota = stored_at = None
        if found_is_former and quota_left is not None:
            quota = stored_quota = quota_left
            stored_at = known_at or left_at
        left = None if after_id is None else Funds(stored(balance_left), quota_left)
        found = Funds(balance_of(balance), quota)
        changes.append(Change(after_id, left_at, left, found_at, found, known_at))
    return changes


def _is_valid(row: tuple[Any, ...]) -> bool:
    balance, quota = row[-2:]
    return balance is not None and quota is not None and is_balance(balance)


def _invalid(rows: Iterable[tuple[Any, ...]]) -> str | None:
    for row in rows:
        if not _is_valid(row):
            balance, quota = row[-2:]
            return f"balance {balance}, quota {quota}".replace("None", "NULL")
    return None


def _circumstances(
    connection: Connection, accounts: dict[str, list[tuple[Any, ...]]], default_quota_bytes: int
) -> dict[str, Circumstances]:
    others: dict[str, list[OtherRow]] = {account: [] for account in accounts}
    for account, created_at, amount, is_recent in _rows(connection, READ_OTHER_ROWS, accounts):
        began_at = accounts[account][0][5]
        if created_at >= began_at:
            is_doubtful = is_recent or created_at <= began_at + ROW_DELAY
            others[account].append(OtherRow(created_at, amount, is_doubtful))
    quotas = dict(_rows(connection, READ_PROFILE_QUOTAS, accounts))
    row = connection.execute(HAS_PERIODS).fetchone()
    has_periods = bool(row and row[0])
    periods = PERIODS.format(period_start="period_start::timestamptz") if has_periods else ""
    starts = dict(_rows(connection, periods, accounts)) if has_periods else {}
    seen: dict[str, list[datetime]] = {account: [] for account in accounts}
    for account, seen_at in _rows(connection, READ_RENEWALS_SEEN, accounts):
        seen[account].append(seen_at)
    return {
        account: Circumstances(
            others[account],
            starts.get(account),
            frozenset({quotas.get(account, default_quota_bytes)}),
            tuple(seen[account]),
        )
        for account in accounts
    }


def _may_be_created_again(
    connection: Connection, changes: Mapping[str, Sequence[Change]]
) -> set[str]:
    """Return the accounts of which an entry has no ledger row: what is unexplained misleads."""
    named = [
        (account, change.after_id)
        for account, found in changes.items()
        for change in found
        if change.after_id is not None
    ]
    wanted = {
        "account_uuids": [account for account, _ in named],
        "entry_ids": [entry_id for _, entry_id in named],
    }
    rows = connection.execute(READ_WITHOUT_ROWS.encode(), wanted) if named else ()
    return {account for (account,) in rows}


def _own_entries(
    connection: Connection, changes: Mapping[str, Sequence[Change]], since: datetime | None
) -> dict[str, list[OwnEntry]]:
    """Return the entries of each account that may have been lost by one of its changes."""
    entries: dict[str, list[OwnEntry]] = {account: [] for account in changes}
    charges: dict[str, LostCharge] = {}
    spans = [
        (account, change.left_at)
        for account, found in changes.items()
        for change in found
        if change.left_at is not None
    ]
    wanted = {
        "account_uuids": [account for account, _ in spans],
        "froms": [left_at - LATEST for _, left_at in spans],
        "tos": [left_at for _, left_at in spans],
        "since": since or ALWAYS,
    }
    for row in connection.execute(READ_OWN_ENTRIES.encode(), wanted):
        account, entry_id, at, minute, balance, amount, quota, included, ids, is_there = row
        if minute is not None:
            charges[entry_id] = LostCharge(entry_id, minute, amount, included)
        lost = tuple(
            charges.get(ledger_id) or LostCharge(ledger_id, None, amount, included)
            for ledger_id in ids
        )
        found = Funds(balance, quota)
        entries[account].append(OwnEntry(entry_id, at, found, amount, included, lost, is_there))
    return entries


def _rows(
    connection: Connection, statement: str, account_uuids: Iterable[str]
) -> Iterator[tuple[Any, ...]]:
    return iter(connection.execute(statement.encode(), {"account_uuids": list(account_uuids)}))
