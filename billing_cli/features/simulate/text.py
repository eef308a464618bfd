"""A simulation as a table, and as CSV."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from billing_cli.cli.text import human_bytes, table
from billing_cli.features.simulate.result import cost_object

if TYPE_CHECKING:
    from billing_cli.core.simulation import Cost
    from billing_cli.features.simulate.result import Simulation

MAX_ACCOUNTS_SHOWN = 50


def simulation_text(simulation: Simulation) -> str:
    """Return the accounts with the largest differences, the total, and what was left out."""
    shown = list(simulation.accounts.items())[:MAX_ACCOUNTS_SHOWN]
    rows = [_row(account, cost) for account, cost in shown]
    hidden = len(simulation.accounts) - len(shown)
    header = ("ACCOUNT", "BYTES", "PAID", "SIMULATED", "DIFFERENCE")
    lines = [table(header, [*rows, _row("total", simulation.total)])]
    if hidden > 0:
        lines.append(f"{hidden} more accounts are in the total; --output csv lists them all")
    lines += [f"left out: account {one}: {why}" for one, why in simulation.problems.items()]
    return "\n".join(lines)


def simulation_csv(simulation: Simulation) -> str:
    """Return all accounts as CSV with a header."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    columns = ("total_bytes", "amount", "simulated_amount", "difference")
    writer.writerow(("account_uuid", *columns))
    for account, cost in simulation.accounts.items():
        values = cost_object(cost)
        writer.writerow((account, *(values[column] for column in columns)))
    return written.getvalue().rstrip("\n")


def _row(name: str, cost: Cost) -> tuple[str, ...]:
    amounts = (f"{cost.amount:f}", f"{cost.simulated_amount:f}", f"{cost.difference:+f}")
    return (name, human_bytes(cost.total_bytes), *amounts)
