"""The accounts that a job wrote entries for, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Table
from billing_cli.cli.units import amounts_in, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.cli.tables import Column, Part
    from billing_cli.core.result import AccountAmount

MAX_ACCOUNTS_SHOWN = 50


def account_parts(
    accounts: Sequence[AccountAmount], columns: Sequence[Column], currency: str
) -> list[Part]:
    """Return a table of the accounts with the largest amounts, and how many others there are."""
    by_size = sorted(accounts, key=lambda account: (-abs(account.amount), account.account_uuid))
    shown = by_size[:MAX_ACCOUNTS_SHOWN]
    if not shown:
        return []
    rows = [(account.account_uuid, account.corrections, account.amount) for account in shown]
    parts: list[Part] = ["", Table(columns, rows), *amounts_in(currency)]
    if len(by_size) > len(shown):
        hidden = plural(len(by_size) - len(shown), "other account")
        parts.append(f"... and {hidden}; --json lists them all")
    return parts
