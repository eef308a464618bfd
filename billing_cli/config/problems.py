"""What pydantic finds wrong, in words for an operator, and without values that may be secret."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.config.fields import shown_key
from billing_cli.config.layers import PREFIX
from billing_cli.config.redaction import redact
from billing_cli.config.source import Source
from billing_cli.errors import ConfigurationError
from billing_cli.printable import printable
from billing_cli.suggestions import did_you_mean, nearest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

ENVIRONMENT = "environment"
DEFAULT = "default"
UNKNOWN_KEY = "extra_forbidden"
MAX_SHOWN_CHARACTERS = 40

# A variable of any program counts as a misspelt one of ours where it differs by a letter or two:
# DATABASE_URI, but not DATABASE_USER.
MAX_LETTERS_APART = 2
MISSPELT = 0.9

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
    "tuple_type": "must be a list",
}

_COMPARISONS = {
    "greater_than": ("must be > {}", "gt"),
    "greater_than_equal": ("must be >= {}", "ge"),
    "less_than": ("must be < {}", "lt"),
    "less_than_equal": ("must be <= {}", "le"),
    "decimal_max_places": ("must have at most {} decimal places", "decimal_places"),
    "string_too_long": ("must have at most {} characters", "max_length"),
}


class InvalidConfigurationError(ConfigurationError):
    """One or more configured values are wrong. `problems` has a line for each of them."""

    line_break = "\n"

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(printable(redact(problem)) for problem in problems)
        if len(problems) == 1:
            super().__init__(self.problems[0])
        else:
            count = f"{len(problems)} problems in the configuration:"
            # The semicolons separate them where the text is shown as one line.
            super().__init__("\n  ".join([count, ";\n  ".join(self.problems)]))


def problems_of(
    error: ValidationError, origins: Mapping[str, str], variables: Mapping[str, str]
) -> list[str]:
    """Return a line for each problem: where the value stands, its key, and what is wrong.

    `origins` says where the value of a key comes from, `variables` has the environment variable of
    each key. Unknown keys go first, because a misspelled key also shows up as a missing one.
    """
    details = sorted(
        error.errors(include_url=False), key=lambda found: found["type"] != UNKNOWN_KEY
    )
    return [_problem(found, origins, variables) for found in details]


def unknown_source_keys(error: ValidationError, path: str) -> list[str]:
    """Return a line for each unknown key in the sources of a file, of all that is wrong there."""
    details = error.errors(include_url=False)
    for found in details:
        found["loc"] = ("sources", *found["loc"])
    return [
        _problem(found, {"sources": path}, {}) for found in details if found["type"] == UNKNOWN_KEY
    ]


def label(key: str, origin: str, variables: Mapping[str, str]) -> str:
    """Return how an error names a key: as it is written where it stands, and where that is."""
    return f"{_written(key, origin, variables)} ({origin})"


def unknown_variable(name: str, variables: Mapping[str, str]) -> str:
    """Return the line about a `BILLING_*` variable that no key has."""
    # Compared without the prefix, which they all have in common.
    known = {variable.removeprefix(PREFIX): variable for variable in variables.values()}
    nearest = nearest_of(name.removeprefix(PREFIX), known)
    hint = f" (did you mean {known[nearest]}?)" if nearest else ""
    return f"{shown_key(name)} ({ENVIRONMENT}): unknown variable{hint}"


def ignored_variables(environ: Mapping[str, str], variables: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that is nearly one of ours without the prefix.

    Whoever sets the right one too means another program's. That makes it a warning, never an
    error: what is not ours may have any name.
    """
    missing = [
        variable
        for variable in variables.values()
        if not variable.startswith(PREFIX) and variable not in environ
    ]
    lines = []
    for name in sorted(environ):
        # Comparing costs as much as the import: first the cheap look.
        alike = [
            variable
            for variable in missing
            if abs(len(variable) - len(name)) <= MAX_LETTERS_APART
            and (variable[:3] == name[:3] or variable[-3:] == name[-3:])
        ]
        nearest = nearest_of(name, alike, cutoff=MISSPELT) if alike else None
        if nearest:
            lines.append(f"{shown_key(name)} ({ENVIRONMENT}): ignored (did you mean {nearest}?)")
    return lines


def _problem(error: ErrorDetails, origins: Mapping[str, str], variables: Mapping[str, str]) -> str:
    key, *within = error["loc"]
    key = str(key)
    origin = origins.get(key, DEFAULT)
    reason = reason_of(error)
    is_unknown = error["type"] == UNKNOWN_KEY
    if key != "sources" or not within:
        if is_unknown:
            reason += _hint(key, variables)
        return f"{label(shown_key(key), origin, variables)}: {reason}"
    place, *rest = within
    source_key = shown_key(str(rest[0])) if rest else "the entry"
    if is_unknown:
        reason += did_you_mean(source_key, (field.name for field in fields(Source)))
    return f"{_written(key, origin, variables)}{place}: {source_key} ({origin}): {reason}"


def _written(key: str, origin: str, variables: Mapping[str, str]) -> str:
    return variables.get(key, key) if origin == ENVIRONMENT else key


def _hint(key: str, variables: Mapping[str, str]) -> str:
    # Where a variable's name is used as a key of the file, the error names the key.
    for known, variable in variables.items():
        if key == variable.lower():
            return f" (did you mean {known!r}?)"
    return did_you_mean(key, variables)


def reason_of(error: ErrorDetails) -> str:
    """Return the reason. Only numbers, switches and choices are repeated.

    What stands in any other place may be a secret that went astray.
    """
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
