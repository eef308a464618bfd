"""The reference of JSON results, made of results: which keys there are, and of which types."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tools.reference import page, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")


def json_page(results: Mapping[str, Sequence[Any]]) -> str:
    """Return the page about results by command; several results of one are put together."""
    parts = [
        "# JSON reference",
        (
            "With `--json`, stdout holds exactly one object. These keys were recorded from real "
            "runs; keys are only ever added. `a[].b` is the key `b` of each object in the list "
            "`a`. A failure has `job`, `status` (`error`) and `error` with `code` and `message`: "
            "[error codes](../errors.md). Times are RFC 3339 in UTC, amounts decimals as text."
        ),
    ]
    for command, objects in results.items():
        kinds: dict[str, dict[str, None]] = {}
        for one in objects:
            for path, kind in _paths(one, ""):
                kinds.setdefault(path, {})[kind] = None
        rows = [(f"`{path}`", _joined(found)) for path, found in kinds.items() if path]
        parts += [f"## {command}", table(("key", "type"), rows)]
    return page(parts)


def _joined(kinds: Mapping[str, None]) -> str:
    names = sorted(kinds, key=lambda kind: (kind == "null", kind))
    if "text" in names:
        names = [kind for kind in names if kind not in {"time", "uuid", "decimal"}]
    return " or ".join(names)


def _paths(value: Any, path: str) -> Iterator[tuple[str, str]]:
    yield path, _kind(value)
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _paths(one, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, dict | list):
                yield from _paths(one, f"{path}[]")


def _kind(value: Any) -> str:
    if isinstance(value, str):
        named = (("time", _TIME), ("uuid", _UUID), ("decimal", _DECIMAL))
        return next((kind for kind, form in named if form.fullmatch(value)), "text")
    names = {bool: "true or false", int: "integer", float: "number", list: "list", dict: "object"}
    return names.get(type(value), "null")
