"""Whole columns as PostgreSQL array literals.

A statement receives all rows of a run as a few arrays and unfolds them with `unnest`, so that the
number of statements does not grow with the number of rows. Building the literals here costs a
small part of what adapting every element through the driver would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal


def plain(values: Iterable[int | Decimal | str | None]) -> str:
    """Return an array literal of numbers or canonical UUIDs, whose text never needs quotes."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def moments(values: Iterable[datetime | None]) -> str:
    """Return an array literal of times. A run holds few different ones: each is formatted once."""
    known: dict[datetime | None, str] = {None: "NULL"}
    texts = []
    for value in values:
        text = known.get(value)
        if text is None and value is not None:
            text = known[value] = value.isoformat()
        texts.append(text or "NULL")
    return "{" + ",".join(texts) + "}"


def texts(values: Iterable[str]) -> str:
    """Return an array literal of any texts, each quoted once however often it occurs."""
    known: dict[str, str] = {}
    quoted = []
    for value in values:
        text = known.get(value)
        if text is None:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            text = known[value] = f'"{escaped}"'
        quoted.append(text)
    return "{" + ",".join(quoted) + "}"
