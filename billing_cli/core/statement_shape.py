"""The keys and types of a statement's JSON object, which a verification requires first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from billing_cli.core.seals import ITEM_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = 1

KEYS = (
    "format",
    "account_uuid",
    "month",
    "currency",
    "opening_balance",
    "closing_balance",
    "included_bytes",
    "rated_bytes",
    "amount",
    "quota",
    "other_entries",
    "days",
    "nodes",
    "proof",
)
DAY_KEYS = (
    "account_uuid",
    "day",
    "charges",
    "charges_sha256",
    "included_bytes",
    "rated_bytes",
    "amount",
    "balance_before",
    "balance_after",
    "entries",
)
SUMS = ("included_bytes", "rated_bytes")
ENTRY_KEYS = (*ITEM_FIELDS, "charges", *SUMS, "amount")
OTHER_KEYS = ("at", "kind", "amount", "reason")
NODE_KEYS = ("node_id", "inbound_tag", *SUMS, "amount")
QUOTA_KEYS = ("remaining_before", "remaining_after")
PROOF_KEYS = ("checkpoint", "hashes", "days", "sha256")
DAY_PROOF_KEYS = (
    "day",
    "salt",
    "position",
    "accounts",
    "salts_sha256",
    "leaf_number",
    "day_proof",
    "log_proof",
)

MONEY = re.compile(r"(?!-0\.0+$)-?(0|[1-9][0-9]*)\.[0-9]{9}")

Object = dict[str, Any]


def require_shape(value: object) -> Object:
    """Return a statement whose parts have their keys and types. Raises ValueError."""
    statement = _object(value, KEYS, "the statement")
    if statement["format"] != FORMAT:
        raise ValueError(f"format {statement['format']} is not known")
    _types(statement, ("included_bytes", "rated_bytes"), int)
    _types(statement, ("account_uuid", "month", "currency"), str)
    _money(statement, "opening_balance", "closing_balance", "amount")
    for key in ("other_entries", "days", "nodes"):
        _types(statement, (key,), list)
    quota = _object(statement["quota"], QUOTA_KEYS, "quota")
    for key in QUOTA_KEYS:
        if quota[key] is not None:
            _types(quota, (key,), int)
    for day in statement["days"]:
        _object(day, (*DAY_KEYS, "sealed"), "a day")
        _types(day, ("account_uuid", "day", "charges_sha256"), str)
        _types(day, ("charges", *SUMS), int)
        _types(day, ("sealed",), bool)
        _money(day, "amount", "balance_before", "balance_after")
        for entry in day["entries"]:
            _object(entry, ENTRY_KEYS, "an entry")
            _types(entry, ITEM_FIELDS, str)
            _types(entry, ("charges", *SUMS), int)
            _money(entry, "amount")
    for node in statement["nodes"]:
        _object(node, NODE_KEYS, "a node")
        _types(node, SUMS, int)
        _money(node, "amount")
    for other in statement["other_entries"]:
        _object(other, OTHER_KEYS, "an entry of others")
        _types(other, ("at", "kind", "reason"), str)
        _money(other, "amount")
    _require_proof(statement["proof"])
    return statement


def _require_proof(value: object) -> None:
    proof = _object(value, PROOF_KEYS, "the proof")
    if proof["checkpoint"] is not None:
        _types(proof, ("checkpoint",), str)
    for day in proof["days"]:
        _object(day, DAY_PROOF_KEYS, "the proof of a day")
        _types(day, ("position", "accounts", "leaf_number"), int)


def _object(value: object, keys: Sequence[str], name: str) -> Object:
    if not isinstance(value, dict) or value.keys() != set(keys):
        raise ValueError(f"{name} has not the keys that it should have")
    return value


def _types(value: Object, keys: Sequence[str], kind: type) -> None:
    for key in keys:
        if type(value[key]) is not kind:
            raise ValueError(f"{key} is not of its type")


def _money(value: Object, *keys: str) -> None:
    """Require money as it is written: with 9 digits, zero without a sign."""
    for key in keys:
        if not isinstance(value[key], str) or not MONEY.fullmatch(value[key]):
            raise ValueError(f"{key} is no amount of money")
