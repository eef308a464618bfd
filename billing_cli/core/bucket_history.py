"""What has been charged for a bucket so far: its entries, and what is left of each charge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from billing_cli.core.rating import adjustment_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from billing_cli.core.model import BucketKey


@dataclass(frozen=True, slots=True)
class PriorEntry:
    """A ledger entry as its evidence has it; bytes and amount are signed."""

    ledger_id: str
    adjusts: str | None
    included_bytes: int
    rated_bytes: int
    price_per_byte: Decimal
    multiplier: Decimal
    amount_delta: Decimal
    pricing_rule_version: str


@dataclass(frozen=True, slots=True)
class BucketHistory:
    """What has been charged for a minute: evidence `in_order`, and whether anyone charged it."""

    entries: tuple[PriorEntry, ...] = ()
    is_charged: bool = False


def in_order(key: BucketKey, entries: Sequence[PriorEntry]) -> tuple[PriorEntry, ...]:
    """Return a bucket's entries as they followed each other.

    The ids show that, since an adjustment's is made from the number of entries before it. Their
    stamps may not: a clock can be set back between two runs.
    """
    if len(entries) == 1:
        return tuple(entries)
    places = {adjustment_id(key, ordinal): ordinal for ordinal in range(len(entries))}
    return tuple(sorted(entries, key=lambda entry: places.get(entry.ledger_id, -1)))


def standing_charges(entries: Sequence[PriorEntry]) -> list[PriorEntry]:
    """Fold a bucket's entries, `in_order`, into what is left of each charge.

    That is at the price which now holds for it; `pricing_rule_version` is the one under which
    that price was set.
    """
    standing: dict[str, PriorEntry] = {}
    for entry in entries:
        charge = standing.get(entry.adjusts or entry.ledger_id)
        if charge is None:
            standing[entry.ledger_id] = entry
            continue
        is_repricing = entry.included_bytes == entry.rated_bytes == 0
        standing[charge.ledger_id] = replace(
            charge,
            included_bytes=charge.included_bytes + entry.included_bytes,
            rated_bytes=charge.rated_bytes + entry.rated_bytes,
            price_per_byte=entry.price_per_byte,
            multiplier=entry.multiplier,
            amount_delta=charge.amount_delta + entry.amount_delta,
            pricing_rule_version=(entry if is_repricing else charge).pricing_rule_version,
        )
    return list(standing.values())
