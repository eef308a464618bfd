"""What `reverse` gave back, as values and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.cli.tables import Column
from billing_cli.cli.text import account_parts
from billing_cli.cli.units import human_bytes, plural, with_currency
from billing_cli.core.objects import attributes
from billing_cli.core.result import AccountAmount, RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.cli.tables import Part


@dataclass(frozen=True, slots=True)
class ReverseResult(RunResult):
    """A run of `reverse`: `corrections` counts the ledger entries, `written_minutes` the buckets.

    A bucket whose quota several steps changed counts in each of them. `amount` and the bytes are
    negative: what is given back. `accounts` have what each of them got back.
    """

    reason: str = ""
    accounts: tuple[AccountAmount, ...] = ()

    @property
    def details(self) -> Mapping[str, Any]:
        """The reason, and what each account got back."""
        return attributes(self, "reason accounts")


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
