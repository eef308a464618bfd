"""What a simulation found: costs by account, and their JSON object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.objects import attributes
from billing_cli.core.simulation import Cost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Simulation:
    """Costs by account, the largest difference first; `problems` are accounts left out.

    `notes` are about the packages that were asked for.
    """

    since: datetime
    until: datetime
    accounts: Mapping[str, Cost]
    problems: Mapping[str, str]
    currency: str = ""
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Cost:
        """The sum over the accounts."""
        costs = self.accounts.values()
        return Cost(
            sum(cost.total_bytes for cost in costs),
            sum((cost.amount for cost in costs), Cost().amount),
            sum((cost.simulated_amount for cost in costs), Cost().amount),
        )


def simulation_object(simulation: Simulation) -> dict[str, Any]:
    """Return the simulation as a JSON object; amounts are decimals as text."""
    return {
        "job": "simulate",
        "status": "partial" if simulation.problems else "ok",
        "error": None,
        **attributes(simulation, "since until"),
        "currency": simulation.currency or None,
        "accounts": [
            {"account_uuid": account, **cost_object(cost)}
            for account, cost in simulation.accounts.items()
        ],
        "total": cost_object(simulation.total),
        "problems": [
            {"account_uuid": account, "reason": reason}
            for account, reason in simulation.problems.items()
        ],
    }


def cost_object(cost: Cost) -> dict[str, Any]:
    """Return a cost with plain values."""
    return attributes(cost, "total_bytes amount simulated_amount difference")
