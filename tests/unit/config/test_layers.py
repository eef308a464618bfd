"""Where values come from: the environment over the file, and which file that is."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from billing_cli.config import layers
from billing_cli.config.layers import DEFAULT_CONFIG_PATH, variables_of
from billing_cli.config.problems import ignored_variables
from billing_cli.config.settings import Settings, load_settings
from billing_cli.config.source import LOOPBACK_ONLY
from tests.unit.config.support import error_of, from_file, problems_of, written

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://billing:pass@db.example/account"


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    """A variable hides the file's value; the other values of the file stay."""
    text = 'price_per_byte = 0.5\ndefault_region = "jp"'
    settings = from_file(tmp_path, text, PRICE_PER_BYTE="0.25")
    assert settings.price_per_byte == Decimal("0.25")
    assert settings.default_region == "jp"
    assert settings.origin("price_per_byte") == "environment"
    assert settings.origin("default_region") == str(tmp_path / "billing.toml")
    assert settings.origin("page_limit") == "default"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    """An empty or blank variable leaves the file's value, and a blank file value the default."""
    text = 'price_per_byte = 0.5\nsource_revision = ""'
    settings = from_file(tmp_path, text, PRICE_PER_BYTE="", DEFAULT_REGION="  ", BILLING_CONFIG="")
    assert settings.price_per_byte == Decimal("0.5")
    assert settings.source_revision == "billing-service-v1"
    assert settings.origin("default_region") == "default"


def test_a_key_that_nobody_knows_is_an_error_though_it_is_blank(tmp_path: Path) -> None:
    """A misspelt key is found before somebody gives it a value."""
    path = written(tmp_path, 'page_limitt = ""')
    assert "page_limitt" in error_of(str(path), {})


def test_keys_of_the_file_are_found_in_any_case(tmp_path: Path) -> None:
    """DATABASE_URL in the file is database_url."""
    settings = from_file(tmp_path, f'DATABASE_URL = "{URL}"\nPage_Limit = 7')
    assert settings.require_database_url().get_secret_value() == URL
    assert settings.page_limit == 7


def test_a_key_in_two_spellings_is_an_error(tmp_path: Path) -> None:
    """Which of the two would count is not left to chance."""
    path = written(tmp_path, "page_limit = 7\nPAGE_LIMIT = 8")
    assert error_of(str(path), {}) == f"page_limit ({path}): given twice, in two spellings"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("setle_seconds", " (did you mean 'settle_seconds'?)"),
        ("billing_page_limit", " (did you mean 'page_limit'?)"),
        ("zzz", ""),
    ],
)
def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path, key: str, hint: str) -> None:
    """A key that nobody knows is named, with the known one that is nearest."""
    path = written(tmp_path, f"{key} = 1")
    assert error_of(str(path), {}) == f"{key} ({path}): unknown key{hint}"


def test_an_unknown_variable_of_ours_is_an_error() -> None:
    """A BILLING_* variable that no key has is named, with the nearest one; others are ignored."""
    environ = {
        "BILLING_PAGE_LIMT": "7",
        "BILLING_HOME": "/x",
        "BILLING_PRICE_PER_BYTE": "1",
        "BILLING_TEST_DSN": "y",
        "BILLING_CONFIG": "",
        "OTHER": "z",
    }
    assert problems_of(None, environ) == [
        "BILLING_HOME (environment): unknown variable",
        "BILLING_PAGE_LIMT (environment): unknown variable (did you mean BILLING_PAGE_LIMIT?)",
        "BILLING_PRICE_PER_BYTE (environment): unknown variable (did you mean PRICE_PER_BYTE?)",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PRICE_PER_BYTES", "PRICE_PER_BYTE"),
        ("EXPORTER_SOURCE_JSON", "EXPORTER_SOURCES_JSON"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("DATABASE_USER", None),
        ("AWS_DEFAULT_REGION", None),
        ("PRICE_PER_GB", None),
    ],
)
def test_a_misspelt_variable_without_prefix_is_a_warning(name: str, meant: str | None) -> None:
    """It may be another program's: surely where the right one is set too, or it is not so alike."""
    variables = variables_of(Settings)
    expected = [f"{name} (environment): ignored (did you mean {meant}?)"] if meant else []
    assert ignored_variables({name: "x", "PATH": "/bin"}, variables) == expected
    assert ignored_variables({name: "x", str(meant): "y"}, variables) == []


def test_all_problems_of_both_places_are_reported_at_once(tmp_path: Path) -> None:
    """Keys, sources, references and variables: each problem has its key and its origin."""
    path = written(
        tmp_path,
        'setle_seconds = 1\npage_limit = 0\nping_url_ref = "env:NOT_SET"\n'
        '[[sources]]\nsource_id = "jp-1"\nbase_url = "http://jp-1.example"\nmod = "auto"\n'
        '[[sources]]\nsource_id = "us-1"\nbase_url = "http://us-1.example"\n',
    )
    environ = {"PRICE_PER_BYTE": "cheap", "BILLING_SHARDS": "1/2", "BILLING_BURST_HOURS": "0"}
    found = problems_of(str(path), environ)
    assert sorted(found) == sorted([
        f"setle_seconds ({path}): unknown key (did you mean 'settle_seconds'?)",
        f"sources[0] 'jp-1': mod ({path}): unknown key (did you mean 'mode'?)",
        f"page_limit ({path}): must be >= 1",
        f"sources[1] 'us-1': base_url ({path}): {LOOPBACK_ONLY}",
        "BILLING_BURST_HOURS (environment): must be > 0",
        "PRICE_PER_BYTE (environment): 'cheap' is not a decimal number",
        f"ping_url_ref ({path}): the environment variable NOT_SET is not set",
        "BILLING_SHARDS (environment): unknown variable (did you mean BILLING_SHARD?)",
    ])  # fmt: skip


@pytest.mark.parametrize("name", ["database_url", "billing_page_limit", "Price_Per_Byte"])
def test_variables_are_found_in_capitals_only(name: str) -> None:
    """Variables of other programs that look alike are not ours."""
    assert load_settings(None, {name: "x"}).page_limit == 60


def test_the_command_line_names_the_file_before_the_environment(tmp_path: Path) -> None:
    """--config goes before BILLING_CONFIG."""
    path = written(tmp_path, "page_limit = 7")
    environ = {"BILLING_CONFIG": "/does/not/exist"}
    assert load_settings(str(path), environ).page_limit == 7


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    """BILLING_CONFIG is read where --config is not given."""
    path = written(tmp_path, "page_limit = 7")
    assert load_settings(None, {"BILLING_CONFIG": str(path)}).page_limit == 7


def test_the_system_wide_file_is_read_where_present(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file that was asked for, the system-wide one counts."""
    path = written(tmp_path, "page_limit = 7")
    monkeypatch.setattr(layers, "DEFAULT_CONFIG_PATH", str(path))
    settings = load_settings(None, {})
    assert settings.page_limit == 7
    assert settings.origin("page_limit") == str(path)


def test_the_system_wide_file_is_where_the_contract_says() -> None:
    """/etc/billing/billing.toml, which these tests look away from."""
    assert DEFAULT_CONFIG_PATH == "/etc/billing/billing.toml"


@pytest.mark.parametrize("by", ["option", "variable"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"page_limit =", "not TOML: "),
        (b"page_limit = 1\npage_limit = 2", "not TOML: "),
        (b"a = '\xff'", "not TOML: "),
        (b"a = " + b"[" * 50_000, "not TOML: "),
    ],
)
def test_a_file_that_was_asked_for_must_be_usable(
    tmp_path: Path, by: str, content: bytes | None, reason: str
) -> None:
    """Missing or not TOML: the error names the file."""
    path = tmp_path / "asked.toml"
    if content is not None:
        path.write_bytes(content)
    option, environ = (str(path), {}) if by == "option" else (None, {"BILLING_CONFIG": str(path)})
    text = error_of(option, environ)
    assert text.startswith(f"configuration file {path}: {reason}")


def test_a_file_that_may_not_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lack of permission is told; also for the system-wide file."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path, "page_limit = 7")
    monkeypatch.setattr(layers, "DEFAULT_CONFIG_PATH", str(path))
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert error_of(None, {}) == f"configuration file {path}: Permission denied"


def test_the_process_environment_is_not_read_behind_the_callers_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the given environment counts."""
    monkeypatch.setenv("PAGE_LIMIT", "7")
    monkeypatch.setenv("BILLING_PAGE_LIMIT", "8")
    assert load_settings(None, {}).page_limit == 60
