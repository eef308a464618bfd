"""The small checks that every decoded value goes through."""

from __future__ import annotations

import re
from typing import Any

from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.limits import MAX_NAME_CHARACTERS
from billing_cli.exporter.strict_json import shown

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Return a JSON object's members."""
    if not isinstance(value, dict):
        raise ExporterError(f"{where} is {shown(value)}, not a JSON object")
    return value


def as_list(value: Any, where: str) -> list[Any]:
    """Return a list; null is what some encoders write for an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ExporterError(f"{where} is {shown(value)}, not a list")
    return value


def as_name(value: Any, where: str) -> str:
    """Return a node id, environment or tag; missing and null are the empty name."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ExporterError(f"{where} is {shown(value)}, not a string")
    if len(value) > MAX_NAME_CHARACTERS:
        raise ExporterError(f"{where} has {len(value)} characters")
    if _CONTROL_CHARACTER.search(value):
        raise ExporterError(f"{where} holds a control character")
    return value
