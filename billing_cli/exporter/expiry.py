"""When certificates expire, without a library for certificates.

The standard library tells it of a verified peer only as text, and of our own files not at all;
but the date stands at a fixed place in every certificate (RFC 5280, section 4.1).
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_END = "-----END CERTIFICATE-----"
_BEGIN = "-----BEGIN CERTIFICATE-----"

_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_EXPLICIT_VERSION = 0xA0
_LONG_LENGTH = 0x80

# RFC 5280: years of two digits from 50 on are of the last century.
_CENTURY_TURN = 50


def not_after(certificate: bytes) -> datetime:
    """Return the moment after which a DER certificate is no longer valid.

    Raises ValueError where the bytes are no certificate.
    """
    try:
        (whole,) = _elements(certificate)
        fields = _elements(next(_elements(whole.content)).content)
        first = next(fields)
        if first.tag == _EXPLICIT_VERSION:
            next(fields)  # the serial number
        for _ in ("signature", "issuer"):
            next(fields)
        _, end = _elements(next(fields).content)
        return _moment(end)
    except (IndexError, StopIteration, ValueError):
        raise ValueError("not a certificate") from None


def expiries_in(path: str) -> tuple[datetime, ...]:
    """Return when the certificates of a PEM file expire, in their order there.

    Raises ValueError or OSError where the file can't be read as such.
    """
    text = Path(path).read_text(encoding="latin-1")
    blocks = [block.partition(_END)[0] for block in text.split(_BEGIN)[1:]]
    return tuple(not_after(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{one}{_END}")) for one in blocks)


class _Element(NamedTuple):
    tag: int
    content: bytes


def _elements(data: bytes) -> Iterator[_Element]:
    """Yield the DER elements that the bytes are made of; raises ValueError or IndexError."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & _LONG_LENGTH:
            size = length & ~_LONG_LENGTH
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        content = data[position : position + length]
        if len(content) != length:
            raise ValueError("cut short")
        yield _Element(tag, content)
        position += length


def _moment(element: _Element) -> datetime:
    text = element.content.decode("ascii")
    if element.tag == _UTC_TIME:
        century = "19" if int(text[:2]) >= _CENTURY_TURN else "20"
        text = century + text
    elif element.tag != _GENERALIZED_TIME:
        raise ValueError("no time where one belongs")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
