"""What a re-rating changed, as text for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.cli.text import table
from billing_cli.printable import printable

if TYPE_CHECKING:
    from billing_cli.features.rerate.result import RerateResult

MAX_ACCOUNTS_SHOWN = 50


def rerate_text(result: RerateResult) -> str:
    """Return a summary line, the accounts with the largest differences, and the notes."""
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    more_or_less = "less" if result.amount < 0 else "more"
    version = printable(result.pricing_rule_version)
    head = (
        f"{result.job}: {result.status}{would} - {result.corrections} charges of "
        f"{result.written_minutes} minutes brought to version {version}, "
        f"{len(result.accounts)} accounts pay {abs(result.amount):f} {more_or_less} in total"
    )
    lines = [head]
    by_size = sorted(result.accounts, key=lambda one: (-abs(one.amount), one.account_uuid))
    shown = by_size[:MAX_ACCOUNTS_SHOWN]
    if shown:
        rows = [(one.account_uuid, str(one.corrections), f"{one.amount:+f}") for one in shown]
        lines += ["", table(("ACCOUNT", "CHARGES", "PAYS MORE"), rows)]
    if len(by_size) > len(shown):
        lines.append(f"... and {len(by_size) - len(shown)} more accounts; --json lists them all")
    lines += [f"note: {printable(note)}" for note in result.notes]
    return "\n".join(lines)
