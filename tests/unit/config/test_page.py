"""The examples and the errors of docs/configuration.md are right."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from billing_cli.config.settings import load_settings
from tests.unit.config.support import error_of, written

DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "configuration.md"


def page() -> str:
    """Return the page."""
    return PAGE.read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the first code block in a language."""
    match = re.search(rf"```{language}\n(.*?)```", page(), re.DOTALL)
    assert match is not None
    return match[1]


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
