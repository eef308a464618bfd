"""JSON as a suspicious reader takes it: what other parsers disagree about is an error here."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SUSPECT_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SHOWN_CHARACTERS = 256
_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "an integer",
    float: "a number with a fraction",
    list: "a list",
}

# What CPython needs for a value and for an empty object or list, rounded up.
_BYTES_PER_VALUE = 72
_BYTES_PER_CONTAINER = 200
_FOUR_BYTE_LEADS = tuple(bytes([lead]) for lead in range(0xF0, 0xF5))


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's members as a dict; a key that appears twice raises ExporterError."""
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse_duplicate(pairs)
    return members


def checked_text(body: bytes, *, max_decoded_bytes: int) -> str:
    """Return the text of a UTF-8 body that is safe to parse.

    Raises ExporterError for a byte order mark, for invalid UTF-8, and for bodies that would take
    more than `max_decoded_bytes` of memory once they are values.
    """
    if body.startswith(_BYTE_ORDER_MARK):
        raise ExporterError("not JSON: begins with a byte order mark")
    # Held together are first the text and the bytes that it is made from, then text and values.
    if weight_of_text(body) + max(len(body), weight_of_values(body)) > max_decoded_bytes:
        raise ExporterError("the answer would take too much memory to decode")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExporterError(f"not UTF-8 at byte {error.start}") from None


def refuse_constant(name: str) -> NoReturn:
    """Raise ExporterError for NaN, Infinity or -Infinity, which JSON does not have."""
    raise ExporterError(f"not JSON: {name}")


def parse_strict(
    text: str,
    object_from: Callable[[list[tuple[str, Any]]], Any] = unique_members,
    constant_from: Callable[[str], Any] = refuse_constant,
) -> Any:
    """Return the JSON value of a text.

    `object_from` makes a value of an object's members; it has to refuse repeated keys.
    `constant_from` is called for NaN, Infinity and -Infinity, in their order. Raises
    ExporterError for anything that is not plain JSON: a NUL or half a surrogate pair in a string,
    NaN and Infinity, a key that appears twice in an object, integers beyond Python's digit limit,
    and nesting that exhausts the stack.
    """
    if "\\" in text and _SUSPECT_ESCAPE.search(text):
        # On the plain values, because object_from may leave some of the strings out.
        _refuse_unusable_strings(_parsed(text, unique_members, refuse_constant))
    return _parsed(text, object_from, constant_from)


def weight_of_text(body: bytes) -> int:
    """Return an upper bound of the memory, in bytes, that the text of a body takes."""
    # One wide character widens the whole string.
    width = 1
    if not body.isascii():
        width = 4 if any(lead in body for lead in _FOUR_BYTE_LEADS) else 2
    return width * len(body)


def weight_of_values(body: bytes) -> int:
    """Return an upper bound of the memory, in bytes, that values take beyond their own text.

    Short values cost many times what they take on the wire (`[],` is three bytes there and more
    than sixty here), so the length of the body alone bounds nothing. The parts of a body weigh
    together what the whole weighs.
    """
    containers = body.count(b"{") + body.count(b"[")
    return _BYTES_PER_VALUE * body.count(b",") + _BYTES_PER_CONTAINER * containers


def shown(value: object) -> str:
    """Return a value from the wire as a reason may show it: whole, or not at all.

    Never cut short, so that a caller who masks a secret in the reason finds all of it.
    """
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN_CHARACTERS else f"{len(value)} characters"
    return _KINDS.get(type(value), "an object")


def _parsed(
    text: str,
    object_from: Callable[[list[tuple[str, Any]]], Any],
    constant_from: Callable[[str], Any],
) -> Any:
    try:
        return json.loads(text, object_pairs_hook=object_from, parse_constant=constant_from)
    except json.JSONDecodeError as error:
        raise ExporterError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ExporterError("not usable JSON: nested too deeply") from None
    except ValueError:
        raise ExporterError("not usable JSON: an integer with too many digits") from None


def _refuse_duplicate(pairs: list[tuple[str, Any]]) -> NoReturn:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ExporterError(f"not usable JSON: the key {shown(key)} twice in one object")
        seen.add(key)
    raise AssertionError("only called with a duplicate")  # pragma: no cover


def _refuse_unusable_strings(root: Any) -> None:
    """Raise ExporterError where a key or a string value cannot be stored as text."""
    open_values = [root]
    while open_values:
        value = open_values.pop()
        if isinstance(value, str):
            _refuse_unusable(value)
        elif isinstance(value, list):
            open_values.extend(value)
        elif isinstance(value, dict):
            open_values.extend(value.keys())
            open_values.extend(value.values())


def _refuse_unusable(text: str) -> None:
    if "\0" in text:
        raise ExporterError("a string holds a NUL")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ExporterError("a string holds half a surrogate pair") from None
