"""Usage whose account is not known yet: kept, merged, and billed when the account appears."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from billing_cli.core.model import UsageRecord


def merge_pending(
    pending: Sequence[UsageRecord], records: Iterable[UsageRecord]
) -> list[UsageRecord]:
    """Append one stream's new records to its pending ones; neighbours without a seam become one.

    Both come in time order. A counter restart or a held delta leaves a seam, so that every
    result is still `end - start` bytes. Each result keeps the `from_at` of its first part.
    """
    merged = list(pending)
    for record in records:
        last = merged[-1] if merged else None
        if last and last.reset_epoch == record.reset_epoch and last.end == record.start:
            merged[-1] = last._replace(to_at=record.to_at, end=record.end)
        else:
            merged.append(record)
    return merged


def bill_pending(pending: Iterable[UsageRecord], minute: datetime) -> list[UsageRecord]:
    """Return a stream's pending usage as records of the minute in which its account appeared."""
    return [record._replace(bucket_start=minute) for record in pending]
