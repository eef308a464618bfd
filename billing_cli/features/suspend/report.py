"""What a run of `suspend` did, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.cli.units import plural, with_currency
from billing_cli.core.objects import attributes
from billing_cli.core.result import RunResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from billing_cli.cli.tables import Part
    from billing_cli.core.arrears import ArrearsState


@dataclass(frozen=True, slots=True)
class SuspendResult(RunResult):
    """A run of `suspend`: which accounts it suspended and released.

    `closed` are those that another service had released before. `flagged` and `cleared` count
    arrears flags, `skipped` accounts that other sessions held locked.
    """

    suspended: tuple[ArrearsState, ...] = ()
    released: tuple[ArrearsState, ...] = ()
    closed: tuple[ArrearsState, ...] = ()
    flagged: int = 0
    cleared: int = 0
    skipped: int = 0

    @property
    def details(self) -> Mapping[str, Any]:
        """The accounts, and the counts."""
        return {
            "suspended": _accounts(self.suspended),
            "released": _accounts(self.released),
            "closed": _accounts(self.closed),
            **attributes(self, "flagged cleared skipped"),
        }


def suspend_parts(result: SuspendResult) -> list[Part]:
    """Return a summary line, and a line for each account."""
    would = " (dry run: nothing is stored)" if result.dry_run else ""
    head = (
        f"{result.job}: {result.status}{would} - "
        f"{plural(len(result.suspended), 'account')} suspended, "
        f"{len(result.released)} released, arrears flags: {result.flagged} set, "
        f"{result.cleared} cleared"
    )
    lines: list[Part] = [head]
    for word, states in (
        ("suspended", result.suspended),
        ("released", result.released),
        ("released by another service", result.closed),
    ):
        lines += [
            f"{word}: {state.account_uuid}, balance {with_currency(state.balance, result.currency)}"
            for state in states
        ]
    lines += [f"note: {note}" for note in result.notes]
    return lines


def _accounts(states: Iterable[ArrearsState]) -> list[dict[str, Any]]:
    return [attributes(state, "account_uuid balance arrears_since") for state in states]
