"""Writes a configuration and its credential files: all new, or nothing."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from billing_cli.config.settings import load_settings
from billing_cli.errors import ConfigurationError, UsageError
from billing_cli.features.init.setup import DATABASE_CREDENTIAL

if TYPE_CHECKING:
    from billing_cli.features.init.setup import Setup

FILE = "billing.toml"
CREDENTIALS = "credentials"

# In an error, where a value stands; a part of the path may be masked like a secret.
_TEMPORARY_FILE = re.compile(r"\(/[^()]*billing\.toml\)")
_DATABASE_URL = re.compile(rf"\bdatabase_url \([^()]*, credential:{DATABASE_CREDENTIAL}\)")


def write_setup(setup: Setup, directory: Path) -> list[Path]:
    """Write the files and return their paths, the configuration last.

    The directory of the credentials is made for its owner alone, and so is each of them. Raises
    ConfigurationError for values that are wrong and for files that exist or can't be written;
    nothing is written then.
    """
    _validate(setup, directory)
    for path in _paths(setup, directory):
        if path.exists():
            raise ConfigurationError(
                f"{path} exists, and init overwrites nothing: edit it, or name another --directory"
            )
    written: list[Path] = []
    try:
        _write(setup, directory, written)
    except OSError as error:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise ConfigurationError(f"{error.filename}: {error.strerror}") from None
    return written


def _validate(setup: Setup, directory: Path) -> None:
    """Load the same files from a temporary directory, as any command would. Raises UsageError."""
    with tempfile.TemporaryDirectory() as name:
        _write(setup, Path(name), [])
        try:
            load_settings(str(Path(name) / FILE), {})
        except ConfigurationError as error:
            reason = _TEMPORARY_FILE.sub(f"({directory / FILE})", str(error))
            reason = _DATABASE_URL.sub("--database-url", reason)
        else:
            return
    raise UsageError(reason)


def _write(setup: Setup, directory: Path, written: list[Path]) -> None:
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    (directory / CREDENTIALS).mkdir(mode=0o700, exist_ok=True)
    texts = [f"{secret}\n" for secret in setup.credentials().values()]
    for path, text in zip(_paths(setup, directory), [*texts, setup.text()], strict=True):
        mode = 0o644 if path.name == FILE else 0o600
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        written.append(path)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def _paths(setup: Setup, directory: Path) -> list[Path]:
    return [*(directory / CREDENTIALS / name for name in setup.credentials()), directory / FILE]
