r"""The canonical text of a fact: one line for each usage record and each charge.

The same lines are sent to the database by COPY and hashed for seals, so their format never changes:
fields in the order given here, separated by tabs, ended by a line feed; integers in decimal, money
with 9 fractional digits, prices and multipliers as they are, without exponent, times in RFC 3339
with 6 fractional digits and `Z`, UUIDs in lower case, `\N` for no value; a backslash or control
character in a text is escaped as COPY's text format does it. docs/dev/sealing.md specifies it.
"""

from __future__ import annotations

import re
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.core.model import Charge, UsageRecord

NO_VALUE = r"\N"

_ESCAPES = str.maketrans(
    {
        "\\": r"\\",
        "\b": r"\b",
        "\f": r"\f",
        "\n": r"\n",
        "\r": r"\r",
        "\t": r"\t",
        "\v": r"\v",
    }
)
_PLAIN = {escape: chr(code) for code, escape in _ESCAPES.items()}
_ESCAPED = re.compile(r"\\.")


class StoredUsage(NamedTuple):
    """A usage record with what the database adds: its stream, its account, and how it came about.

    `kind` is `delta`, `pending`, `released` or `correction`; `revision` is above 0 for corrections.
    """

    record: UsageRecord
    stream_id: int
    account_uuid: str
    kind: str = "delta"
    revision: int = 0


def usage_line(usage: StoredUsage) -> str:
    """Return the line of a usage record.

    Fields: bucket_start, stream_id, from_at, revision, to_at, reset_epoch, uplink_start,
    uplink_end, downlink_start, downlink_end, account_uuid, kind.
    """
    record, stream_id, account_uuid, kind, revision = usage
    _, bucket_start, epoch, from_at, to_at, start, end = record
    return (
        f"{time_text(bucket_start)}\t{stream_id}\t{time_text(from_at)}\t{revision}\t"
        f"{time_text(to_at)}\t{epoch}\t{start[0]}\t{end[0]}\t{start[1]}\t{end[1]}\t"
        f"{account_uuid}\t{kind}\n"
    )


def charge_line(charge: Charge, pricing_rule_version: str) -> str:
    """Return the line of a charge.

    Fields: bucket_start, account_uuid, ledger_id, entry_type, adjusts, stored_node_id, region,
    line_code, included_bytes, rated_bytes, price_per_byte, multiplier, amount_delta, quota_before,
    balance_before, pricing_rule_version, reason.
    """
    bucket_start, stored_node_id, account_uuid, region, line_code = charge.key
    return (
        f"{time_text(bucket_start)}\t{account_uuid}\t{charge.ledger_id}\t{charge.entry_type}\t"
        f"{charge.adjusts or NO_VALUE}\t{escaped(stored_node_id)}\t{escaped(region)}\t"
        f"{escaped(line_code)}\t{charge.included_bytes}\t{charge.rated_bytes}\t"
        f"{charge.price_per_byte:f}\t{charge.multiplier:f}\t{charge.amount_delta:z.9f}\t"
        f"{charge.quota_before}\t{charge.balance_before:z.9f}\t{escaped(pricing_rule_version)}\t"
        f"{escaped(charge.reason)}\n"
    )


@lru_cache(maxsize=4096)
def time_text(at: datetime) -> str:
    """Return a UTC time in RFC 3339 with 6 fractional digits."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)


@lru_cache(maxsize=4096)
def escaped(text: str) -> str:
    """Return a text as a field of a line."""
    return text.translate(_ESCAPES)


@lru_cache(maxsize=4096)
def unescaped(field: str) -> str:
    """Return the text that a field of a line holds."""
    return _ESCAPED.sub(lambda found: _PLAIN[found[0]], field)
