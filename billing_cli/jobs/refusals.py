"""Which of several units that are written together are refused: sources, or accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import psycopg

from billing_cli.database.failures import is_about_data, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from billing_cli.jobs.entries import FactConflictError

# A source id, or None for the usage of nodes that no source carries; or an account.
Unit = TypeVar("Unit")


class ConflictReason(str):
    """Why a fact was refused that is on record with other figures: no account may wait for that.

    What waits is charged in addition to what its minute was charged.
    """

    __slots__ = ()


def find_refused(
    units: Sequence[Unit], refusal_of: Callable[[Sequence[Unit]], str]
) -> dict[Unit, str]:
    """Find by halves the units whose data is refused, and why; all others are good together.

    `refusal_of` tries some units without the others, and returns why they are refused, or an empty
    text. All together were refused before. Of units that are only refused together, such as two
    that a constraint allows one of, the first ones are good.
    """
    failed = _refused_halves(units, refusal_of)
    rest = [unit for unit in units if unit not in failed]
    if failed and not (rest and refusal_of(rest)):
        return failed
    good: list[Unit] = []

    def refusal_with_good(some: Sequence[Unit]) -> str:
        reason = refusal_of([*good, *some])
        if not reason:
            good.extend(some)
        return reason

    return failed | _refused_halves(rest, refusal_with_good)


def _refused_halves(
    some: Sequence[Unit], refusal_of: Callable[[Sequence[Unit]], str]
) -> dict[Unit, str]:
    """Return those of some refused units that are refused by themselves, and why."""
    failed: dict[Unit, str] = {}
    middle = len(some) // 2
    for half in (some[:middle], some[middle:]):
        reason = refusal_of(half) if half else ""
        if reason and len(half) == 1:
            failed[half[0]] = reason
        elif reason:
            failed |= _refused_halves(half, refusal_of)
    return failed


def refusal(error: psycopg.Error | FactConflictError) -> str:
    """Return why data was refused; raises the error again where data is not to blame."""
    if isinstance(error, psycopg.Error):
        if not is_about_data(error):
            raise error
        return str(translate(error))
    return ConflictReason(error)
