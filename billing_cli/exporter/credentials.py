"""Bearer tokens: where they come from, read anew at every run, and never shown."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from billing_cli.exporter.api import CredentialsError
from billing_cli.references import check_reference, read_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from billing_cli.config.source import Source

_READABLE_BY_OTHERS = stat.S_IROTH
_SHORTEST_SAFE = 16
_SHORT = f"the token is shorter than {_SHORTEST_SAFE} characters: it can be guessed"


class SecretToken:
    """A token that does not show itself: only `reveal()` gives the text away.

    Its repr, its str and its formatting are masked, and it refuses to be pickled.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the token's text, for the one header that carries it."""
        return self._text

    def masked(self, text: str) -> str:
        """Return a text with every occurrence of the token, plain or quoted, masked."""
        for form in (self._text, repr(self._text)[1:-1], ascii(self._text)[1:-1]):
            text = text.replace(form, "***")
        return text

    def __repr__(self) -> str:
        return "SecretToken(***)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretToken is not to be stored")


@dataclass(frozen=True, slots=True)
class Credential:
    """The token to send, if any, and remarks on how it is kept."""

    token: SecretToken | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenReference:
    """A default token that is read when a source needs it: one that cannot be read fails those."""

    ref: str


def credential_for(
    source: Source,
    environ: Mapping[str, str],
    default_token: SecretToken | TokenReference | None,
) -> Credential:
    """Return the token of a source: its own, or else the default where its mode allows one.

    A source with `auth_mode` mtls or none is never sent the default token. Raises CredentialsError
    where the source's token cannot be read, or is needed and missing.
    """
    if source.credential_ref is not None:
        token = read_credential(source.credential_ref, environ)
        return Credential(token, (*_file_notes(source.credential_ref), *_length_notes(token)))
    if source.auth_mode != "bearer":
        return Credential(None)
    if default_token is None:
        raise CredentialsError("auth_mode bearer needs a credential_ref or a default token")
    if isinstance(default_token, TokenReference):
        token = read_credential(default_token.ref, environ)
        return Credential(token, _length_notes(token))
    _check_text(default_token.reveal(), "the default token")
    return Credential(default_token, _length_notes(default_token))


def read_credential(ref: str, environ: Mapping[str, str]) -> SecretToken:
    """Return the token behind `env:NAME`, `file:/path` or `credential:NAME`.

    `credential:` names a file under `$CREDENTIALS_DIRECTORY`, where systemd puts them. White space
    around the token is dropped. Raises CredentialsError, which names the reference and never the
    content, where there is no token, or one that no HTTP header can carry.
    """
    try:
        check_reference(ref)
    except ValueError:
        # Not repeated: the token itself may have been put here.
        raise CredentialsError(
            "credential_ref is none of env:NAME, file:/path, credential:NAME"
        ) from None
    try:
        text = read_secret(ref, environ)
    except ValueError as error:
        raise CredentialsError(f"credential_ref {ref}: {error}") from None
    _check_text(text, f"credential_ref {ref}")
    return SecretToken(text)


def _check_text(text: str, what: str) -> None:
    if not text:
        raise CredentialsError(f"{what}: the token is empty")
    if not text.isprintable():
        raise CredentialsError(f"{what}: the token holds a line break or another control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise CredentialsError(f"{what}: the token holds characters beyond Latin-1") from None


def _length_notes(token: SecretToken) -> tuple[str, ...]:
    return (_SHORT,) if len(token.reveal()) < _SHORTEST_SAFE else ()


def _file_notes(ref: str) -> tuple[str, ...]:
    scheme, _, name = ref.partition(":")
    if scheme != "file":
        return ()
    try:
        mode = Path(name).stat().st_mode
    except OSError:
        return ()  # Replaced this very moment; the next run looks again.
    if mode & _READABLE_BY_OTHERS:
        return (f"the token file {name} can be read by every user of this machine",)
    return ()
