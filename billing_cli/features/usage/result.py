"""Usage by group: the values, and their JSON object."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from billing_cli.core.objects import attributes, plain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

By = Literal["day", "hour", "node", "inbound-tag", "account"]
GROUPS: tuple[By, ...] = ("day", "hour", "node", "inbound-tag", "account")
TIMES = frozenset({"day", "hour"})


class Usage(NamedTuple):
    """Bytes of minute buckets, and what was charged for them: positive amounts are paid.

    `key` is a UTC day such as `2026-04-08`, an hour such as `2026-04-08T12:00:00Z`, the stored
    id of a node, an inbound tag, or the uuid of an account.
    """

    key: str
    uplink_bytes: int = 0
    downlink_bytes: int = 0
    included_bytes: int = 0
    rated_bytes: int = 0
    amount: Decimal = Decimal(0)

    @property
    def total_bytes(self) -> int:
        """Both directions together."""
        return self.uplink_bytes + self.downlink_bytes


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The groups in the order to be shown; `others` is the sum of those that --top left out.

    `evidence_since` is where the charges that were kept begin, if that is within the range.
    `deleted_amount` is the part of the amounts that deleted accounts were charged.
    """

    by: By
    since: datetime
    until: datetime
    account_uuid: str | None
    rows: tuple[Usage, ...]
    others: Usage | None
    total: Usage
    currency: str = ""
    evidence_since: datetime | None = None
    deleted_amount: Decimal = Decimal(0)


def sum_of(key: str, rows: Iterable[Usage]) -> Usage:
    """Return the sum of groups under another key."""
    found = list(rows)
    return Usage(
        key,
        sum(row.uplink_bytes for row in found),
        sum(row.downlink_bytes for row in found),
        sum(row.included_bytes for row in found),
        sum(row.rated_bytes for row in found),
        sum((row.amount for row in found), Decimal(0)),
    )


def usage_object(report: UsageReport) -> dict[str, Any]:
    """Return the report as a JSON object."""
    return {
        "job": "usage",
        "status": "ok",
        "error": None,
        **attributes(report, "by since until account_uuid evidence_since deleted_amount"),
        "currency": report.currency or None,
        "rows": [row_object(row) for row in report.rows],
        "others": row_object(report.others) if report.others else None,
        "total": row_object(report.total),
    }


def row_object(row: Usage) -> dict[str, Any]:
    """Return a group with plain values; the amount is a decimal as text."""
    return {**plain(row), "total_bytes": row.total_bytes}
