"""A file of packages: a TOML table for each `package_name`, and which of them no profile has."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing_cli.config.fields import PricePerByte, Whole
from billing_cli.config.problems import UNKNOWN_KEY, reason_of
from billing_cli.core.model import MAX_TOTAL
from billing_cli.core.simulation import Package
from billing_cli.errors import UsageError
from billing_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import Connection

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


READ_PACKAGE_NAMES = """
SELECT DISTINCT package_name
  FROM public.account_billing_profiles
 WHERE package_name <> ''
 ORDER BY package_name
"""


def unused_packages(connection: Connection, packages: Mapping[str, Package]) -> tuple[str, ...]:
    """Return a note for each package that no profile has. "" stands for accounts without one."""
    if not packages:
        return ()
    known = [name for (name,) in connection.execute(READ_PACKAGE_NAMES)]
    return tuple(
        f"no profile has the package {name!r}{did_you_mean(name, known)}"
        for name in packages
        if name and name not in known
    )
