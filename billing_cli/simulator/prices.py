"""Checks of the prices: whatever was corrected, each charge costs its bytes at one price."""

from __future__ import annotations

import uuid
from collections import defaultdict
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.times import format_rfc3339
from billing_cli.simulator.books import NANO, Bucket, money, rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import Connection

READ_PRICED_ENTRIES = """
SELECT bucket_start, stored_node_id, account_uuid::text, region, line_code,
       ledger_id::text, adjusts::text, entry_type, included_bytes, rated_bytes,
       price_per_byte, multiplier, amount_delta
  FROM billing.charges
  JOIN public.users ON users.uuid = charges.account_uuid
"""

# Wide enough for bytes times a price times multipliers without any rounding on the way.
EXACT = Context(prec=150, rounding=ROUND_HALF_EVEN)


class PricedEntry(NamedTuple):
    """The evidence of a ledger row, with its price."""

    ledger_id: str
    adjusts: str | None
    entry_type: str
    included_bytes: int
    rated_bytes: int
    price_per_byte: Decimal
    multiplier: Decimal
    amount_delta: Decimal


def ledger_id_of(bucket: Bucket) -> str:
    """Return the id that every writer gives to the charge of this minute."""
    minute = format_rfc3339(bucket.bucket_start)
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "|".join((minute, *bucket[1:]))))


def price_violations(connection: Connection[Any]) -> list[str]:
    """Return which charges do not cost what their bytes and their price make."""
    by_bucket: dict[Bucket, list[PricedEntry]] = defaultdict(list)
    for row in rows(connection, READ_PRICED_ENTRIES):
        by_bucket[Bucket(*row[:5])].append(PricedEntry(*row[5:]))
    return [
        f"bucket {format_rfc3339(bucket.bucket_start)} {' '.join(bucket[1:])}: {problem}"
        for bucket, entries in by_bucket.items()
        for problem in _problems(bucket, entries)
    ]


def _problems(bucket: Bucket, entries: Sequence[PricedEntry]) -> Iterator[str]:
    """Put the entries into the order of their ids, and follow each charge through it."""
    charge_id = ledger_id_of(bucket)
    places = {charge_id: -1} | {
        str(uuid.uuid5(uuid.UUID(charge_id), f"adjustment|{place}")): place
        for place in range(len(entries))
    }
    groups: dict[str, list[PricedEntry]] = {}
    unknown = [entry for entry in entries if entry.ledger_id not in places]
    for entry in unknown:
        yield f"{entry.entry_type} {entry.ledger_id} has an id that does not count its entries"
    known = [entry for entry in entries if entry.ledger_id in places]
    for entry in sorted(known, key=lambda entry: places[entry.ledger_id]):
        if entry.adjusts is None:
            groups[entry.ledger_id] = [entry]
        elif entry.adjusts in groups:
            groups[entry.adjusts].append(entry)
        else:
            yield f"{entry.ledger_id} adjusts {entry.adjusts}, which is no charge before it"
    for ledger_id, group in groups.items():
        included = sum(entry.included_bytes for entry in group)
        rated = sum(entry.rated_bytes for entry in group)
        amount = money(sum((entry.amount_delta for entry in group), Decimal(0)))
        price = EXACT.multiply(group[-1].price_per_byte, group[-1].multiplier)
        right = -EXACT.multiply(price, Decimal(rated)).quantize(NANO, context=EXACT)
        if included < 0 or rated < 0:
            yield f"{ledger_id} gave back more than it charged: {included} and {rated} bytes left"
        if amount != right:
            yield f"{ledger_id} costs {amount}, {rated} bytes at its price make {right}"
