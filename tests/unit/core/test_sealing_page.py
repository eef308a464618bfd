"""The specification of seals: its test vectors, by this program and by a second implementation."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from billing_cli.core.canonical import StoredUsage, charge_line, usage_line
from billing_cli.core.merkle import (
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    levels_of,
    proof_of,
    tree_root,
)
from billing_cli.core.model import BucketKey, Charge, StreamName, Totals, UsageRecord
from billing_cli.core.notes import (
    Checkpoint,
    checkpoint_text,
    format_verifier_key,
    parse_checkpoint,
    parse_signer_key,
    parse_verifier_key,
)
from billing_cli.core.seals import (
    SALT_BYTES,
    AccountDay,
    LineDigest,
    Seal,
    SealedDay,
    account_leaf,
    canonical_json,
    day_leaf,
    salt_line,
    seal_leaf,
)
from billing_cli.signatures import sign_checkpoint, signature_problem
from tests.unit.core import plain_seals

PAGE = Path(__file__).parents[3] / "docs" / "dev" / "sealing.md"
NOON = datetime(2026, 4, 8, 12, 0, tzinfo=UTC)
DAY = NOON.date()
ACCOUNT = "11111111-1111-1111-1111-111111111111"
RUN_ID = "33333333-3333-3333-3333-333333333333"
RECORD = UsageRecord(
    StreamName("xhttp", ACCOUNT),
    NOON,
    3,
    NOON - timedelta(seconds=30),
    NOON + timedelta(microseconds=1),
    Totals(1, 2),
    Totals(10, 9_223_372_036_854_775_807),
)
CHARGE = Charge(
    ledger_id="22222222-2222-2222-2222-222222222222",
    key=BucketKey(NOON, "prod:jp-1", ACCOUNT, "", "tab\there \\ \x0b"),
    included_bytes=0,
    rated_bytes=4,
    price_per_byte=Decimal("3E-9"),
    multiplier=Decimal("1.50"),
    amount_delta=Decimal("-0.000000018"),
    quota_before=-5,
    balance_before=Decimal(1),
    balance_after=Decimal("0.999999982"),
    reason="two\nlines é",
)
LINE = charge_line(CHARGE, "v1")


@pytest.fixture(name="vectors", scope="module")
def load_vectors() -> dict[str, Any]:
    """Return the vectors of the page."""
    block = PAGE.read_text("utf-8").split("```json\n")[1].split("```")[0]
    vectors: dict[str, Any] = json.loads(block)
    return vectors


def test_a_second_implementation_reproduces_the_vectors(vectors: dict[str, Any]) -> None:
    """Nothing that it needs is missing from the specification."""
    plain = plain_seals
    tree = vectors["tree"]
    leaves = [plain.leaf(bytes.fromhex(data)) for data in tree["leaf_data"]]
    assert plain.sha(plain.line(vectors["record"]["fields"])).hex() == vectors["record"]["sha256"]
    assert plain.line(vectors["charge"]["fields"]).decode() == vectors["charge"]["line"]
    for name in ("seal", "day"):
        assert plain.leaf(plain.line(vectors[name]["fields"])).hex() == vectors[name]["leaf"]
    account_day = vectors["account_day"]
    salt = bytes.fromhex(account_day["salt"])
    assert plain.account_leaf(salt, account_day["content"]).hex() == account_day["leaf"]
    salts = plain.sha(plain.line([account_day["content"]["account_uuid"], account_day["salt"]]))
    assert salts.hex() == vectors["day"]["fields"][3]
    assert plain.root(leaves).hex() == tree["root"]
    assert [node.hex() for node in plain.inclusion(4, leaves)] == tree["inclusion_of_4"]


def test_lines_and_seals_are_as_specified(vectors: dict[str, Any]) -> None:
    """A fact, its digest, and the leaf of its seal."""
    records, charges = LineDigest(), LineDigest()
    record = records.add(usage_line(StoredUsage(RECORD, 7, ACCOUNT, "correction", 2)))
    assert record == "\t".join(vectors["record"]["fields"]) + "\n"
    assert charges.add(LINE) == vectors["charge"]["line"]
    assert records.sha256.hex() == vectors["record"]["sha256"]
    assert charges.sha256.hex() == vectors["charge"]["sha256"]
    created_at = NOON + timedelta(seconds=90)
    counts = (1, records.sha256, 1, charges.sha256)
    seal = Seal(RUN_ID, 1, "collect", created_at, NOON, NOON, *counts)
    assert seal_leaf(seal).hex() == vectors["seal"]["leaf"]


def test_an_accounts_day_is_as_specified(vectors: dict[str, Any]) -> None:
    """Its content, its leaf, and the leaf of the day."""
    day = AccountDay(ACCOUNT, DAY)
    day.add(LINE.encode(), (0, 1))
    wanted = vectors["account_day"]
    assert canonical_json(day.content()) == canonical_json(wanted["content"])
    salt = bytes.fromhex(wanted["salt"])
    assert len(salt) == SALT_BYTES
    leaf = account_leaf(day.content(), salt)
    assert leaf.hex() == wanted["leaf"]
    salts = sha256(salt_line(ACCOUNT, salt)).digest()
    sealed = SealedDay(date(2026, 4, 8), 1, salts, tree_root([leaf]))
    assert day_leaf(sealed).hex() == vectors["day"]["leaf"]


def test_trees_and_proofs_are_as_specified(vectors: dict[str, Any]) -> None:
    """Those of RFC 6962."""
    tree = vectors["tree"]
    leaves = [leaf_hash(bytes.fromhex(data)) for data in tree["leaf_data"]]
    nodes = dict(levels_of(leaves))
    assert tree_root(leaves).hex() == tree["root"]
    inclusion = proof_of(inclusion_ranges(4, len(leaves)), nodes)
    assert [node.hex() for node in inclusion] == tree["inclusion_of_4"]
    consistency = proof_of(consistency_ranges(3, len(leaves)), nodes)
    assert [node.hex() for node in consistency] == tree["consistency_of_3"]


def test_checkpoints_are_as_specified(vectors: dict[str, Any]) -> None:
    """Ed25519 is deterministic, so the note is the same to the byte."""
    wanted = vectors["checkpoint"]
    signer = parse_signer_key(wanted["private_key"])
    verifier = parse_verifier_key(wanted["public_key"])
    leaves = [bytes.fromhex(vectors[name]["leaf"]) for name in ("seal", "day")]
    checkpoint = Checkpoint("example.com/billing", 2, tree_root(leaves))
    assert sign_checkpoint(checkpoint, signer) == wanted["note"]
    note = parse_checkpoint(wanted["note"])
    assert (note.checkpoint, note.text) == (checkpoint, checkpoint_text(checkpoint))
    assert signature_problem(note, [verifier]) is None
    assert format_verifier_key(verifier) == wanted["public_key"]
