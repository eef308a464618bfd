"""The connection string: given as it is, or by reference to where a service manager put it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.config.settings import load_settings
from billing_cli.errors import ConfigurationError
from tests.unit.config.support import error_of, from_environment, from_file, written

if TYPE_CHECKING:
    from pathlib import Path

URL = "postgresql://billing:pass@db.example/account"


@pytest.mark.parametrize("url", [URL, "postgres://db/account", "host=db dbname=account"])
def test_a_connection_string_is_taken_as_it_is(url: str) -> None:
    """URLs of both spellings and libpq keyword strings are fine; white space around is not kept."""
    settings = from_environment(DATABASE_URL=f" {url}\n")
    assert settings.require_database_url().get_secret_value() == url


def test_a_missing_connection_string_is_told_when_it_is_needed() -> None:
    """Loading works without a database; asking for it does not."""
    settings = load_settings(None, {})
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL is not set; `billing init`"):
        settings.require_database_url()


def test_a_reference_to_a_variable_leads_to_the_connection_string() -> None:
    """env:NAME is another variable, and the origin says both."""
    settings = from_environment(BILLING_DATABASE_URL_REF="env:ACCOUNT_DSN", ACCOUNT_DSN=URL)
    assert settings.require_database_url().get_secret_value() == URL
    assert settings.origin("database_url") == "environment, env:ACCOUNT_DSN"


def test_a_reference_to_a_file_leads_to_the_connection_string(tmp_path: Path) -> None:
    """file:/path is a file, without the line end that editors leave."""
    (tmp_path / "dsn").write_text(URL + "\n", encoding="utf-8")
    settings = from_file(tmp_path, f'database_url_ref = "file:{tmp_path}/dsn"')
    assert settings.require_database_url().get_secret_value() == URL


def test_a_credential_leads_to_the_connection_string(tmp_path: Path) -> None:
    """credential:NAME is a file in the directory that the service manager names."""
    (tmp_path / "dsn").write_text(URL, encoding="utf-8")
    environ = {
        "BILLING_DATABASE_URL_REF": "credential:dsn",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    assert from_environment(**environ).require_database_url().get_secret_value() == URL


@pytest.mark.parametrize(
    ("reference", "content", "reason"),
    [
        ("env:NOT_SET", None, "the environment variable NOT_SET is not set"),
        ("file:{directory}/none", None, "{directory}/none: No such file or directory"),
        ("file:{directory}", None, "{directory}: not a regular file"),
        ("file:{directory}/dsn", b" \n", "{directory}/dsn: empty"),
        ("file:{directory}/dsn", b"\xff\xfe", "{directory}/dsn: not UTF-8 text"),
        ("credential:dsn", None, "$CREDENTIALS_DIRECTORY is not set (the service manager sets it)"),
        ("credential:../dsn", None, "must be env:NAME, file:/absolute/path or credential:NAME"),
        ("file:relative", None, "must be env:NAME, file:/absolute/path or credential:NAME"),
        ("env:", None, "must be env:NAME, file:/absolute/path or credential:NAME"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error(
    tmp_path: Path, reference: str, content: bytes | None, reason: str
) -> None:
    """The error names the key of the reference and the place that it leads to."""
    if content is not None:
        (tmp_path / "dsn").write_bytes(content)
    text = error_of(None, {"BILLING_DATABASE_URL_REF": reference.format(directory=tmp_path)})
    expected = reason.format(directory=tmp_path)
    assert text == f"BILLING_DATABASE_URL_REF (environment): {expected}"


def test_a_credential_is_looked_for_next_to_the_file(tmp_path: Path) -> None:
    """Where the service manager names no directory, and also where there is none yet."""
    path = written(tmp_path, 'database_url_ref = "credential:dsn"')
    directory = tmp_path / "credentials"
    assert error_of(str(path), {}) == (
        f"database_url_ref ({path}): {directory}/dsn: No such file or directory"
    )


def test_what_a_reference_leads_to_is_checked(tmp_path: Path) -> None:
    """A file with something else in it is told by its place, without its content."""
    (tmp_path / "dsn").write_text("not-a-url", encoding="utf-8")
    reference = f"file:{tmp_path}/dsn"
    text = error_of(None, {"BILLING_DATABASE_URL_REF": reference})
    assert text == f"database_url (environment, {reference}): must be a postgresql:// URL"


def test_url_and_reference_in_one_place_are_an_error() -> None:
    """Two ways to say the same thing, and nobody to say which counts."""
    text = error_of(None, {"DATABASE_URL": URL, "BILLING_DATABASE_URL_REF": "env:X"})
    assert text == (
        "DATABASE_URL (environment): conflicts with"
        " BILLING_DATABASE_URL_REF (environment), set one of them"
    )


@pytest.mark.parametrize("stronger", ["url", "reference"])
def test_the_environment_hides_the_other_key_of_the_file_too(tmp_path: Path, stronger: str) -> None:
    """Environment over file holds across the two keys for the database."""
    if stronger == "url":
        settings = from_file(tmp_path, 'database_url_ref = "env:NOT_SET"', DATABASE_URL=URL)
    else:
        text = 'database_url = "postgresql://other/account"'
        settings = from_file(tmp_path, text, BILLING_DATABASE_URL_REF="env:DSN", DSN=URL)
    assert settings.require_database_url().get_secret_value() == URL
