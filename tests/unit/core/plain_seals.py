"""A second implementation of docs/dev/sealing.md: plain Python that imports nothing of ours."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def sha(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def text(value: str) -> str:
    """A text as a field."""
    for plain, escape in zip("\\\b\f\n\r\t\v", "\\bfnrtv", strict=True):
        value = value.replace(plain, "\\" + escape)
    return value


def line(values: list[str | None]) -> bytes:
    """A line of fields."""
    return ("\t".join(r"\N" if value is None else text(value) for value in values) + "\n").encode()


def leaf(data: bytes) -> bytes:
    """The hash of a leaf."""
    return sha(b"\x00" + data)


def root(leaves: list[bytes]) -> bytes:
    """The root hash."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return sha(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def inclusion(index: int, leaves: list[bytes]) -> list[bytes]:
    """The inclusion proof of a leaf."""
    if len(leaves) < 2:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if index < k:
        return [*inclusion(index, leaves[:k]), root(leaves[k:])]
    return [*inclusion(index - k, leaves[k:]), root(leaves[:k])]


def account_leaf(salt: bytes, content: dict[str, Any]) -> bytes:
    """The leaf of an account's day."""
    form = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return leaf(salt + form.encode())
