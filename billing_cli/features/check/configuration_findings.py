"""The configuration as `check` shows it: every setting, its value, and where that came from."""

from __future__ import annotations

import stat
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from billing_cli.config.layers import variables_of
from billing_cli.config.problems import DEFAULT, ENVIRONMENT, ignored_variables
from billing_cli.config.redaction import MASK
from billing_cli.features.check.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from billing_cli.config.settings import Settings

FILE = "file:"
MAX_SOURCES_SHOWN = 5
OPEN = "can be read by every user of this machine"


def configuration_findings(settings: Settings, environ: Mapping[str, str]) -> tuple[Finding, ...]:
    """Return a finding for each setting, secrets masked.

    Misspelt variables, and files with secrets that every user can read, are warnings.
    """
    found = [
        Finding(
            "configuration",
            key,
            "ok",
            f"{_shown(key, settings)} ({_place(key, settings)})",
            is_default=settings.origin(key) == DEFAULT,
        )
        for key in type(settings).model_fields
    ]
    found += [
        Finding("configuration", "secrecy", "warning", f"{path}, which holds {key}, {OPEN}")
        for key in type(settings).model_fields
        if (path := _file_of(key, settings)) is not None and _is_open(path)
    ]
    found += [
        Finding("configuration", "variables", "warning", line)
        for line in ignored_variables(environ, variables_of(type(settings)))
    ]
    return tuple(found)


def configuration_failure(reason: str) -> Finding:
    """Return the finding for a configuration that no job would accept."""
    return Finding("configuration", "settings", "failed", reason)


def shared_token_finding(source_ids: Sequence[str]) -> Finding:
    """Return the warning about sources that are sent the same token."""
    shown = ", ".join(source_ids[:MAX_SOURCES_SHOWN])
    hidden = len(source_ids) - MAX_SOURCES_SHOWN
    more = f" and {hidden} more" if hidden > 0 else ""
    text = (
        f"{shown}{more} are sent the same token: each of them can ask the others with it; "
        "give each source a credential_ref of its own"
    )
    return Finding("configuration", "tokens", "warning", text)


def _shown(key: str, settings: Settings) -> str:
    value: Any = getattr(settings, key)
    if key == "sources":
        disabled = sum(not source.enabled for source in value)
        return f"{len(value) - disabled} enabled, {disabled} disabled"
    if value is None or value in {"", ()}:
        return "not set"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _place(key: str, settings: Settings) -> str:
    origin = settings.origin(key)
    if key == "sources" and settings.exporter_base_url is not None:
        # Without a list, one source is made of that URL.
        key = "exporter_base_url"
    if origin != ENVIRONMENT:
        return f"{key} in {origin}" if key == "exporter_base_url" else origin
    return f"{variables_of(type(settings))[key]} in the environment"


def _file_of(key: str, settings: Settings) -> str | None:
    """Return the file that a secret stands in, if it does in one of the operator's."""
    if not isinstance(getattr(settings, key), SecretStr):
        return None
    reference = getattr(settings, f"{key}_ref", None)
    if reference is not None:
        return reference.removeprefix(FILE) if reference.startswith(FILE) else None
    origin = settings.origin(key)
    return None if origin == ENVIRONMENT else origin


def _is_open(path: str) -> bool:
    try:
        return bool(Path(path).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False  # It was read a moment ago, and is being replaced.
