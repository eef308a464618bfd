"""When certificates expire. Imported only by `check`, because cryptography is slow to import."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from datetime import datetime


def not_after(certificate: bytes) -> datetime:
    """Return the moment after which a DER certificate is no longer valid; raises ValueError."""
    try:
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc
    except (ValueError, x509.InvalidVersion):
        raise ValueError("not a certificate") from None


def expiries_in(path: str) -> tuple[datetime, ...]:
    """Return when the certificates of a PEM file expire, in their order there.

    Raises ValueError or OSError where the file cannot be read as such.
    """
    try:
        certificates = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except x509.InvalidVersion:
        raise ValueError("not a certificate") from None
    return tuple(certificate.not_valid_after_utc for certificate in certificates)
