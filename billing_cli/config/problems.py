"""What pydantic found wrong, in words for an operator, and without values that may be secret."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.config.layers import suggestion
from billing_cli.config.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

UNKNOWN_KEY = "extra_forbidden"
MAX_SHOWN_CHARACTERS = 40

_NOT_A = {
    "int": "a whole number",
    "decimal": "a decimal number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
}

_TEXTS = {
    UNKNOWN_KEY: "unknown key",
    "missing": "is missing",
    "string_type": "must be a string",
}

_COMPARISONS = {
    "greater_than": ("must be > {}", "gt"),
    "greater_than_equal": ("must be >= {}", "ge"),
    "less_than": ("must be < {}", "lt"),
    "less_than_equal": ("must be <= {}", "le"),
    "decimal_max_places": ("must have at most {} decimal places", "decimal_places"),
    "string_too_long": ("must have at most {} characters", "max_length"),
}


def first_problem(error: ValidationError, known: Iterable[str]) -> tuple[str, str]:
    """Return the key that is wrong, and the reason as the second half of a sentence about it.

    Unknown keys go first, because a misspelled key also shows up as a missing one. Only numbers,
    switches and choices are repeated: what stands in any other place may be a secret that went
    astray. For an unknown key the nearest `known` one is suggested.
    """
    details = error.errors(include_url=False)
    first = next((one for one in details if one["type"] == UNKNOWN_KEY), details[0])
    others = len(details) - 1
    more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
    key = str(first["loc"][0])
    hint = suggestion(key, known) if first["type"] == UNKNOWN_KEY else ""
    return key, _reason_of(first) + hint + more


def _reason_of(error: ErrorDetails) -> str:
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind in _COMPARISONS:
        text, name = _COMPARISONS[kind]
        return text.format(context[name])
    expected = _NOT_A.get(kind.partition("_")[0])
    if kind == "literal_error":
        expected = "one of " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
    if expected is not None:
        return f"{_shown(error['input'])} is not {expected}"
    return _TEXTS.get(kind, error["msg"])


def _shown(value: Any) -> str:
    if not isinstance(value, str | int | float | Decimal):
        return "the value"
    text = redact(value) if isinstance(value, str) else str(value).lower()
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."
    return repr(cut) if isinstance(value, str) else cut
