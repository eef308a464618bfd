"""What an audit says of changes of balances and quotas that are not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.database.balances import read_account_changes, read_changes_of
from billing_cli.features.audit.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from psycopg import Connection

    from billing_cli.core.funds import Change, Loss, Unexplained
    from billing_cli.database.balances import AccountChanges
    from billing_cli.features.audit.findings import Value
    from billing_cli.features.audit.scope import Scope
    from billing_cli.features.audit.sums import Sums


# More accounts than these are read by one look at everything.
ACCOUNTS_BY_KEY = 500


def find_changed_funds(
    connection: Connection, scope: Scope, found: Sums | None, default_quota_bytes: int
) -> Iterator[Finding]:
    """Yield charges that were lost, and changes that no row explains, account by account.

    Of all accounts, those are looked at whose funds do not follow from their charges alone.
    """
    if found is None:
        changes: Iterable[AccountChanges] = read_account_changes(
            connection, scope.account_uuid, default_quota_bytes
        )
    elif len(found.changed) > ACCOUNTS_BY_KEY:
        changes = _changes_of_many(connection, scope, default_quota_bytes)
    else:
        changes = read_changes_of(connection, found.changed, default_quota_bytes, scope.funds_range)
    for account in changes:
        yield from _account_findings(account)


def _changes_of_many(
    connection: Connection, scope: Scope, default_quota_bytes: int
) -> Iterator[AccountChanges]:
    """Yield the changes of all accounts, in the minutes of the scope where it has some.

    By these alone, late charges of earlier minutes look like changes of others: accounts of which
    there is something to be said are read once more, by their keys.
    """
    minutes = scope.funds_range
    if minutes is None:
        yield from read_account_changes(connection, None, default_quota_bytes)
        return
    changes = read_account_changes(connection, None, default_quota_bytes, minutes[0])
    doubtful = [account.account_uuid for account in changes if any(_account_findings(account))]
    for start in range(0, len(doubtful), ACCOUNTS_BY_KEY):
        accounts = doubtful[start : start + ACCOUNTS_BY_KEY]
        yield from read_changes_of(connection, accounts, default_quota_bytes, minutes)


def _account_findings(account: AccountChanges) -> Iterator[Finding]:
    uuid = account.account_uuid
    for loss in account.open_losses:
        yield from _lost_charges(uuid, loss)
    for rest in account.explanation.unexplained:
        yield from _outside(uuid, rest)
    unapplied = account.explanation.unapplied
    if unapplied:
        yield Finding(
            "entry_unapplied",
            uuid,
            {"written_at": unapplied[0].created_at, "last_written_at": unapplied[-1].created_at},
            found={
                "rows": len(unapplied),
                "amount_delta": sum((row.amount for row in unapplied[1:]), unapplied[0].amount),
            },
        )
    if account.invalid is not None:
        yield Finding("funds_invalid", uuid, {}, found={"funds": account.invalid})


def _lost_charges(account_uuid: str, loss: Loss) -> Iterator[Finding]:
    for charge in loss.charges:
        keys: dict[str, Value] = {"ledger_id": charge.ledger_id}
        if charge.bucket_start is not None:
            keys["bucket_start"] = charge.bucket_start
        found: dict[str, Value] = {"amount_delta": charge.amount_delta}
        if loss.quota:
            found["included_bytes"] = charge.included_bytes
        yield Finding("charge_lost", account_uuid, keys | _places(loss.change), found=found)


def _outside(account_uuid: str, rest: Unexplained) -> Iterator[Finding]:
    change = rest.change
    if change.left is None:
        return
    if rest.balance:
        yield Finding(
            "balance_outside",
            account_uuid,
            _places(change),
            {"current_balance": change.left.balance},
            {"current_balance": change.found.balance, "difference": rest.balance},
        )
    if rest.quota:
        yield Finding(
            "quota_outside",
            account_uuid,
            _places(change),
            {"remaining_included_quota": change.left.quota},
            {"remaining_included_quota": change.found.quota, "difference": rest.quota},
        )


def _places(change: Change) -> dict[str, Value]:
    """Return between which of our entries a change came; after the last one it has no end."""
    places: dict[str, Value] = {}
    if change.left_at is not None:
        places["charged_at"] = change.left_at
    if change.found_at is not None:
        places["found_at"] = change.found_at
    return places
