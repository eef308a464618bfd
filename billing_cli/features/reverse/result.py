"""What `reverse` gave back, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes
from billing_cli.core.result import AccountAmount, RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping


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
