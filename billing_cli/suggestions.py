"""What a misspelt name may have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is nearest to an unknown one, or nothing."""
    nearest = nearest_of(name, known)
    return f" (did you mean {nearest!r}?)" if nearest else ""


def nearest_of(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is nearest to an unknown one; None where none is near.

    `cutoff` is how much of both names must be alike, from 0 to 1.
    """
    import difflib  # noqa: PLC0415 - only where something is wrong

    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), None)
