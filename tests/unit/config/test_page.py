"""docs/configuration.md says what the program does: it is checked against it, both ways."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from billing_cli.config.entry import SourceEntry
from billing_cli.config.layers import variables_of
from billing_cli.config.settings import Settings, load_settings
from tests.unit.config.support import error_of, written

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"
HEADER_OF_SETTINGS = ["in the environment", "in the file", "type", "default", "meaning"]
HEADER_OF_A_SOURCE = ["key", "type", "default", "meaning"]


def page() -> str:
    """Return the page."""
    return PAGE.read_text(encoding="utf-8")


def rows_under(header: list[str]) -> list[list[str]]:
    """Return the cells of all tables with this header, without the marks for code."""
    found: list[list[str]] = []
    inside = False
    for line in page().splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells == header:
            inside = True
        elif inside and not line.startswith("| ---"):
            found.append(cells)
    return found


def block(language: str) -> str:
    """Return the first code block in a language."""
    match = re.search(rf"```{language}\n(.*?)```", page(), re.DOTALL)
    assert match is not None
    return match[1]


def shown(default: Any) -> str:
    """Return a default as the page shows it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float | int | Decimal):
        return f"{default:g}" if isinstance(default, float) else str(default)
    return {None: "none", (): "none", "": "empty"}.get(default, str(default))


def test_the_page_has_a_row_for_each_setting() -> None:
    """Every key is there once, with its name in the environment and its default; no other is."""
    rows = {cells[1]: (cells[0], cells[3]) for cells in rows_under(HEADER_OF_SETTINGS)}
    assert rows == {
        key: (variables_of(Settings)[key], shown(field.default))
        for key, field in Settings.model_fields.items()
    }


def test_the_page_has_a_row_for_each_key_of_a_source() -> None:
    """Every key is there once, and its default where it is a plain value."""
    rows = {cells[0]: cells[2] for cells in rows_under(HEADER_OF_A_SOURCE)}
    assert rows.keys() == SourceEntry.model_fields.keys()
    for key, field in SourceEntry.model_fields.items():
        if field.default is PydanticUndefined:
            assert rows[key] == "required"
        elif field.default not in {None, ()}:
            assert rows[key] == shown(field.default)


def test_the_page_tells_the_limits() -> None:
    """The numbers that the page gives as limits are those that are enforced."""
    for _, key, kind, *_ in rows_under(HEADER_OF_SETTINGS):
        if kind.startswith(("number", "whole number")) and "\u2076" not in kind:
            enforced = {
                getattr(constraint, name)
                for constraint in Settings.model_fields[key].metadata
                for name in ("ge", "gt", "le")
                if hasattr(constraint, name)
            }
            assert {int(number) for number in re.findall(r"\d+", kind)} <= enforced, key


def test_the_examples_in_toml_and_in_json_are_right_and_say_the_same(tmp_path: Path) -> None:
    """What a reader copies works."""
    (tmp_path / "database-url").write_text("postgresql://db/account", encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    toml = block("toml").replace("Asia/Tokyo", "UTC")
    from_toml = load_settings(str(written(tmp_path, toml)), environ, files_checked=False)
    environ["EXPORTER_SOURCES_JSON"] = block("json")
    from_json = load_settings(None, environ, files_checked=False)
    assert from_toml.sources == from_json.sources
    assert [source.auth_mode for source in from_toml.sources] == ["mtls", "bearer"]
    assert from_toml.price_per_byte == Decimal("0.00000000009313225746")


def test_the_smallest_example_is_right() -> None:
    """Three variables are enough."""
    environ = dict(line.split("=", 1) for line in block("sh").splitlines())
    settings = load_settings(None, environ)
    assert settings.require_database_url()
    assert [source.source_id for source in settings.sources] == ["default"]
    assert settings.price_per_byte > 0


@pytest.mark.parametrize("line", re.findall(r"^Error: .*$", PAGE.read_text("utf-8"), re.MULTILINE))
def test_the_errors_on_the_page_are_those_that_are_given(tmp_path: Path, line: str) -> None:
    """The page quotes real errors."""
    source = '[[sources]]\nsource_id = "{}"\nbase_url = "https://x"\n'
    files = {
        "setle": "setle_seconds = 1",
        "sources": source.format("a") + source.format("b") + source.format("jp-1")
        + "timeout_seconds = 0",
    }  # fmt: skip
    text = next((text for start, text in files.items() if start in line), "")
    path = written(tmp_path, text)
    variable = {"BILLING_PAGE_LIMT": "7"} if "LIMT" in line else {"PRICE_PER_BYTE": "abc"}
    found = error_of(str(path), {} if text else variable)
    assert f"Error: {found}" == line.replace("/etc/billing/billing.toml", str(path))
