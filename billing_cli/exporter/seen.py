"""Samples that were seen before: recognised by their bytes, and not decoded once more.

Each window begins with the snapshot at the watermark, which the run before has applied already.
Where its samples have the length and the digest that they had then, nothing they could tell is
new. Where they are is only guessed here, from how the contract lays a page out. Whoever decodes
the page proves it, and without a proof decodes all of it.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.model import NodeIdentity, SamplesDigest
from billing_cli.core.times import parse_rfc3339

if TYPE_CHECKING:
    from datetime import datetime

_OPENING = b'"samples":['
_COLLECTED_AT = re.compile(rb'"collected_at":"([\x20-\x7e]{,40}?)"')


class Seen(NamedTuple):
    """What is known of the snapshot at a watermark: when, whose, and how its samples looked."""

    collected_at: datetime
    identity: NodeIdentity
    digest: SamplesDigest


class Span(NamedTuple):
    """A part of a body: from one byte to before another."""

    start: int
    end: int


def seen_span(body: bytes, seen: Seen) -> Span | None:
    """Return where the samples of the body's first snapshot seem to be, if they are those seen.

    The bytes at this place are those that were seen; that they are samples is for the parser to
    say. None costs nothing but time, so the stamp is looked at before all these bytes are.
    """
    start = body.find(_OPENING) + len(_OPENING)
    end = start + seen.digest.size_bytes
    stamp = _COLLECTED_AT.search(body, 0, start)
    if stamp is None or not body.startswith(b"]", end):
        return None
    try:
        collected_at = parse_rfc3339(stamp[1].decode("ascii"))
    except ValueError:
        return None
    span = Span(start, end)
    is_seen = collected_at == seen.collected_at and digest_of(body, span) == seen.digest
    return span if is_seen else None


def last_span(body: bytes) -> Span | None:
    """Return where the samples of the body's last snapshot seem to be."""
    start = body.rfind(_OPENING) + len(_OPENING)
    end = body.find(b"}]", start) + 1
    # An empty list is decoded as quickly as it is recognised.
    return Span(start, end) if end and body.startswith(b"{", start) else None


def digest_of(body: bytes, span: Span) -> SamplesDigest:
    """Return the digest of a part of a body."""
    digest = sha256(memoryview(body)[span.start : span.end]).digest()
    return SamplesDigest(span.end - span.start, digest)
