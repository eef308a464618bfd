"""A reversal as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.account_amounts import account_parts
from billing_cli.cli.tables import Column
from billing_cli.cli.units import human_bytes, plural, with_currency

if TYPE_CHECKING:
    from billing_cli.cli.tables import Part
    from billing_cli.features.reverse.result import ReverseResult

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
    accounts = account_parts(result.accounts, COLUMNS, result.currency)
    return [head, *accounts, *(f"note: {note}" for note in result.notes)]
