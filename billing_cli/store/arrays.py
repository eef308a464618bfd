"""Whole columns as PostgreSQL array literals.

A statement receives all rows of a run as a few arrays and unfolds them with `unnest`, so that the
number of statements does not grow with the number of rows. Building the literals here costs a
small part of what adapting every element through the driver would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from billing_cli.core.model import BucketKey


def plain(values: Iterable[int | Decimal | str]) -> str:
    """Return an array literal of numbers or canonical UUIDs, whose text never needs quotes."""
    return "{" + ",".join(map(str, values)) + "}"


def optional(values: Iterable[str | None]) -> str:
    """Return an array literal of canonical UUIDs, or NULL where there is none."""
    return "{" + ",".join(["NULL" if value is None else value for value in values]) + "}"


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


def bucket_keys(keys: Sequence[BucketKey]) -> dict[str, str]:
    """Return bucket keys as columns, by the parameter names of the statements that take them."""
    return {
        "buckets": moments(key.bucket_start for key in keys),
        "nodes": texts(key.stored_node_id for key in keys),
        "account_uuids": plain(key.account_uuid for key in keys),
        "regions": texts(key.region for key in keys),
        "lines": texts(key.line_code for key in keys),
    }
