"""The configuration as `check` shows it: every setting, its value, and where that came from."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from billing_cli.config.layers import ENVIRONMENT, variable_of
from billing_cli.config.redaction import MASK
from billing_cli.core.check import Finding

if TYPE_CHECKING:
    from billing_cli.config.settings import Settings


def configuration_findings(settings: Settings) -> tuple[Finding, ...]:
    """Return a finding for each setting, secrets masked, and a warning for each stray variable."""
    found = [
        Finding("configuration", key, "ok", f"{_shown(key, settings)} ({_place(key, settings)})")
        for key in type(settings).model_fields
    ]
    found += [
        Finding("configuration", name, "warning", "means nothing to this program")
        for name in settings.unknown_environment
    ]
    return tuple(found)


def configuration_failure(reason: str) -> Finding:
    """Return the finding for a configuration that no job would accept."""
    return Finding("configuration", "settings", "failed", reason)


def _shown(key: str, settings: Settings) -> str:
    value: Any = getattr(settings, key)
    if key == "sources":
        disabled = sum(not source.enabled for source in value)
        return f"{len(value) - disabled} enabled, {disabled} disabled"
    if value is None or value == "":
        return "not set"
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _place(key: str, settings: Settings) -> str:
    origin = settings.origin(key)
    return f"{variable_of(key)} in the environment" if origin == ENVIRONMENT else origin
