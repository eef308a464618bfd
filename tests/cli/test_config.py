"""`billing config` shows what counts, and what may stand in the file."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billing_cli.config.settings import Settings
from billing_cli.config.source import Source
from tests.cli.command import billing

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
EXAMPLE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_values_are_shown_with_their_origin(tmp_path: Path) -> None:
    """Environment, file, reference or default; a secret is masked."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "dsn").write_text("postgresql://u:s3cret@x/y")
    path = tmp_path / "billing.toml"
    path.write_text('database_url_ref = "credential:dsn"\npage_limit = 7\nshard = "1/2"\n')
    done = billing(
        *("--config", str(path), "config", "show", "--json"),
        environment={"PRICE_PER_BYTE": "1e-9"},
    )
    assert "s3cret" not in done.stdout + done.stderr
    shown = {one["key"]: (one["value"], one["origin"]) for one in done.result["settings"]}
    assert shown.keys() == Settings.model_fields.keys()
    assert shown["database_url"] == ("***", f"{path}, credential:dsn")
    assert shown["price_per_byte"] == ("0.000000001", "environment")
    assert (shown["page_limit"], shown["shard"]) == ((7, str(path)), ("1/2", str(path)))
    assert shown["settle_seconds"] == (30, "default")


def test_only_changed_values_are_shown_on_demand() -> None:
    """As a table of key, value and origin; sources have a line for each key."""
    sources = json.dumps([{"source_id": "jp-1", "base_url": "https://x"}])
    done = billing("config", "show", "--changed", environment={"EXPORTER_SOURCES_JSON": sources})
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["sources[0].source_id", "jp-1", "environment"] in lines
    assert "page_limit" not in done.stdout


def test_the_schema_knows_every_key_and_its_meaning() -> None:
    """Of the file and of a source; what is no key is refused."""
    schema = json.loads(billing("config", "schema", environment={}).stdout)
    source = schema["properties"]["sources"]["items"]
    keys = [field.name for field in fields(Source)]
    for described, names in ((schema, [*Settings.model_fields]), (source, keys)):
        assert described["additionalProperties"] is False
        assert [*described["properties"]] == names
        assert all(one["description"] for one in described["properties"].values())


def test_the_schema_fits_the_example_of_the_docs() -> None:
    """Types and limits of what a reader copies."""
    schema = json.loads(billing("config", "schema", environment={}).stdout)
    text = EXAMPLE.read_text("utf-8").split("```toml\n")[1].split("```")[0]
    assert misfits(tomllib.loads(text), schema) == []
    wrong = {"page_limit": 0, "log_level": "loud", "sources": [{"source_id": 1}]}
    assert misfits(wrong, schema) == ["page_limit", "log_level", "base_url", "source_id"]


def misfits(values: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return the keys that a JSON Schema refuses, as far as ours goes."""
    found = [key for key in schema.get("required", ()) if key not in values]
    for key, value in values.items():
        kinds = schema["properties"].get(key, {})
        is_type = any(
            isinstance(value, TYPES[kind["type"]]) for kind in kinds.get("anyOf", [kinds])
        )
        is_low = "minimum" in kinds and value < kinds["minimum"]
        if not is_type or is_low or value not in kinds.get("enum", [value]):
            found.append(key)
        elif "items" in kinds and "properties" in kinds["items"]:
            found += [misfit for item in value for misfit in misfits(item, kinds["items"])]
    return found
