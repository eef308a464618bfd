"""What `rerate` reports: how charges changed when they were re-rated at other prices, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes
from billing_cli.core.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal


@dataclass(frozen=True, slots=True)
class AccountDifference:
    """How many charges of an account changed, and how much more it pays; less where negative."""

    account_uuid: str
    corrections: int
    amount: Decimal


@dataclass(frozen=True, slots=True)
class RerateResult(RunResult):
    """A run of `rerate`. `accounts` are those of which a charge changed.

    `corrections` counts the ledger entries, `written_minutes` the buckets that they are about.
    `amount` is what all accounts together pay more, negative where they get money back.
    """

    pricing_rule_version: str = ""
    accounts: tuple[AccountDifference, ...] = ()

    @property
    def details(self) -> Mapping[str, Any]:
        """The version, and the differences by account."""
        return attributes(self, "pricing_rule_version accounts")
