"""What the leaves of the log hash: seals of transactions, and what each account had in a day.

docs/dev/sealing.md specifies the bytes. They never change.
"""

from __future__ import annotations

import json
import struct
from array import array
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from billing_cli.core.canonical import escaped, time_text, unescaped
from billing_cli.core.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

SALT_BYTES = 32


class Seal(NamedTuple):
    """What one transaction wrote: how many facts, and the SHA-256 of their canonical lines.

    `step` counts the transactions of a run that wrote facts, from 1. All facts are of minutes from
    `first_bucket` to `last_bucket`. The hash of no lines is that of the empty text.
    """

    run_id: str
    step: int
    job: str
    created_at: datetime
    first_bucket: datetime
    last_bucket: datetime
    records: int
    records_sha256: bytes
    charges: int
    charges_sha256: bytes


def is_cut(seal: Seal, prune: Seal) -> bool:
    """Return whether a prune took facts of a seal. Facts before seals are sealed by month."""
    return seal.first_bucket < prune.first_bucket and seal.created_at <= prune.created_at


class SealedDay(NamedTuple):
    """A day of booking: how many accounts had anything booked, and the root of their leaves.

    `salts_sha256` is over a line for each account, in the order of their leaves: see `salt_line`.
    """

    day: date
    accounts: int
    salts_sha256: bytes
    root: bytes


class BookingDays:
    """Checks whether seals are said to be appended on the days that the log shows.

    No leaf covers when it was appended. But the leaf of a day comes after all seals of the day, and
    before those of later days.
    """

    def __init__(self) -> None:
        self._last_ended = self._current = date.min

    def is_right(self, day: date, *, is_end: bool) -> bool:
        """Take the day of the next seal with charges, or of the leaf that ends a day."""
        has_begun = self._current > self._last_ended
        is_right = day == self._current if has_begun else day > self._last_ended
        if is_end:
            self._last_ended = day
        elif not has_begun:
            self._current = day
        return is_right


class LineDigest:
    """The hash of lines that pass through, and a CRC-32 of each.

    The hash is the proof. The checks only show which line was changed; whoever changes one may
    find another with the same check.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sha256 = sha256()
        self._checks = array("I")

    def add(self, line: str) -> str:
        """Add a line with its end; return it."""
        data = line.encode()
        self._sha256.update(data)
        self._checks.append(crc32(data))
        self.count += 1
        return line

    @property
    def sha256(self) -> bytes:
        """The hash of all lines, 32 bytes."""
        return self._sha256.digest()

    @property
    def checks(self) -> bytes:
        """The CRC-32 of each line, 4 bytes each, the most significant one first."""
        return struct.pack(f">{self.count}I", *self._checks)


def seal_leaf(seal: Seal) -> bytes:
    """Return the leaf hash of a seal."""
    fields = (
        "seal",
        seal.run_id,
        str(seal.step),
        escaped(seal.job),
        time_text(seal.created_at),
        time_text(seal.first_bucket),
        time_text(seal.last_bucket),
        str(seal.records),
        seal.records_sha256.hex(),
        str(seal.charges),
        seal.charges_sha256.hex(),
    )
    return leaf_hash(("\t".join(fields) + "\n").encode())


def day_leaf(day: SealedDay) -> bytes:
    """Return the leaf hash of a day of booking."""
    fields = (day.day.isoformat(), str(day.accounts), day.salts_sha256.hex(), day.root.hex())
    return leaf_hash(("\t".join(("day", *fields)) + "\n").encode())


def salt_line(account_uuid: str, salt: bytes) -> bytes:
    """Return the line of an account's salt."""
    return f"{account_uuid}\t{salt.hex()}\n".encode()


def account_leaf(content: Mapping[str, Any], salt: bytes) -> bytes:
    """Return the leaf hash of an account's day: of its salt and its content as canonical JSON."""
    return leaf_hash(salt + canonical_json(content))


def canonical_json(content: object) -> bytes:
    """Return JSON with sorted keys, without white space and escapes of printable text, as UTF-8.

    All numbers in it are integers; money is text.
    """
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


# The fields of an item of `entries` by which charges are summed.
ITEM_FIELDS = (
    "usage_day",
    "node_id",
    "region",
    "inbound_tag",
    "entry_type",
    "price_per_byte",
    "multiplier",
    "reason",
)


@dataclass(slots=True)
class AccountDay:
    """Sums up what an account had booked in a day, charge by charge.

    Charges are added in the order of their seals' leaf numbers and, within a seal, of their keys.
    """

    account_uuid: str
    day: date
    _charges: int = 0
    _sha256: Any = field(default_factory=sha256)
    _first: tuple[tuple[int, int], Decimal] | None = None
    _last: tuple[tuple[int, int], Decimal] | None = None
    _items: dict[tuple[str, ...], tuple[int, int, int, Decimal]] = field(default_factory=dict)

    def add(self, line: bytes, place: tuple[int, int]) -> None:
        """Add a charge by its canonical line.

        `place` orders an account's charges as they were booked: the leaf number of the seal, and
        the charge's ordinal within it.
        """
        fields = line[:-1].decode().split("\t")
        amount, balance_before = Decimal(fields[12]), Decimal(fields[14])
        self._charges += 1
        self._sha256.update(line)
        if self._first is None or place < self._first[0]:
            self._first = place, balance_before
        if self._last is None or place > self._last[0]:
            self._last = place, balance_before + amount
        bucket_start, entry_type, reason = fields[0], fields[3], fields[16]
        key = (bucket_start[:10], *fields[5:8], entry_type, *fields[10:12], reason)
        charges, included, rated, sum_of_amounts = self._items.get(key, (0, 0, 0, Decimal(0)))
        self._items[key] = (
            charges + 1,
            included + int(fields[8]),
            rated + int(fields[9]),
            sum_of_amounts + amount,
        )

    def content(self) -> dict[str, Any]:
        """Return what the leaf hashes, with JSON's types. Raises ValueError where there is nothing.

        `amount` is the sum of the ledger's amounts: below 0 where the account paid.
        """
        if self._first is None or self._last is None:
            raise ValueError("no charge was booked")
        sums = self._items.values()
        items = sorted((tuple(map(unescaped, key)), item) for key, item in self._items.items())
        return {
            "account_uuid": self.account_uuid,
            "day": self.day.isoformat(),
            "charges": self._charges,
            "charges_sha256": self._sha256.hexdigest(),
            "included_bytes": sum(included for _, included, _, _ in sums),
            "rated_bytes": sum(rated for _, _, rated, _ in sums),
            "amount": money_text(sum((amount for *_, amount in sums), Decimal(0))),
            "balance_before": money_text(self._first[1]),
            "balance_after": money_text(self._last[1]),
            "entries": [
                dict(zip(ITEM_FIELDS, key, strict=True))
                | {
                    "charges": count,
                    "included_bytes": included,
                    "rated_bytes": rated,
                    "amount": money_text(amount),
                }
                for key, (count, included, rated, amount) in items
            ],
        }


def money_text(amount: Decimal) -> str:
    """Return money with 9 fractional digits; zero has no sign."""
    return f"{amount:z.9f}"
