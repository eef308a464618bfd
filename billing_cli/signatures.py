"""Ed25519 keys in files, and signatures of checkpoints. Needs no configuration and no database.

`cryptography` is loaded when something is signed or verified.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from billing_cli.core.notes import (
    Checkpoint,
    Signature,
    SignedCheckpoint,
    SignerKey,
    VerifierKey,
    check_name,
    checkpoint_text,
    format_note,
    format_signer_key,
    format_verifier_key,
    key_id,
    parse_checkpoints,
    parse_signer_key,
    parse_verifier_key,
)
from billing_cli.errors import ConfigurationError
from billing_cli.references import check_reference, read_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# A year of checkpoints, one a minute, is about 100 MB.
MAX_FILE_BYTES = 1 << 30


def generate_key(name: str) -> tuple[SignerKey, VerifierKey]:
    """Return a new key pair. Raises ValueError where the name is not one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    verifier = VerifierKey(check_name(name), public)
    return SignerKey(name, key_id(name, public), private.private_bytes_raw()), verifier


def sign_checkpoint(checkpoint: Checkpoint, key: SignerKey) -> str:
    """Return the checkpoint as a signed note."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    text = checkpoint_text(checkpoint)
    signature = Ed25519PrivateKey.from_private_bytes(key.seed).sign(text.encode())
    return format_note(text, (Signature(key.name, key.key_id, signature),))


def signature_problem(note: SignedCheckpoint, keys: Sequence[VerifierKey]) -> str | None:
    """Return why no key vouches for a checkpoint; None where one does.

    Signatures by other keys are ignored, but one that a known key made must be right.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    is_signed = False
    for signature in note.signatures:
        for key in keys:
            if (key.name, key.key_id) != (signature.name, signature.key_id):
                continue
            try:
                public = Ed25519PublicKey.from_public_bytes(key.public_key)
                public.verify(signature.signature, note.text.encode())
            except InvalidSignature:
                return f"its signature by key {key.name}+{key.key_id.hex()} is wrong"
            is_signed = is_signed or key.name == note.checkpoint.origin
    if is_signed:
        return None
    names = ", ".join(f"{signature.name}+{signature.key_id.hex()}" for signature in note.signatures)
    return f"it is signed by {names}, which none of the public keys is"


def write_key_pair(path: Path, name: str) -> tuple[Path, VerifierKey]:
    """Write a new private key (mode 0600) and, as PATH.pub, its public key.

    Raises ConfigurationError where one of the files exists or can't be written, ValueError for a
    wrong name.
    """
    signer, verifier = generate_key(name)
    public_path = path.with_name(path.name + ".pub")
    if public_path.exists():
        raise ConfigurationError(f"{public_path} exists: keys are never overwritten")
    _write_new(path, format_signer_key(signer), 0o600)
    _write_new(public_path, format_verifier_key(verifier), 0o644)
    return public_path, verifier


def read_signer_key(reference: str, environ: Mapping[str, str]) -> tuple[SignerKey, VerifierKey]:
    """Return the key behind `file:FILE` or `credential:NAME`, and its public key.

    Raises ConfigurationError, which never repeats the key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    kind, _, name = reference.partition(":")
    if kind == "file" and name:
        reference = f"file:{Path(name).absolute()}"
    try:
        if kind not in {"file", "credential"}:
            raise ValueError("must be file:FILE or credential:NAME")  # noqa: TRY301
        key = parse_signer_key(read_secret(check_reference(reference), environ))
        public = Ed25519PrivateKey.from_private_bytes(key.seed).public_key().public_bytes_raw()
        if key_id(key.name, public) != key.key_id:
            raise ValueError("the private key does not match its id")  # noqa: TRY301
    except ValueError as error:
        raise ConfigurationError(f"--key-ref: {error}") from None
    return key, VerifierKey(key.name, public)


def read_public_keys(paths: Iterable[Path]) -> list[VerifierKey]:
    """Return the public keys of all files, one or more a line each. Raises ConfigurationError."""
    keys = []
    for path in paths:
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        try:
            if not lines:
                raise ValueError("the file is empty")  # noqa: TRY301
            keys += [parse_verifier_key(line) for line in lines]
        except ValueError as error:
            raise ConfigurationError(f"--public-key {path}: {error}") from None
    return keys


def read_checkpoints(path: Path) -> list[SignedCheckpoint]:
    """Return the signed checkpoints of a file, in its order. Raises ConfigurationError."""
    try:
        return parse_checkpoints(read_text(path))
    except ValueError as error:
        raise ConfigurationError(f"--checkpoint {path}: {error}") from None


def read_text(path: Path) -> str:
    """Return the text of a regular file. Raises ConfigurationError where it can't be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"{path}: not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not UTF-8 text") from None


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(f"{text}\n")
            file.flush()
            os.fsync(descriptor)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists: keys are never overwritten") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
