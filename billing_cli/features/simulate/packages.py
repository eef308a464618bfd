"""Reads a file of packages: a TOML table for each `package_name`."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing_cli.config.fields import PricePerByte, Whole
from billing_cli.config.problems import UNKNOWN_KEY, reason_of
from billing_cli.core.model import MAX_TOTAL
from billing_cli.core.simulation import Package
from billing_cli.errors import UsageError
from billing_cli.suggestions import did_you_mean

BYTES_IN_A_GIB = 2**30
Multiplier = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    price_per_byte: PricePerByte | None = None
    price_per_gib: PricePerByte | None = None
    included_quota_bytes: Annotated[Whole, Field(ge=0, le=MAX_TOTAL)] | None = None
    region_multiplier: Multiplier | None = None
    line_multiplier: Multiplier | None = None
    peak_multiplier: Multiplier | None = None
    offpeak_multiplier: Multiplier | None = None


def read_packages(path: str) -> dict[str, Package]:
    """Return the packages of a file by name. Raises UsageError, which names package and key."""
    try:
        with Path(path).open("rb") as file:
            tables = tomllib.load(file, parse_float=Decimal)
    except OSError as error:
        raise UsageError(f"--packages {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--packages {path}: not TOML: {error}") from None
    return {name: _package(path, name, table) for name, table in tables.items()}


def _package(path: str, name: str, table: object) -> Package:
    if not isinstance(table, dict):
        raise UsageError(f"--packages {path}: {name}: must be in the table of a package: [NAME]")
    try:
        entry = _Entry.model_validate(table)
    except ValidationError as error:
        # Unknown keys first, as in the configuration.
        found = min(
            error.errors(include_url=False), key=lambda detail: detail["type"] != UNKNOWN_KEY
        )
        key = str(found["loc"][0])
        is_unknown = found["type"] == UNKNOWN_KEY
        hint = did_you_mean(key, _Entry.model_fields) if is_unknown else ""
        reason = f"{reason_of(found)}{hint}"
        raise UsageError(f"--packages {path}: {name}.{key}: {reason}") from None
    if entry.price_per_byte is not None and entry.price_per_gib is not None:
        raise UsageError(f"--packages {path}: {name}: price_per_byte or price_per_gib, not both")
    values = entry.model_dump(exclude={"price_per_gib"})
    if entry.price_per_gib is not None:
        values["price_per_byte"] = entry.price_per_gib / BYTES_IN_A_GIB
    return Package(**values)
