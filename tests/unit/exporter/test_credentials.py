from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from billing_cli.config.source import Source
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.credentials import (
    SecretToken,
    TokenReference,
    credential_for,
    read_credential,
)

if TYPE_CHECKING:
    from pathlib import Path

    from billing_cli.config.source import AuthMode

MARKER = "marker-7f3a9c-token"
DEFAULT = SecretToken("default-token")


def test_a_token_comes_from_the_environment() -> None:
    """White space around it is dropped."""
    assert read_credential("env:TOKEN", {"TOKEN": f" {MARKER}\n"}).reveal() == MARKER


def test_a_token_comes_from_a_file(tmp_path: Path) -> None:
    """The file is read anew each time, so a replaced one needs no restart."""
    path = written(tmp_path / "token", b"first\n")
    assert read_credential(f"file:{path}", {}).reveal() == "first"
    written(path, b"second\r\n")
    assert read_credential(f"file:{path}", {}).reveal() == "second"


def test_a_token_comes_from_the_credentials_directory(tmp_path: Path) -> None:
    """The service manager says where it put the file."""
    written(tmp_path / "jp-1", MARKER.encode())
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_credential("credential:jp-1", environ).reveal() == MARKER


@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ("env:MISSING", "the environment variable MISSING is not set"),
        ("env:EMPTY", "the environment variable EMPTY is not set"),
        ("env:BLANK", "the token is empty"),
        ("env:BROKEN", "a line break or another control character"),
        ("env:TAB", "a line break or another control character"),
        ("env:WIDE", "characters beyond Latin-1"),
        ("file:{tmp}/missing", "No such file or directory"),
        ("file:{tmp}", "not a regular file"),
        ("file:{tmp}/empty", "empty: empty"),
        ("file:{tmp}/half", "a line break or another control character"),
        ("file:{tmp}/binary", "not UTF-8"),
        ("file:{tmp}/large", "too large"),
        ("file:{tmp}/pipe", "not a regular file"),
        ("credential:missing", "No such file or directory"),
    ],
)
def test_an_unusable_token_is_named_and_not_shown(tmp_path: Path, ref: str, why: str) -> None:
    """The reason names the reference; of the content there is nothing in it."""
    written(tmp_path / "empty", b"\n")
    written(tmp_path / "half", f"{MARKER}\n{MARKER}".encode())
    written(tmp_path / "binary", MARKER.encode() + b"\xff")
    written(tmp_path / "large", MARKER.encode() * 4000)
    os.mkfifo(tmp_path / "pipe")
    environ = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "EMPTY": "",
        "BLANK": " \n",
        "BROKEN": f"{MARKER}\r\nX-Evil: 1",
        "TAB": f"{MARKER}\t{MARKER}",
        "WIDE": f"{MARKER}\N{SNOWMAN}",
    }
    ref = ref.format(tmp=tmp_path)
    with pytest.raises(ExporterError) as caught:
        read_credential(ref, environ)
    assert why in caught.value.reason
    assert ref in caught.value.reason
    assert MARKER not in caught.value.reason


def test_a_credential_needs_its_directory() -> None:
    """Without systemd there is none."""
    with pytest.raises(ExporterError, match="CREDENTIALS_DIRECTORY is not set"):
        read_credential("credential:jp-1", {})


@pytest.mark.parametrize(
    "ref",
    [MARKER, f"token:{MARKER}", "", "env:", "file:relative", "file:/nul\0", "credential:../token"],
)
def test_a_reference_of_no_kind_is_not_repeated(ref: str) -> None:
    """Somebody may have put the token itself there."""
    with pytest.raises(ExporterError, match="none of env:NAME") as caught:
        read_credential(ref, {})
    assert MARKER not in caught.value.reason


@pytest.mark.parametrize(
    ("mode", "own", "sent"),
    [
        ("none", None, None),
        ("bearer", None, "default-token"),
        ("mtls", None, None),
        ("none", "env:OWN", "own-token"),
        ("bearer", "env:OWN", "own-token"),
        ("mtls", "env:OWN", "own-token"),
    ],
)
def test_a_source_gets_its_own_token_or_the_default(
    mode: AuthMode, own: str | None, sent: str | None
) -> None:
    """The default is for sources without one of their own, and never for certificate holders."""
    source = Source("jp-1", "https://jp-1.example", auth_mode=mode, credential_ref=own)
    token = credential_for(source, {"OWN": "own-token"}, DEFAULT).token
    assert (token.reveal() if token else None) == sent


def test_an_unreadable_token_is_not_replaced_by_the_default() -> None:
    """Another token would reach a host that it is not meant for."""
    source = Source("jp-1", "https://jp-1.example", credential_ref="env:MISSING")
    with pytest.raises(ExporterError, match="env:MISSING"):
        credential_for(source, {}, DEFAULT)


def test_bearer_without_any_token_is_an_error() -> None:
    """Asking without one could only be refused."""
    source = Source("jp-1", "https://jp-1.example", auth_mode="bearer")
    with pytest.raises(ExporterError, match="needs a credential_ref or a default token"):
        credential_for(source, {}, None)


def test_a_default_token_may_be_a_reference(tmp_path: Path) -> None:
    """It is read for the sources that need it, so one that cannot be read fails those alone."""
    (tmp_path / "token").write_text("shared\n")
    bearer = Source("jp-1", "https://jp-1.example", auth_mode="bearer")
    open_source = Source("us-2", "https://us-2.example")
    token = credential_for(bearer, {}, TokenReference(f"file:{tmp_path}/token")).token
    assert token is not None
    assert token.reveal() == "shared"
    missing = TokenReference(f"file:{tmp_path}/missing")
    assert credential_for(open_source, {}, missing).token is None
    with pytest.raises(ExporterError, match="No such file") as caught:
        credential_for(bearer, {}, missing)
    assert caught.value.code == "credentials"


def test_a_default_token_that_no_header_can_carry_is_an_error() -> None:
    """It is named by its role and not shown."""
    source = Source("jp-1", "https://jp-1.example", auth_mode="bearer")
    with pytest.raises(ExporterError, match="the default token: ") as caught:
        credential_for(source, {}, SecretToken(f"{MARKER}\n{MARKER}"))
    assert MARKER not in caught.value.reason


def test_a_token_file_for_everybody_is_remarked_upon(tmp_path: Path) -> None:
    """The file is named; one for owner and group is in order."""
    path = written(tmp_path / "token", MARKER.encode())
    source = Source("jp-1", "https://jp-1.example", credential_ref=f"file:{path}")
    path.chmod(0o640)
    assert credential_for(source, {}, None).notes == ()
    path.chmod(0o644)
    (note,) = credential_for(source, {}, None).notes
    assert str(path) in note
    assert MARKER not in note


def test_a_token_is_masked_in_texts() -> None:
    """Plain and quoted, however short it is."""
    token = SecretToken("it's \\ secret")
    assert token.masked(f"<it's \\ secret> {'it' + chr(39) + 's ' + chr(92) + ' secret'!r}") == (
        '<***> "***"'
    )
    assert SecretToken("abc").masked("abc, a") == "***, a"


def test_a_short_token_is_remarked_upon() -> None:
    """Its own, or the default one: whoever can guess it can ask every exporter that takes it."""
    own = Source("jp-1", "https://jp-1", auth_mode="bearer", credential_ref="env:OWN")
    shared = Source("jp-1", "https://jp-1", auth_mode="bearer")
    short = ("the token is shorter than 16 characters: it can be guessed",)
    assert credential_for(own, {"OWN": "x" * 15}, None).notes == short
    assert credential_for(own, {"OWN": "x" * 16}, None).notes == ()
    assert credential_for(shared, {}, SecretToken("x" * 15)).notes == short


def written(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path
