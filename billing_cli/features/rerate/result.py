"""What `rerate` reports: how charges changed when they were re-rated at other prices, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes
from billing_cli.core.result import AccountAmount, RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping


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
