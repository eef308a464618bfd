"""Where values come from: the process environment over one TOML file, both as they stand there."""

from __future__ import annotations

import difflib
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

DEFAULT_CONFIG_PATH = "/etc/billing/billing.toml"
CONFIG_VARIABLE = "BILLING_CONFIG"
PREFIX = "BILLING_"
TEST_PREFIX = "BILLING_TEST_"

ENVIRONMENT = "environment"
DEFAULT = "default"

MAX_SHOWN_KEY_CHARACTERS = 60

UNPREFIXED = {
    "database_url": "DATABASE_URL",
    "sources": "EXPORTER_SOURCES_JSON",
    "exporter_base_url": "EXPORTER_BASE_URL",
    "internal_service_token": "INTERNAL_SERVICE_TOKEN",
    "default_region": "DEFAULT_REGION",
    "source_revision": "SOURCE_REVISION",
    "price_per_byte": "PRICE_PER_BYTE",
    "initial_included_quota_bytes": "INITIAL_INCLUDED_QUOTA_BYTES",
    "initial_balance": "INITIAL_BALANCE",
}
"""The variables that deployments set before this program existed, by their key in the file."""


class Layer(NamedTuple):
    """Values by key, unchecked, and the words that say where they stand."""

    origin: str
    values: dict[str, Any]


def read_layers(
    config_path: str | None, environ: Mapping[str, str], keys: Collection[str]
) -> tuple[Layer, ...]:
    """Return the layers, the stronger one first.

    Raises ConfigurationError where a file that was asked for can't be used, or holds a key that
    is not among `keys`.
    """
    environment = Layer(ENVIRONMENT, _environment_values(environ, keys))
    if config_path is None:
        config_path = environ.get(CONFIG_VARIABLE, "").strip() or None
    tables = _read_file(config_path or DEFAULT_CONFIG_PATH, required=config_path is not None)
    if tables is None:
        return (environment,)
    origin = config_path or DEFAULT_CONFIG_PATH
    return environment, Layer(origin, _file_values(tables, keys, origin))


def unknown_variables(environ: Mapping[str, str], keys: Iterable[str]) -> tuple[str, ...]:
    """Return the `BILLING_*` variables that mean nothing to this program, in order."""
    known = {variable_of(key) for key in keys} | {CONFIG_VARIABLE}
    return tuple(
        sorted(
            name
            for name in environ
            if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name not in known
        )
    )


def variable_of(key: str) -> str:
    """Return the environment variable of a key of the file."""
    return UNPREFIXED.get(key, PREFIX + key.upper())


def label(key: str, origin: str) -> str:
    """Return how an error names a key: as it is written where it stands, and where that is."""
    return f"{variable_of(key) if origin == ENVIRONMENT else key} ({origin})"


def shown_key(key: str) -> str:
    """Return a key that someone else wrote, fit to stand in a line of text."""
    cut = key[:MAX_SHOWN_KEY_CHARACTERS]
    return cut if cut.isprintable() and cut else repr(cut)


def suggestion(key: str, known: Iterable[str]) -> str:
    """Return a hint at the known key that is nearest to an unknown one, or nothing."""
    nearest = difflib.get_close_matches(key, list(known), n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def _environment_values(environ: Mapping[str, str], keys: Iterable[str]) -> dict[str, Any]:
    texts = {key: environ.get(variable_of(key), "") for key in keys}
    return {key: text for key, text in texts.items() if not _is_blank(text)}


def _read_file(path: str, *, required: bool) -> dict[str, Any] | None:
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file, parse_float=Decimal)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not required:
            return None
        reason = str(error.strerror)
    except OSError as error:
        reason = str(error.strerror)
    except RecursionError:
        reason = "not TOML: nested too deeply"
    except ValueError as error:
        reason = f"not TOML: {error}"
    raise ConfigurationError(f"configuration file {path}: {reason}")


def _file_values(tables: Mapping[str, Any], keys: Collection[str], origin: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for written, value in tables.items():
        key = written.lower()
        if key not in keys:
            raise ConfigurationError(
                f"{shown_key(written)} ({origin}): unknown key{_hint(key, keys)}"
            )
        if key in values:
            raise ConfigurationError(f"{key} ({origin}): given twice, in two spellings")
        values[key] = value
    return {key: value for key, value in values.items() if not _is_blank(value)}


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _hint(key: str, keys: Collection[str]) -> str:
    # Someone who copies a variable's name into the file is told the file's name for it.
    for known in keys:
        if key == variable_of(known).lower():
            return f" (did you mean {known!r}?)"
    return suggestion(key, keys)
