"""Records as JSON objects: times in RFC 3339, amounts as decimal text, names as they are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from billing_cli.core.times import format_rfc3339


def plain(value: Any) -> Any:
    """Return a value as JSON has it: a record becomes an object of its fields."""
    if isinstance(value, datetime):
        return format_rfc3339(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, tuple | list) else value


def attributes(record: object, names: str) -> dict[str, Any]:
    """Return these attributes of a record, fields or properties, as JSON has them.

    `names` are separated by white space: `attributes(bucket, "region total_bytes")`.
    """
    return {name: plain(getattr(record, name)) for name in names.split()}
