"""The proof of a statement stays small."""

from __future__ import annotations

import json
from datetime import date
from hashlib import sha256

from billing_cli.core.merkle import inclusion_ranges
from billing_cli.core.seals import SealedDay
from billing_cli.core.statements import DayProof, proof_object

ACCOUNTS = 100_000
LEAVES = 10_000_000
LIMIT = 64 * 1024


def _hash(*parts: object) -> bytes:
    return sha256(repr(parts).encode()).digest()


def test_a_month_of_a_hundred_thousand_accounts_has_a_proof_of_less_than_64_kilobytes() -> None:
    """In a log of ten million leaves, with hashes that days share told once."""
    proofs = []
    for number in range(1, 32):
        leaf_number = LEAVES - 1 - (31 - number) * 1500
        day = SealedDay(date(2026, 1, number), ACCOUNTS, _hash("salts", number), b"")
        proofs.append(
            DayProof(
                day,
                _hash("salt", number),
                77_777,
                leaf_number,
                [_hash(number, one) for one in inclusion_ranges(77_777, ACCOUNTS)],
                [_hash(one) for one in inclusion_ranges(leaf_number, LEAVES)],
            )
        )
    made = proof_object("note" * 60, proofs)

    assert len(json.dumps(made)) <= LIMIT
