"""How charges changed when they were re-rated at other prices, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.cli.tables import Column
from billing_cli.cli.text import account_parts
from billing_cli.cli.units import plural, with_currency
from billing_cli.core.objects import attributes
from billing_cli.core.result import AccountAmount, RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.cli.tables import Part


@dataclass(frozen=True, slots=True)
class RerateResult(RunResult):
    """A run of `rerate`. `accounts` are those of which a charge changed, and what they pay more.

    `corrections` counts the ledger entries, `written_minutes` the buckets that they are about.
    `amount` is what all accounts together pay more, negative where they get money back.
    """

    pricing_rule_version: str = ""
    accounts: tuple[AccountAmount, ...] = ()

    @property
    def details(self) -> Mapping[str, Any]:
        """The version, and the differences by account."""
        return attributes(self, "pricing_rule_version accounts")


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
