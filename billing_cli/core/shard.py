"""Shards: how several hosts split one configuration's sources without a word to each other."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_SHARD = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of all sources, by its number from 1 to `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, source_id: str) -> bool:
        """Return whether a source is in this part: every source is in exactly one.

        The source's id alone decides, on every host and with every version of Python: the first
        eight bytes of its SHA-256, as a number, modulo `count`.
        """
        digest = hashlib.sha256(source_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """Return the shard of a text such as `2/8`. Raises ValueError with what is wrong with it."""
    match = _SHARD.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a number of how many, such as 2/8")
    number, count = map(int, match.groups())
    if number > count:
        raise ValueError(f"there is no shard {number} of {count}")
    return Shard(number, count)
