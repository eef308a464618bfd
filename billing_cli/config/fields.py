"""The kinds of values that settings and sources are made of. Errors never repeat a secret."""

from __future__ import annotations

import json
import re
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticKnownError

from billing_cli.core.prices import LARGEST_PRICE
from billing_cli.core.rating import LARGEST_BALANCE

if TYPE_CHECKING:
    from pydantic_core.core_schema import ErrorType

MAX_TEXT_CHARACTERS = 255
MAX_SHOWN_KEY_CHARACTERS = 60
MAX_RATE_BITS_PER_SECOND = 10**15
MAX_STREAMS = 10**9
MAX_PRICE_DECIMAL_PLACES = 40
MAX_AMOUNT_DECIMAL_PLACES = 9

_URL_PREFIXES = ("postgresql://", "postgres://")
_NUMERAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# What these spell is refused as not finite.
_NOT_FINITE = {"nan", "inf", "infinity"}


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its IANA name. Raises ValueError where the system knows none."""
    if name == "UTC":
        # Known also where no zone database is installed.
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name[:40]!r} is not a time zone that this system knows") from None


def _known_zone(name: str) -> str:
    zone_of(name)
    return name


def _printable(text: str) -> str:
    # A NUL can't be stored in PostgreSQL, and no other control character belongs in a name.
    if not text.isprintable():
        raise ValueError("must not hold control characters")
    return text


def _no_switch(value: Any) -> Any:
    # Python counts True as 1.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic's way
    return value


def _numeral(error: ErrorType) -> BeforeValidator:
    """Refuse text that is a number for Python alone: `1_0`, and digits of other scripts."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip()
            if not _NUMERAL.fullmatch(text) and text.lstrip("+-").lower() not in _NOT_FINITE:
                raise PydanticKnownError(error)
        return value

    return BeforeValidator(check)


def _plain_zero(value: Decimal) -> Decimal:
    # -0 and 0e-30 are zero, and are to look like it.
    return value or Decimal(0)


def from_json(value: Any) -> Any:
    """Return what JSON text stands for; any other value is taken as it is. Raises ValueError."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
    except RecursionError:
        reason = "not JSON: nested too deeply"
    # Raised out here: the decoder's error holds the text, which may hold a secret.
    raise ValueError(reason)


def list_from_json(value: Any) -> Any:
    """Return the same for a key that is a list."""
    try:
        return from_json(value)
    except ValueError as error:
        raise ValueError(f'must be a list, such as ["free"]; {error}') from None


def shown_key(key: str) -> str:
    """Return a key that someone else wrote, fit to stand in a line of text."""
    cut = key[:MAX_SHOWN_KEY_CHARACTERS]
    return cut if cut.isprintable() and cut else repr(cut)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in keys if names.count(name) > 1)
        raise ValueError(f"{shown_key(twice)} is given twice in one object")
    return keys


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _database_url(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    # Either a URL or a libpq keyword string, such as "host=db dbname=account".
    if not text.startswith(_URL_PREFIXES) and ("://" in text or "=" not in text):
        raise ValueError("must be a postgresql:// URL")
    return SecretStr(text)


def _token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    # The HTTP library's error about a bad header would show the header.
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("must be ASCII without white space or control characters")
    return SecretStr(text)


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_printable)]
Label = Annotated[str, Field(max_length=16), AfterValidator(_printable)]
Whole = Annotated[int, _numeral("int_parsing"), BeforeValidator(_no_switch)]
Number = Annotated[
    float, _numeral("float_parsing"), BeforeValidator(_no_switch), Field(allow_inf_nan=False)
]
_DECIMAL = _numeral("decimal_parsing")
Rate = Annotated[Whole, Field(ge=0, le=MAX_RATE_BITS_PER_SECOND)]
StreamCount = Annotated[Whole, Field(ge=0, le=MAX_STREAMS)]
CaseFree = BeforeValidator(_lower)
Zone = Annotated[str, AfterValidator(_known_zone)]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database_url)]
Token = Annotated[SecretStr, AfterValidator(_token)]

PricePerByte = Annotated[
    Decimal,
    Field(ge=0, le=LARGEST_PRICE, decimal_places=MAX_PRICE_DECIMAL_PLACES),
    AfterValidator(_plain_zero),
    _DECIMAL,
]
Amount = Annotated[
    Decimal,
    Field(gt=-LARGEST_BALANCE, lt=LARGEST_BALANCE, decimal_places=MAX_AMOUNT_DECIMAL_PLACES),
    AfterValidator(_plain_zero),
    _DECIMAL,
]
Maximum = Annotated[
    Decimal,
    Field(ge=0, lt=LARGEST_BALANCE, decimal_places=MAX_AMOUNT_DECIMAL_PLACES),
    AfterValidator(_plain_zero),
    _DECIMAL,
]
