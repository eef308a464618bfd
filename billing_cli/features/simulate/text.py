"""A simulation as a list for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.tables import Column, Table
from billing_cli.cli.units import amounts_in, plural

if TYPE_CHECKING:
    from billing_cli.cli.tables import Cell, Part
    from billing_cli.core.simulation import Cost
    from billing_cli.features.simulate.result import Simulation

MAX_ACCOUNTS_SHOWN = 50
COLUMNS = (
    Column("account_uuid"),
    Column("total_bytes", "bytes", is_extra=True),
    Column("amount", "money", is_extra=True),
    Column("simulated_amount", "money"),
    Column("difference", "change"),
)


def simulation_parts(simulation: Simulation) -> list[Part]:
    """Return the accounts with the largest differences, the total, what was left out, and notes."""
    shown = list(simulation.accounts.items())[:MAX_ACCOUNTS_SHOWN]
    rows = [_row(account, cost) for account, cost in shown]
    hidden = len(simulation.accounts) - len(shown)
    parts: list[Part] = [Table(COLUMNS, [*rows, _row("total", simulation.total)])]
    if hidden > 0:
        others = plural(hidden, "other account")
        parts.append(f"{others} in the total; --output csv lists them all")
    parts += amounts_in(simulation.currency)
    parts += [f"left out: account {account}: {why}" for account, why in simulation.problems.items()]
    parts += simulation_notes(simulation)
    return parts


def simulation_notes(simulation: Simulation) -> list[str]:
    """Return the notes as lines."""
    return [f"note: {note}" for note in simulation.notes]


def simulation_table(simulation: Simulation) -> Table:
    """Return all accounts as rows, without the total."""
    return Table(COLUMNS, [_row(account, cost) for account, cost in simulation.accounts.items()])


def _row(name: str, cost: Cost) -> tuple[Cell, ...]:
    return name, cost.total_bytes, cost.amount, cost.simulated_amount, cost.difference
