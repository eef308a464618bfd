"""References to secrets: `env:NAME`, `file:/path`, `credential:NAME`.

A credential is a file under `$CREDENTIALS_DIRECTORY`, where systemd's LoadCredential puts it;
where that is not set, in the directory `credentials` next to the configuration file.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIAL = "credential:"
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
MAX_SECRET_BYTES = 64 * 1024

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_CREDENTIAL = re.compile(r"[A-Za-z0-9_@:+-][A-Za-z0-9._@:+-]*", re.ASCII)


def check_reference(text: str) -> str:
    """Return the reference as it is. Raises ValueError where its form is wrong.

    The error does not repeat the text: what stands there may be the secret itself.
    """
    kind, _, name = text.partition(":")
    good = (
        (kind == "env" and _VARIABLE.fullmatch(name))
        or (kind == "file" and name.startswith("/") and name.isprintable())
        or (kind == "credential" and _CREDENTIAL.fullmatch(name))
    )
    if not good:
        raise ValueError("must be env:NAME, file:/absolute/path or credential:NAME")
    return text


def read_secret(reference: str, environ: Mapping[str, str]) -> str:
    """Return the secret without the white space around it.

    Raises ValueError, with a text that holds no part of the secret, where there is none.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if not environ.get(name):
            raise ValueError(f"the environment variable {name} is not set")
        return environ[name].strip()
    if kind == "credential" and not environ.get(CREDENTIALS_DIRECTORY):
        raise ValueError(f"${CREDENTIALS_DIRECTORY} is not set (the service manager sets it)")
    path = Path(name) if kind == "file" else Path(environ[CREDENTIALS_DIRECTORY]) / name
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Opening a pipe without a writer would wait for ever.
            raise ValueError(f"{path}: not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"{path}: too large for a secret")
    if not text:
        raise ValueError(f"{path}: empty")
    return text


def with_credentials_directory(environ: Mapping[str, str], file: str) -> Mapping[str, str]:
    """Return the environment with $CREDENTIALS_DIRECTORY, as far as one is known.

    `file` is the path of the configuration file, empty where there is none. Its directory need not
    exist: an error about a credential then names where it was looked for.
    """
    if environ.get(CREDENTIALS_DIRECTORY) or not file:
        return environ
    directory = Path(file).absolute().parent / "credentials"
    return {**environ, CREDENTIALS_DIRECTORY: str(directory)}


def check_path(text: str) -> str:
    """Return a path as it is, or the reference to a credential. Raises ValueError."""
    if text.startswith(CREDENTIAL) and not _CREDENTIAL.fullmatch(text.removeprefix(CREDENTIAL)):
        raise ValueError("must be a path or credential:NAME")
    return text


def located_file(path: str, environ: Mapping[str, str]) -> str:
    """Return the path of a file, which may be a credential.

    Where the service manager does not say where credentials are, the reference stays as it is.
    """
    directory = environ.get(CREDENTIALS_DIRECTORY)
    if path.startswith(CREDENTIAL) and directory:
        return str(Path(directory) / path.removeprefix(CREDENTIAL))
    return path
