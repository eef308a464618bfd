"""What `prune` does: which months of evidence go, and what is said of it, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing_cli.core.result import RunResult
from billing_cli.core.times import format_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

KEEP = re.compile(r"([1-9]\d{0,2})mo")


@dataclass(frozen=True, slots=True)
class PrunedMonth:
    """A month whose evidence goes: how many rows, and bytes on disk with their indexes.

    `tables` are its partitions, which stay as tables of their own unless `is_dropped`.
    """

    month: datetime
    records: int
    charges: int
    disk_bytes: int
    tables: tuple[str, ...]
    is_dropped: bool = False


@dataclass(frozen=True, slots=True)
class PruneResult(RunResult):
    """A run of `prune`. Evidence of minutes before `kept_since` is gone, or would be.

    `moved_rows` had come in without a partition of their month, and got one. `dropped_tables` had
    been detached by an earlier run. `is_archive_waived` where months could go without an archive.
    """

    kept_since: datetime | None = None
    months: tuple[PrunedMonth, ...] = ()
    dropped_tables: tuple[str, ...] = ()
    moved_rows: int = 0
    deleted_runs: int = 0
    deleted_gaps: int = 0
    is_archive_waived: bool = False

    @property
    def details(self) -> Mapping[str, Any]:
        """The months, and what else is gone."""
        return {
            "kept_since": None if self.kept_since is None else format_rfc3339(self.kept_since),
            "months": [
                {
                    "month": f"{month.month:%Y-%m}",
                    "records": month.records,
                    "charges": month.charges,
                    "disk_bytes": month.disk_bytes,
                    "tables": list(month.tables),
                    "dropped": month.is_dropped,
                }
                for month in self.months
            ],
            "dropped_tables": list(self.dropped_tables),
            "moved_rows": self.moved_rows,
            "deleted_runs": self.deleted_runs,
            "deleted_gaps": self.deleted_gaps,
            "without_archive": self.is_archive_waived,
        }


def months_of(keep: str) -> int:
    """Return the number of months that a text such as `18mo` names. Raises ValueError."""
    found = KEEP.fullmatch(keep)
    if found is None:
        raise ValueError(f"{keep!r} is no number of months such as 18mo")
    return int(found[1])


def kept_since(now: datetime, keep_months: int) -> datetime:
    """Return where what is kept begins: so many whole months before that of `now`, in UTC."""
    months = now.year * 12 + now.month - 1 - keep_months
    midnight = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return midnight.replace(year=months // 12, month=months % 12 + 1)
