"""Contact with a source: its credentials, its transport, and texts that never show the token."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from billing_cli.exporter.address import endpoint_of, proxy_url_of
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.credentials import SecretToken, credential_for
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.tls import TlsContexts, key_file_notes
from billing_cli.exporter.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from billing_cli.config.source import Source
    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.exporter.body import Body
    from billing_cli.exporter.credentials import TokenReference

WINDOW_PATH = "/v1/snapshots/window"
LATEST_PATH = "/v1/snapshots/latest"

_REASON_CHARACTERS = 500

# Shorter tokens may be ordinary words, and turn up in an honest answer, or in an honest name.
_UNMISTAKABLE_CHARACTERS = 16
_UNMISTAKABLE_IN_NAMES = 8
_REFLECTION = "the answer repeats the token that it was asked with"

# Decoding holds the interpreter anyway, so taking turns costs no time and bounds the memory.
_decoding_turn = threading.Lock()


@contextlib.contextmanager
def in_contact(
    source: Source,
    *,
    deadline: float,
    default_token: SecretToken | TokenReference | None = None,
    environ: Mapping[str, str] | None = None,
    contexts: TlsContexts | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Contact]:
    """Yield the means to speak to a source, which end with the block.

    `deadline` is the monotonic second at which the run gives up on all sources. Credentials and
    certificates are read anew. Every ExporterError that leaves the block is one line of bounded
    length, without the token.
    """
    token = default_token if isinstance(default_token, SecretToken) else None
    try:
        credential = credential_for(
            source, os.environ if environ is None else environ, default_token
        )
        token = credential.token
        endpoint = endpoint_of(source)
        context = (contexts or TlsContexts()).context_for(source) if endpoint.secure else None
        notes = [*credential.notes, *key_file_notes(source)]
        if endpoint.exposed and token is not None:
            notes.append(f"the token goes to {endpoint.label} without encryption")
        transport = Transport(
            endpoint,
            context=context,
            server_name=source.server_name,
            proxy_url=proxy_url_of(source),
            token=token,
            timeout_seconds=source.timeout_seconds,
            run_deadline=deadline,
            limits=limits,
            pins=source.pinned_sha256,
        )
        with contextlib.closing(transport):
            yield Contact(transport, token, notes, deadline)
    except ExporterError as error:
        reason = _one_line(error.reason, token)
        raise ExporterError(reason, code=error.code, unreachable=error.unreachable) from None


class Contact:
    """A source that can be asked. `notes` are remarks for the operator on how that is done."""

    def __init__(
        self,
        transport: Transport,
        token: SecretToken | None,
        notes: list[str],
        deadline: float,
    ) -> None:
        self.transport = transport
        self.notes = notes
        self._token = token
        self._deadline = deadline
        self._may_hide_token = (
            token is not None
            and _UNMISTAKABLE_IN_NAMES <= len(token.reveal()) < _UNMISTAKABLE_CHARACTERS
        )

    @property
    def has_token(self) -> bool:
        """Whether a token is sent."""
        return self._token is not None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other source is being decoded; raises ExporterError at the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0 or not _decoding_turn.acquire(timeout=left):
            raise ExporterError(
                "the run's deadline came before the answer was decoded",
                code="timeout",
                unreachable=True,
            )
        try:
            yield
        finally:
            _decoding_turn.release()

    def content(self, body: Body) -> bytes:
        """Return the body, unless it sends our own token back: what it holds may get shown."""
        content = body.read()
        token = "" if self._token is None else self._token.reveal()
        if len(token) >= _UNMISTAKABLE_CHARACTERS:
            if token.encode("latin-1") in content:
                raise ExporterError(_REFLECTION, code="invalid_answer")
            # Spelled with escapes, or in UTF-8, it only shows once it is decoded.
            self._may_hide_token = b"\\" in content or not token.isascii()
        return content

    def check_names(self, identity: NodeIdentity | None, snapshots: Iterable[Snapshot]) -> None:
        """Raise ExporterError where a decoded answer sends our own token back as a name."""
        if self._token is None or not self._may_hide_token:
            return
        names = set(identity or ())
        for snapshot in snapshots:
            names.update(snapshot.identity, snapshot.rejected)
            names.update(name.inbound_tag for name in snapshot.totals)
        if any(self._token.masked(name) != name for name in names):
            raise ExporterError(_REFLECTION, code="invalid_answer")

    def one_line(self, text: str) -> str:
        """Return a text as it may be shown: without the token, on one line, not too long."""
        return _one_line(text, self._token)


def _one_line(text: str, token: SecretToken | None) -> str:
    if token is not None:
        text = token.masked(text)
    line = " ".join(text.split())
    return line if len(line) <= _REASON_CHARACTERS else line[: _REASON_CHARACTERS - 1] + "…"
