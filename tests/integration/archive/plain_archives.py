"""A second verifier of archives, from docs/dev/sealing.md: it imports nothing of the program."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pyarrow import parquet

from tests.unit.core.plain_seals import leaf, line, root, sha

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]
KEYS = {"usage_records": 4, "charges": 3}


def verify(directory: Path) -> str:
    """Return the month of an archive whose content is proven by the checkpoint. Else it raises."""
    manifest = json.loads((directory / "manifest.json").read_text("utf-8"))
    for name, digest in manifest["files"].items():
        assert sha((directory / name).read_bytes()).hex() == digest, name
    seals = {(seal["run_id"], seal["step"]): seal for seal in rows(directory, "seals")}
    for table in KEYS:
        verify_facts(directory, table, seals, manifest["month"])
    leaves = {seal["leaf_number"]: seal_leaf(seal) for seal in seals.values()}
    leaves |= day_leaves(directory)
    _origin, size, signed = (directory / "checkpoint").read_text("utf-8").splitlines()[:3]
    assert log_root(directory, leaves, int(size)) == b64decode(signed)
    month: str = manifest["month"]
    return month


def rows(directory: Path, name: str) -> list[Row]:
    """The rows of a file, in their order."""
    found: list[Row] = parquet.read_table(directory / f"{name}.parquet").to_pylist()
    return found


def text(value: Any) -> str | None:
    """A value as the field of a line."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, bytes):
        return value.hex()
    if value is None:
        return None
    return f"{value:.9f}" if isinstance(value, Decimal) else str(value)


def verify_facts(
    directory: Path, table: str, seals: dict[tuple[str, int], Row], month: str
) -> None:
    """Compare the facts of all files with the seals that cover them."""
    own, others = rows(directory, table), rows(directory, f"other_{table}")
    assert {f"{fact['bucket_start']:%Y-%m}" for fact in own} <= {month}
    assert month not in {f"{fact['bucket_start']:%Y-%m}" for fact in others}
    covering = {key: covers(seals, key) for key in seals}
    lines: dict[tuple[str, int], list[bytes]] = {key: [] for key in covering.values()}
    for fact in sorted(own + others, key=lambda fact: list(fact.values())[2 : 2 + KEYS[table]]):
        key = fact["run_id"], fact["step"]
        if not fact["step"]:
            key = "00000000-0000-0000-0000-000000000000", int(f"{fact['bucket_start']:%Y%m}")
        lines[covering[key]].append(line([text(value) for value in list(fact.values())[2:]]))
    name = {"usage_records": "records", "charges": "charges"}[table]
    for key, found in lines.items():
        assert seals[key][name] == len(found), (table, key)
        assert seals[key][f"{name}_sha256"] == sha(b"".join(found)), (table, key)


def covers(seals: dict[tuple[str, int], Row], key: tuple[str, int]) -> tuple[str, int]:
    """The seal that covers the facts of a seal: itself, or the prune that cut it."""
    for prune_key, prune in seals.items():
        seal, start = seals[key], prune["first_bucket"]
        is_earlier = seal["created_at"] <= prune["created_at"]
        is_cut = prune["job"] == "prune" != seal["job"] and seal["first_bucket"] < start
        if is_cut and is_earlier and seal["last_bucket"] >= start:
            return prune_key
    return key


def seal_leaf(seal: Row) -> bytes:
    """The leaf of a seal."""
    return leaf(line(["seal", *(text(value) for value in list(seal.values())[:-1])]))


def day_leaves(directory: Path) -> dict[int, bytes]:
    """The leaves of sealed days by number, whose accounts lead to the roots."""
    days: dict[str, list[Row]] = {}
    for row in rows(directory, "days"):
        days.setdefault(row["day"], []).append(row)
    leaves = {}
    for day, accounts in days.items():
        first = accounts[0]
        assert [row["position"] for row in accounts] == list(range(first["accounts"]))
        assert root([row["leaf"] for row in accounts]) == first["root"]
        salts = [line([row["account_uuid"], row["salt"].hex()]) for row in accounts]
        assert sha(b"".join(salts)) == first["salts_sha256"]
        fields = [str(first["accounts"]), first["salts_sha256"].hex(), first["root"].hex()]
        leaves[first["leaf_number"]] = leaf(line(["day", day, *fields]))
    return leaves


def log_root(directory: Path, leaves: dict[int, bytes], size: int) -> bytes:
    """The root of the log from leaves and what is between them."""
    between = {(row["start"], row["end"]): row["root"] for row in rows(directory, "between")}
    assert not [number for number in leaves for start, end in between if start <= number < end]

    def part(start: int, end: int) -> bytes:
        if (start, end) in between:
            known: bytes = between[start, end]
            return known
        if end - start == 1:
            return leaves[start]
        k = 1
        while 2 * k < end - start:
            k *= 2
        return sha(b"\x01" + part(start, start + k) + part(start + k, end))

    return part(0, size)
