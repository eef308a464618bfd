"""Signed notes and checkpoints of a log, as text: C2SP `signed-note` and `tlog-checkpoint`.

A note is a text, an empty line, and signature lines. A checkpoint is a note whose text has the
log's origin, the size of its tree and the base64 root hash in a line each. Keys are text too:
`NAME+ID+BASE64` verifies, `PRIVATE+KEY+NAME+ID+BASE64` signs; the only algorithm is Ed25519.
https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import NamedTuple

ED25519 = b"\x01"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
ROOT_BYTES = 32
ID_BYTES = 4

_NAME = re.compile(r"[^\s+]+")
_SIGNATURE = re.compile(r"\u2014 (?P<name>[^\s+]+) (?P<data>[A-Za-z0-9+/]+={0,2})")
_VERIFIER = re.compile(r"(?P<name>[^\s+]+)\+(?P<id>[0-9a-f]{8})\+(?P<data>[A-Za-z0-9+/]+={0,2})")
_SIGNER = re.compile(r"PRIVATE\+KEY\+" + _VERIFIER.pattern)
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class VerifierKey(NamedTuple):
    """A public key, 32 bytes, and the name of the log that it belongs to."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The 4 bytes by which signatures name the key."""
        return key_id(self.name, self.public_key)


class SignerKey(NamedTuple):
    """A private key: the name of its log, and the seed, 32 bytes, with the key's id.

    Never printed: its `repr` has no seed.
    """

    name: str
    key_id: bytes
    seed: bytes

    def __repr__(self) -> str:
        return f"SignerKey({self.name})"


class Signature(NamedTuple):
    """A signature of a note: the key's name and id, and 64 bytes."""

    name: str
    key_id: bytes
    signature: bytes


class Checkpoint(NamedTuple):
    """The head of a log: its name, how many leaves it has, and their root hash."""

    origin: str
    size: int
    root: bytes


class SignedCheckpoint(NamedTuple):
    """A checkpoint with its signatures. `text` is what they sign."""

    checkpoint: Checkpoint
    text: str
    signatures: tuple[Signature, ...]


def key_id(name: str, public_key: bytes) -> bytes:
    """Return the id of an Ed25519 key."""
    return sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:ID_BYTES]


def check_name(name: str) -> str:
    """Return a key's name. Raises ValueError where it is empty, or has a space or a plus sign."""
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise ValueError(
            "a log's name has no spaces and no plus signs, such as example.com/billing"
        )
    return name


def format_verifier_key(key: VerifierKey) -> str:
    """Return a public key as a line of text, without its end."""
    return f"{key.name}+{key.key_id.hex()}+{_base64(ED25519 + key.public_key)}"


def parse_verifier_key(text: str) -> VerifierKey:
    """Return the public key that a line holds. Raises ValueError where it is none."""
    found = _VERIFIER.fullmatch(text.strip())
    if found is None:
        raise ValueError("not a public key of the form NAME+ID+BASE64")
    key = VerifierKey(found["name"], _key_bytes(found["data"]))
    if key.key_id.hex() != found["id"]:
        raise ValueError("the public key does not match its id")
    return key


def format_signer_key(key: SignerKey) -> str:
    """Return a private key as a line of text, without its end."""
    return f"PRIVATE+KEY+{key.name}+{key.key_id.hex()}+{_base64(ED25519 + key.seed)}"


def parse_signer_key(text: str) -> SignerKey:
    """Return the private key that a line holds. Raises ValueError, without it, where it is none."""
    found = _SIGNER.fullmatch(text.strip())
    if found is None:
        raise ValueError("not a private key of the form PRIVATE+KEY+NAME+ID+BASE64")
    return SignerKey(found["name"], bytes.fromhex(found["id"]), _key_bytes(found["data"]))


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """Return what is signed: three lines."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{_base64(checkpoint.root)}\n"


def format_note(text: str, signatures: tuple[Signature, ...]) -> str:
    """Return a signed note. The text ends with a line feed."""
    lines = "".join(
        f"\u2014 {signature.name} {_base64(signature.key_id + signature.signature)}\n"
        for signature in signatures
    )
    return f"{text}\n{lines}"


def parse_checkpoint(note: str) -> SignedCheckpoint:
    """Return the checkpoint of one signed note. Raises ValueError where it is none."""
    found = parse_checkpoints(note)
    if len(found) > 1:
        raise ValueError("there is more than one checkpoint in it")
    return found[0]


def parse_checkpoints(text: str) -> list[SignedCheckpoint]:
    """Return the checkpoints of a text with one signed note after the other, oldest first.

    Raises ValueError where something else is in it, or where there is none.
    """
    lines = text.split("\n")
    if lines.pop():
        raise ValueError("the last line of the checkpoint has no end")
    found = []
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        try:
            body_end = lines.index("", at)
        except ValueError:
            body_end = len(lines)
        end = body_end + 1
        while end < len(lines) and lines[end].startswith("\u2014 "):
            end += 1
        found.append(_checkpoint(lines[at:body_end], lines[body_end + 1 : end]))
        at = end
    if not found:
        raise ValueError("there is no checkpoint in it")
    return found


def _checkpoint(body: list[str], signatures: list[str]) -> SignedCheckpoint:
    if len(body) < 3:  # noqa: PLR2004 - origin, size, root; extension lines may follow
        raise ValueError("a checkpoint has lines for the origin, the size and the root hash")
    origin, size, root = body[:3]
    if not _SIZE.fullmatch(size):
        raise ValueError(f"{size[:40]!r} is no size of a log")
    hash_bytes = _decoded(root)
    if len(hash_bytes) != ROOT_BYTES:
        raise ValueError("the root hash of a checkpoint has 32 bytes")
    if not signatures:
        raise ValueError("the checkpoint has no signature")
    return SignedCheckpoint(
        Checkpoint(origin, int(size), hash_bytes),
        "".join(f"{line}\n" for line in body),
        tuple(map(_signature, signatures)),
    )


def _signature(line: str) -> Signature:
    found = _SIGNATURE.fullmatch(line)
    if found is None:
        raise ValueError("a signature line of the checkpoint is damaged")
    data = _decoded(found["data"])
    return Signature(found["name"], data[:ID_BYTES], data[ID_BYTES:])


def _key_bytes(text: str) -> bytes:
    data = _decoded(text)
    if data[:1] != ED25519 or len(data) != 1 + KEY_BYTES:
        raise ValueError("not an Ed25519 key")
    return data[1:]


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _decoded(text: str) -> bytes:
    data = b64decode(text, validate=True)
    if _base64(data) != text:
        raise ValueError("damaged base64")
    return data
