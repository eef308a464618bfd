"""Figures and counts as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

BYTES_IN_A_KIBIBYTE = 1024
BITS_IN_A_KILOBIT = 1000
SECONDS_IN_A_MINUTE = 60
MINUTES_IN_TWO_HOURS = 120
LEVELS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 gap` or `2 gaps`; `2 entries` of `entry`."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and not noun.endswith(("ay", "ey", "oy")):
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"


def human_bytes(count: int) -> str:
    """Return a byte count with a binary unit, such as `1.5 GiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(amount) < BYTES_IN_A_KIBIBYTE:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= BYTES_IN_A_KIBIBYTE
    return f"{amount:.1f} PiB"


def human_rate(bits_per_second: int) -> str:
    """Return a rate with a decimal unit, such as `2.5 Gbit/s`."""
    amount = float(bits_per_second)
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if amount < BITS_IN_A_KILOBIT:
            return f"{amount:.0f} {unit}" if unit == "bit/s" else f"{amount:.1f} {unit}"
        amount /= BITS_IN_A_KILOBIT
    return f"{amount:.1f} Tbit/s"


def human_seconds(seconds: float | None) -> str:
    """Return a duration such as `45 s`, `12 min` or `3.5 h`; `-` where there is none."""
    if seconds is None:
        return "-"
    if seconds < 2 * SECONDS_IN_A_MINUTE:
        return f"{seconds:.0f} s"
    minutes = seconds / SECONDS_IN_A_MINUTE
    if minutes < MINUTES_IN_TWO_HOURS:
        return f"{minutes:.0f} min"
    return f"{minutes / SECONDS_IN_A_MINUTE:.1f} h"


def with_currency(amount: Decimal, currency: str) -> str:
    """Return an amount with the configured label of its currency, if there is one."""
    return f"{amount:f} {currency}" if currency else f"{amount:f}"


def amounts_in(currency: str) -> list[str]:
    """Return the line below tables of amounts, which have no label of their own."""
    return [f"amounts in {currency}"] if currency else []


def sparkline(values: Sequence[float | None]) -> str:
    """Return one bar for each value, the largest one full; a space where there is none."""
    largest = max((value for value in values if value is not None), default=0)
    steps = len(LEVELS) - 1
    return "".join(
        " " if value is None else LEVELS[round(steps * max(value, 0) / largest) if largest else 0]
        for value in values
    )
