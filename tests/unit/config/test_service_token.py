"""The shared token: given as it is, or by reference to where a service manager put it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.config.redaction import redact
from billing_cli.config.settings import load_settings
from tests.unit.config.support import entry, error_of, from_file, in_environment

if TYPE_CHECKING:
    from pathlib import Path

BASE = {"EXPORTER_BASE_URL": "https://jp-1.example"}


def test_a_reference_to_the_shared_token_is_that_of_each_source_without_one() -> None:
    """Where it leads nowhere, these sources fail, and those with a token of their own do not."""
    settings = load_settings(
        None,
        in_environment(
            entry("jp-1"),
            entry("jp-2", credential_ref="env:JP_2"),
            entry("jp-3", auth_mode="none"),
            entry("jp-4", client_cert="/cert", client_key="/key"),
            BILLING_INTERNAL_SERVICE_TOKEN_REF="credential:token",
        ),
    )
    assert {source.source_id: source.credential_ref for source in settings.sources} == {
        "jp-1": "credential:token",
        "jp-2": "env:JP_2",
        "jp-3": None,
        "jp-4": None,
    }
    assert settings.sources[0].auth_mode == "bearer"


def test_a_referenced_token_is_masked_like_any_other(tmp_path: Path) -> None:
    """What was read from a file is as secret as what was set."""
    from_file(tmp_path, 'internal_service_token_ref = "env:SHARED"', **BASE, SHARED="the-token")
    assert redact("Bearer the-token") == "Bearer ***"


def test_a_reference_in_the_wrong_form_is_an_error() -> None:
    """The error names the key of the reference, and does not repeat what may be a token."""
    text = error_of(None, {**BASE, "BILLING_INTERNAL_SERVICE_TOKEN_REF": "the-token-itself"})
    assert text == (
        "BILLING_INTERNAL_SERVICE_TOKEN_REF (environment):"
        " must be env:NAME, file:/absolute/path or credential:NAME"
    )


def test_token_and_reference_in_one_place_are_an_error() -> None:
    """Two ways to say the same thing, and nobody to say which counts."""
    both = {"INTERNAL_SERVICE_TOKEN": "x", "BILLING_INTERNAL_SERVICE_TOKEN_REF": "env:X"}
    assert error_of(None, both) == (
        "INTERNAL_SERVICE_TOKEN (environment): conflicts with"
        " BILLING_INTERNAL_SERVICE_TOKEN_REF (environment), set one of them"
    )


def test_the_environment_hides_the_other_key_of_the_file_too(tmp_path: Path) -> None:
    """Environment over file holds across the two keys for the token."""
    text = 'internal_service_token_ref = "env:NOT_SET"'
    settings = from_file(tmp_path, text, **BASE, INTERNAL_SERVICE_TOKEN="from-environment")
    assert settings.internal_service_token is not None
    assert settings.internal_service_token.get_secret_value() == "from-environment"
