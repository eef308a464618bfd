"""The values that count, and where each comes from. Secrets are masked."""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from billing_cli.cli.tables import Column, Table
from billing_cli.config.layers import variables_of
from billing_cli.config.problems import DEFAULT
from billing_cli.config.redaction import MASK
from billing_cli.core.peak import PeakHours
from billing_cli.core.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.cli.tables import Part
    from billing_cli.config.settings import Settings


class Value(NamedTuple):
    """A setting. `value` is None, a bool, a number, a text or a list, as JSON knows them."""

    key: str
    variable: str
    value: Any
    origin: str


def effective_values(settings: Settings, *, is_changed_only: bool = False) -> list[Value]:
    """Return every setting in the order of the reference; on demand only those that were set."""
    variables = variables_of(type(settings))
    return [
        Value(key, variables[key], _plain(getattr(settings, key)), settings.origin(key))
        for key in type(settings).model_fields
        if not is_changed_only or settings.origin(key) != DEFAULT
    ]


def values_object(values: Sequence[Value]) -> dict[str, Any]:
    """Return the values as a JSON object."""
    return {
        "job": "config-show",
        "status": "ok",
        "error": None,
        "settings": [value._asdict() for value in values],
    }


def values_parts(values: Sequence[Value]) -> list[Part]:
    """Return a table; the sources have lines of their own."""
    rows: list[tuple[str, str, str]] = []
    for value in values:
        if value.key != "sources":
            rows.append((value.key, _shown(value.value), value.origin))
            continue
        for number, source in enumerate(value.value):
            rows += [
                (f"sources[{number}].{key}", _shown(setting), value.origin)
                for key, setting in source.items()
                if setting is not None
            ]
    columns = (Column("key"), Column("value", "prose"), Column("origin", "prose"))
    return [Table(columns, rows, empty="nothing is set")]


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Shard | PeakHours):
        return str(value)
    if isinstance(value, tuple):
        return [part if isinstance(part, str) else asdict(part) for part in value]
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str(value)
