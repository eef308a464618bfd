"""What a re-rating changed, as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.account_amounts import account_parts
from billing_cli.cli.tables import Column
from billing_cli.cli.units import plural, with_currency

if TYPE_CHECKING:
    from billing_cli.cli.tables import Part
    from billing_cli.features.rerate.result import RerateResult

COLUMNS = (Column("account"), Column("charges", "count"), Column("pays_more", "change"))


def rerate_parts(result: RerateResult) -> list[Part]:
    """Return a summary line, the accounts with the largest differences, and the notes."""
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    more_or_less = "less" if result.amount < 0 else "more"
    head = (
        f"{result.job}: {result.status}{would} - {plural(result.corrections, 'charge')} of "
        f"{plural(result.written_minutes, 'minute')} re-rated by version "
        f"{result.pricing_rule_version}, {plural(len(result.accounts), 'account')}: "
        f"{with_currency(abs(result.amount), result.currency)} {more_or_less} in total"
    )
    accounts = account_parts(result.accounts, COLUMNS, result.currency)
    return [head, *accounts, *(f"note: {note}" for note in result.notes)]
