"""Columns as PostgreSQL array literals.

A statement receives many rows as a few arrays and unfolds them with `unnest`, so that the number of
statements does not grow with the number of rows. A literal is made ten times faster than the driver
adapts a list. A parameter must be cast to the type that is meant: `%(stream_ids)s::bigint[]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.canonical import time_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from billing_cli.core.model import BucketKey


def plain(values: Iterable[int | Decimal | str | None]) -> str:
    """Return an array of numbers or canonical UUIDs, whose text never needs quotes, or NULLs."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def sparse(values: Iterable[int | str | None]) -> str:
    """Return an array that is empty where no row has a value: unfolded with others, all are NULL.

    Most streams have no value in half of their columns; this takes half of the message away.
    """
    listed = list(values)
    return plain(listed) if any(value is not None for value in listed) else "{}"


def moments(values: Iterable[datetime | None]) -> str:
    """Return an array of times, or NULLs."""
    return plain(None if value is None else time_text(value) for value in values)


def texts(values: Iterable[str]) -> str:
    """Return an array of any texts."""
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join([f'"{value}"' for value in quoted]) + "}"


def bucket_keys(keys: Sequence[BucketKey]) -> dict[str, str]:
    """Return bucket keys as columns, by the parameter names of the statements that take them."""
    return {
        "buckets": moments(key.bucket_start for key in keys),
        "nodes": texts(key.stored_node_id for key in keys),
        "account_uuids": plain(key.account_uuid for key in keys),
        "regions": texts(key.region for key in keys),
        "lines": texts(key.line_code for key in keys),
    }
