"""What counts as a uuid on the wire: the 8-4-4-4-12 form, in lower case once it is ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

# Maps lower-case hex digits to "h", leaves "-" and the newline that joins, and spoils the rest.
_HEX_SHAPE = bytes(
    ord("h") if chr(code) in "0123456789abcdef" else code if chr(code) in "-\n" else 0
    for code in range(256)
)
_BATCH = 100
_UUID_SHAPE = b"hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh"


def all_canonical(uuids: Sequence[Any]) -> bool:
    """Tell whether every value is a canonical uuid, in a few passes over one long string."""
    if not set(map(type, uuids)) <= {str}:
        return False
    joined = "\n".join(uuids)
    if not joined.isascii():
        return False
    # A uuid with a newline in it adds one to those that join, so the shapes cannot be equal.
    return joined.encode().translate(_HEX_SHAPE) == b"\n".join([_UUID_SHAPE] * len(uuids))


def canonical_uuids(values: Sequence[Any]) -> list[str | None]:
    """Return the lower-case 8-4-4-4-12 form of each value, or None where it is no UUID."""
    found: list[str | None] = []
    for start in range(0, len(values), _BATCH):
        batch = values[start : start + _BATCH]
        # Few are not canonical as a rule, and only those beside them are looked at one by one.
        found += batch if all_canonical(batch) else map(_canonical_uuid, batch)
    return found


def _canonical_uuid(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    lowered = value.lower()
    return lowered if _CANONICAL_UUID.fullmatch(lowered) else None
