"""The JSON Schema of the configuration file, from which editors complete and check it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from billing_cli.config.reference import SETTINGS, SOURCE
from billing_cli.config.settings import Settings
from billing_cli.config.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What pydantic leaves in its own words where a validator stands before the type.
_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_MARKDOWN_LINK = re.compile(r"\[([^]]+)]\([^)]+\)")
# Written as text in the file, and a value of ours once it is read.
_TEXTS = ("shard", "peak_hours")


class _Generator(GenerateJsonSchema):
    """Takes a value of a class of ours for text, which is how a file gives it."""

    def is_instance_schema(self, schema: Any) -> dict[str, Any]:  # noqa: ARG002
        return {"type": "string"}


def file_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file."""
    settings = Settings.model_json_schema(by_alias=False, schema_generator=_Generator)
    meanings = {key: meaning for keys in SETTINGS.values() for key, meaning in keys.items()}
    properties = _properties(settings["properties"], meanings)
    for key in _TEXTS:
        properties[key] = {"type": "string", "description": properties[key]["description"]}
    source = TypeAdapter(Source).json_schema()
    properties["sources"] = {
        "type": "array",
        "description": properties["sources"]["description"],
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": source["required"],
            "properties": _properties(source["properties"], SOURCE),
        },
    }
    return {
        "$schema": DIALECT,
        "title": "billing.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _properties(found: Mapping[str, Any], meanings: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: _property(value) | {"description": plain_text(meanings[key])}
        for key, value in found.items()
    }


def _property(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a type as an editor needs it: no titles, and no null, which TOML does not have."""
    kinds = [kind for kind in value.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        value = {**value, **kinds[0]}
    elif kinds:
        value = {**value, "anyOf": [_property(kind) for kind in kinds]}
    dropped = {"title"} | ({"anyOf"} if len(kinds) == 1 else set())
    if value.get("default", "") in (None, []):
        dropped |= {"default"}
    return {_LIMITS.get(key, key): rule for key, rule in value.items() if key not in dropped}


def plain_text(markdown: str) -> str:
    """Return a meaning without links and the marks of code."""
    return _MARKDOWN_LINK.sub(r"\1", markdown).replace("`", "")
