"""A customer's monthly statement as a JSON object, and its verification without any other source.

Sealed days are proven: salt and content of the account's leaf lead to the root of the day, and this
to the root of the log, which the checkpoint signs. Everything else is proven by arithmetic, and
protected against accidents by a hash of the whole. `docs/statements.md` shows the object.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import defaultdict
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.merkle import root_by_inclusion
from billing_cli.core.notes import parse_checkpoint
from billing_cli.core.seals import (
    SealedDay,
    account_leaf,
    canonical_json,
    day_leaf,
    money_text,
)
from billing_cli.core.statement_shape import DAY_KEYS, require_shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from billing_cli.core.notes import SignedCheckpoint
    from billing_cli.core.statement_shape import Object


class DayProof(NamedTuple):
    """What proves an account's leaf of a sealed day: its salt, and hashes from leaf to log."""

    day: SealedDay
    salt: bytes
    position: int
    leaf_number: int
    day_proof: Sequence[bytes]
    log_proof: Sequence[bytes]


class StatementCheck(NamedTuple):
    """What a verification found: problems in words, the days proven, those not sealed yet.

    `note` is the signed checkpoint, whose signature is still to be verified; None without one.
    """

    problems: tuple[str, ...]
    sealed_days: tuple[str, ...]
    unsealed_days: tuple[str, ...]
    note: SignedCheckpoint | None


def totals_of(parts: Iterable[Mapping[str, Any]]) -> Object:
    """Return the sums of bytes and money over days, entries or nodes."""
    included = rated = 0
    amount = Decimal(0)
    for part in parts:
        included += part["included_bytes"]
        rated += part["rated_bytes"]
        amount += Decimal(part["amount"])
    return {"included_bytes": included, "rated_bytes": rated, "amount": money_text(amount)}


def nodes_of(days: Iterable[Mapping[str, Any]]) -> list[Object]:
    """Return the sums by node and inbound tag, in their order."""
    by_node: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for day in days:
        for entry in day["entries"]:
            by_node[entry["node_id"], entry["inbound_tag"]].append(entry)
    return [
        {"node_id": node, "inbound_tag": tag, **totals_of(entries)}
        for (node, tag), entries in sorted(by_node.items())
    ]


def is_proven(day: Mapping[str, Any] | None, proof: DayProof) -> bool:
    """Return whether a day of a statement is what its leaf was made of."""
    if day is None:
        return False
    content = {key: value for key, value in day.items() if key != "sealed"}
    leaf = account_leaf(content, proof.salt)
    root = root_by_inclusion(leaf, proof.position, proof.day.accounts, proof.day_proof)
    return root == proof.day.root


def proof_object(note: str | None, proofs: Iterable[DayProof]) -> Object:
    """Return the proofs as JSON: each hash once, in base64, and referred to by its place."""
    places: dict[bytes, int] = {}

    def references(hashes: Sequence[bytes]) -> list[int]:
        return [places.setdefault(digest, len(places)) for digest in hashes]

    days = [
        {
            "day": proof.day.day.isoformat(),
            "salt": proof.salt.hex(),
            "position": proof.position,
            "accounts": proof.day.accounts,
            "salts_sha256": proof.day.salts_sha256.hex(),
            "leaf_number": proof.leaf_number,
            "day_proof": references(proof.day_proof),
            "log_proof": references(proof.log_proof),
        }
        for proof in proofs
    ]
    return {
        "checkpoint": note,
        "hashes": [b64encode(digest).decode() for digest in places],
        "days": days,
    }


def content_sha256(statement: Mapping[str, Any]) -> str:
    """Return the hash of a statement without this hash: of its canonical JSON."""
    proof = {key: value for key, value in statement["proof"].items() if key != "sha256"}
    return sha256(canonical_json({**statement, "proof": proof})).hexdigest()


def check_statement(statement: object) -> StatementCheck:
    """Verify all of a statement but the signature of its checkpoint. Raises nothing."""
    try:
        checked = require_shape(statement)
        problems = [*_arithmetic(checked)]
        if checked["proof"]["sha256"] != content_sha256(checked):
            problems.append("the statement is not the one that its hash was made of")
        note = checked["proof"]["checkpoint"]
        signed = parse_checkpoint(note) if note is not None else None
        problems += _sealed_days(checked, signed)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        return StatementCheck((f"the statement is damaged: {error}",), (), (), None)
    sealed = tuple(day["day"] for day in checked["days"] if day["sealed"])
    unsealed = tuple(day["day"] for day in checked["days"] if not day["sealed"])
    return StatementCheck(tuple(problems), sealed, unsealed, signed)


def _arithmetic(statement: Object) -> list[str]:
    problems = []
    for day in statement["days"]:
        sums = totals_of(day["entries"]) | {"charges": sum(e["charges"] for e in day["entries"])}
        problems += [
            f"day {day['day']}: {key} is not the sum of its entries"
            for key, value in sums.items()
            if day[key] != value
        ]
    for key, value in totals_of(statement["days"]).items():
        if statement[key] != value:
            problems.append(f"{key} is not the sum of the days")
    if statement["nodes"] != nodes_of(statement["days"]):
        problems.append("nodes are not the sums of the days by node and inbound tag")
    others = sum((Decimal(entry["amount"]) for entry in statement["other_entries"]), Decimal(0))
    closing = Decimal(statement["opening_balance"]) + Decimal(statement["amount"]) + others
    if statement["closing_balance"] != money_text(closing):
        problems.append("closing_balance is not opening_balance and all amounts")
    shown = [(day["day"], day["sealed"]) for day in statement["days"]]
    if shown != sorted(set(shown)):
        problems.append("days are not in their order")
    if any(not day["day"].startswith(statement["month"] + "-") for day in statement["days"]):
        problems.append("a day is not of the month")
    if any(day["account_uuid"] != statement["account_uuid"] for day in statement["days"]):
        problems.append("a day is of another account")
    return problems


def _sealed_days(statement: Object, note: SignedCheckpoint | None) -> list[str]:
    """Return the sealed days that the checkpoint does not cover as they are shown."""
    proofs = {proof["day"]: proof for proof in statement["proof"]["days"]}
    contents = {day["day"]: day for day in statement["days"] if day["sealed"]}
    problems = [
        f"day {day}: it is sealed either with a proof, or not at all"
        for day in contents.keys() ^ proofs.keys()
    ]
    if note is None:
        return problems + ["there is no checkpoint for the proofs"] * bool(proofs)
    hashes = [b64decode(text, validate=True) for text in statement["proof"]["hashes"]]
    for day, proof in proofs.items():
        if day in contents:
            content = {key: contents[day][key] for key in DAY_KEYS}
            try:
                root = _root(content, proof, hashes, note.checkpoint.size)
            except (IndexError, ValueError) as error:
                problems.append(f"day {day}: {error}")
                continue
            if root != note.checkpoint.root:
                problems.append(f"day {day}: the log that was signed does not hold it as it is")
    return sorted(problems)


def _root(content: Object, proof: Object, hashes: Sequence[bytes], size: int) -> bytes:
    """Return the root of the log that has such a leaf. Raises IndexError, ValueError."""
    leaf = account_leaf(content, bytes.fromhex(proof["salt"]))
    places = [*proof["day_proof"], *proof["log_proof"]]
    if any(not 0 <= place < len(hashes) for place in places):
        raise IndexError("the proof names a hash that is not there")
    day_proof = [hashes[place] for place in proof["day_proof"]]
    day = SealedDay(
        date.fromisoformat(proof["day"]),
        proof["accounts"],
        bytes.fromhex(proof["salts_sha256"]),
        root_by_inclusion(leaf, proof["position"], proof["accounts"], day_proof),
    )
    log_proof = [hashes[place] for place in proof["log_proof"]]
    return root_by_inclusion(day_leaf(day), proof["leaf_number"], size, log_proof)
