"""When a certificate expires: a moment, or a ValueError."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from billing_cli.exporter.expiry import expiries_in, not_after

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.authority import Authority

# RFC 5280: two digits for the year until 2049, four from then on.
LAST_SHORT = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
CA = trustme.CA()
GOOD = ssl.PEM_cert_to_DER_cert(CA.cert_pem.bytes().decode())
# The version stands in the thirteenth byte.
OTHER_VERSION = GOOD[:12] + b"\x01" + GOOD[13:]


@pytest.mark.parametrize(
    "moment",
    [datetime(1999, 1, 2, 3, 4, 5, tzinfo=UTC), LAST_SHORT, LAST_SHORT + timedelta(seconds=1)],
)
def test_a_date_is_read_in_either_form(authority: Authority, moment: datetime) -> None:
    """Whatever the century."""
    leaf = authority.ca.issue_cert(
        "jp-1.example", not_before=datetime(1998, 1, 1, tzinfo=UTC), not_after=moment
    )
    pem = leaf.cert_chain_pems[0].bytes().decode()
    assert not_after(ssl.PEM_cert_to_DER_cert(pem)) == moment


def test_the_certificates_of_a_file_are_read_in_order(authority: Authority, tmp_path: Path) -> None:
    """A chain begins with our own; what stands between the certificates is no matter."""
    moments = [datetime(2031, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)]
    leaves = [authority.ca.issue_cert("a.example", not_after=moment) for moment in moments]
    blocks = [leaf.cert_chain_pems[0].bytes() for leaf in leaves]
    path = tmp_path / "chain.pem"
    path.write_bytes(b"Bag Attributes: \xff\n".join([b"", *blocks]))
    assert expiries_in(str(path)) == tuple(moments)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"0", b"\x30\x80", GOOD[:-1], GOOD[4:], b"\x30\x00", GOOD + GOOD, OTHER_VERSION],
)
def test_what_is_no_certificate_is_an_error(damaged: bytes) -> None:
    """Of the one kind that callers expect."""
    with pytest.raises(ValueError, match=r"^not a certificate$"):
        not_after(damaged)
