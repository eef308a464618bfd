"""A reversal as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, human_bytes, plural, with_currency

if TYPE_CHECKING:
    from billing_cli.cli.tables import Part
    from billing_cli.features.reverse.result import ReverseResult

MAX_ACCOUNTS_SHOWN = 50

COLUMNS = (Column("account"), Column("entries", "count"), Column("gets_back", "change"))


def reverse_parts(result: ReverseResult) -> list[Part]:
    """Return a summary line, the accounts that got most back, and the notes."""
    if result.status == "busy":
        return [f"{result.job}: {result.status}: {result.error}"]
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    size_bytes = -(result.included_bytes + result.charged_bytes)
    head = (
        f"{result.job}: {result.status}{would} - {human_bytes(size_bytes)} of "
        f"{plural(result.written_minutes, 'minute')} taken back, "
        f"{with_currency(-result.amount, result.currency)} given back to "
        f"{plural(len(result.accounts), 'account')}"
    )
    parts: list[Part] = [head]
    by_size = sorted(result.accounts, key=lambda account: (-account.amount, account.account_uuid))
    shown = by_size[:MAX_ACCOUNTS_SHOWN]
    if shown:
        rows = [(account.account_uuid, account.corrections, account.amount) for account in shown]
        parts += ["", Table(COLUMNS, rows), *amounts_in(result.currency)]
    if len(by_size) > len(shown):
        hidden = plural(len(by_size) - len(shown), "other account")
        parts.append(f"... and {hidden}; --json lists them all")
    parts += [f"note: {note}" for note in result.notes]
    return parts
