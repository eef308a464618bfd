"""The shared token: given as it is, or by reference to where a service manager put it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from billing_cli.config.redaction import redact
from billing_cli.config.settings import load_settings
from tests.config.support import entry, error_of, from_environment, from_file, in_environment

if TYPE_CHECKING:
    from pathlib import Path

BASE = {"EXPORTER_BASE_URL": "https://jp-1.example"}


def test_a_credential_leads_to_the_shared_token(tmp_path: Path) -> None:
    """It counts as the token itself does: sources without one of their own are sent it."""
    (tmp_path / "token").write_text("shared-token\n", encoding="utf-8")
    settings = from_environment(
        **BASE,
        BILLING_INTERNAL_SERVICE_TOKEN_REF="credential:token",
        CREDENTIALS_DIRECTORY=str(tmp_path),
    )
    assert settings.internal_service_token is not None
    assert settings.internal_service_token.get_secret_value() == "shared-token"
    assert settings.origin("internal_service_token") == "environment, credential:token"
    assert settings.sources[0].auth_mode == "bearer"


def test_a_referenced_token_is_masked_like_any_other(tmp_path: Path) -> None:
    """What was read from a file is as secret as what was set."""
    from_file(tmp_path, 'internal_service_token_ref = "env:SHARED"', **BASE, SHARED="the-token")
    assert redact("Bearer the-token") == "Bearer ***"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("env:NOT_SET", "the environment variable NOT_SET is not set"),
        ("credential:t", "$CREDENTIALS_DIRECTORY is not set (the service manager sets it)"),
        ("the-token-itself", "must be env:NAME, file:/absolute/path or credential:NAME"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error(reference: str, reason: str) -> None:
    """The error names the key of the reference, and does not repeat what may be a token."""
    text = error_of(None, {**BASE, "BILLING_INTERNAL_SERVICE_TOKEN_REF": reference})
    assert text == f"BILLING_INTERNAL_SERVICE_TOKEN_REF (environment): {reason}"


def test_what_the_reference_leads_to_is_checked() -> None:
    """A token that no header can carry is told by its place, without its text."""
    reference = {"BILLING_INTERNAL_SERVICE_TOKEN_REF": "env:SHARED", "SHARED": "two words"}
    assert error_of(None, {**BASE, **reference}) == (
        "internal_service_token (environment, env:SHARED):"
        " must be ASCII without white space or control characters"
    )


def test_token_and_reference_in_one_place_are_an_error() -> None:
    """Two ways to say the same thing, and nobody to say which counts."""
    both = {"INTERNAL_SERVICE_TOKEN": "x", "BILLING_INTERNAL_SERVICE_TOKEN_REF": "env:X"}
    assert error_of(None, both) == (
        "INTERNAL_SERVICE_TOKEN (environment): can't stand beside"
        " BILLING_INTERNAL_SERVICE_TOKEN_REF (environment), set one of them"
    )


def test_the_environment_hides_the_other_key_of_the_file_too(tmp_path: Path) -> None:
    """Environment over file holds across the two keys for the token."""
    text = 'internal_service_token_ref = "env:NOT_SET"'
    settings = from_file(tmp_path, text, **BASE, INTERNAL_SERVICE_TOKEN="from-environment")
    assert settings.internal_service_token is not None
    assert settings.internal_service_token.get_secret_value() == "from-environment"


def test_commands_that_ask_no_exporter_do_not_read_the_token() -> None:
    """Whoever may not read it can still look at the status, and the sources are judged the same."""
    environ = in_environment(
        entry(auth_mode="bearer"), BILLING_INTERNAL_SERVICE_TOKEN_REF="credential:token"
    )
    settings = load_settings(None, environ, files_checked=False)
    assert settings.internal_service_token is None
    assert settings.sources[0].auth_mode == "bearer"
