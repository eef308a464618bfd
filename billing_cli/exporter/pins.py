"""Pinned keys: an exporter is accepted only with a key that was configured for it.

In addition to the verification of chain and name: a certificate that an authority was tricked into
signing does not suffice then. Imported only for sources with a pin, because cryptography is slow to
import.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def key_digest(certificate: bytes) -> str:
    """Return the SHA-256 of a DER certificate's SubjectPublicKeyInfo (RFC 7469), hexadecimal.

    Raises ValueError for what is no certificate.
    """
    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
