"""One source's bounded step: pages fetched, decoded, put in order and cut to whole minutes."""

from __future__ import annotations

import contextlib
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.exporter.address import endpoint_of, proxy_url_of
from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.credentials import credential_for
from billing_cli.exporter.decode import Expected, decode_latest, decode_window_page
from billing_cli.exporter.failures import NotFoundError
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.samples import StreamNames
from billing_cli.exporter.sockets import Deadline
from billing_cli.exporter.steps import is_new, weight, whole_minutes
from billing_cli.exporter.tls import TlsContexts, key_file_notes
from billing_cli.exporter.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.exporter.api import FetchRequest
    from billing_cli.exporter.body import Body
    from billing_cli.exporter.credentials import SecretToken
    from billing_cli.exporter.decode import Page

_WINDOW_PATH = "/v1/snapshots/window"
_LATEST_PATH = "/v1/snapshots/latest"

# Exporters may cut `since` to whole seconds.
_EARLY_TOLERANCE = timedelta(seconds=1)
_REASON_CHARACTERS = 500

# Shorter tokens may be ordinary words, and turn up in an honest answer.
_UNMISTAKABLE_CHARACTERS = 16

# Decoding holds the interpreter anyway, so taking turns costs no time and bounds the memory.
_decoding_turn = threading.Lock()


def fetch(
    request: FetchRequest,
    *,
    now: datetime,
    deadline: float,
    default_token: SecretToken | None = None,
    environ: Mapping[str, str] | None = None,
    contexts: TlsContexts | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Fetched:
    """Return what a source has for a step.

    `now` is the wall clock, against which stamps in the future are recognised; `deadline` is the
    monotonic second at which the run gives up on all sources, beside the source's own
    `timeout_seconds` for each page. Credentials and certificates are read anew. Raises
    ExporterError with one line that holds no secret.
    """
    source = request.source
    token = default_token
    try:
        credential = credential_for(source, os.environ if environ is None else environ, token)
        token = credential.token
        endpoint = endpoint_of(source)
        context = (contexts or TlsContexts()).context_for(source) if endpoint.secure else None
        transport = Transport(
            endpoint,
            context=context,
            server_name=source.server_name,
            proxy_url=proxy_url_of(source),
            token=token,
            timeout_seconds=source.timeout_seconds,
            run_deadline=deadline,
            limits=limits,
        )
        with contextlib.closing(transport):
            step = _Step(request, now, Deadline(deadline), transport, token, limits)
            step.notes += [*credential.notes, *key_file_notes(source)]
            if endpoint.exposed and token is not None:
                step.notes.append(f"the token goes to {endpoint.label} without encryption")
            return _without_secrets(step.fetched(), token)
    except ExporterError as error:
        reason = _one_line(error.reason, token)
        raise ExporterError(reason, unreachable=error.unreachable) from None


class _Step:
    """The state of one step while its pages come in."""

    def __init__(
        self,
        request: FetchRequest,
        now: datetime,
        deadline: Deadline,
        transport: Transport,
        token: SecretToken | None,
        limits: Limits,
    ) -> None:
        self.request = request
        self.now = now
        self.deadline = deadline
        self.transport = transport
        self.token = token
        self.limits = limits
        self.notes: list[str] = []
        self.expected = Expected(request.source.expected_node_id, request.source.expected_env)
        self.answered = False
        self.identity: NodeIdentity | None = None
        self.names = StreamNames()
        self.last: Snapshot | None = None
        self.wanted: list[Snapshot] = []
        self.samples = 0
        self.early = self.late = 0

    def fetched(self) -> Fetched:
        """Return the step, by whichever contract the source speaks."""
        mode = self.request.source.mode
        if mode == "latest":
            return self.latest()
        try:
            return self.window()
        except NotFoundError:
            if mode == "window" or self.answered:
                raise ExporterError(
                    "HTTP 404: the exporter has no windowed snapshots at this address"
                ) from None
            return self.latest()

    def latest(self) -> Fetched:
        """Return the one snapshot on offer, whatever its minute."""
        try:
            with self.transport.get(_LATEST_PATH, {}) as body, self.turn():
                snapshot = decode_latest(
                    self.content(body),
                    expected=self.expected,
                    now=self.now,
                    max_decoded_bytes=self.limits.decoded_bytes,
                )
        except NotFoundError:
            self.notes.append("HTTP 404: no snapshot yet, or base_url leads elsewhere")
            return Fetched("latest", None, (), complete=True, notes=tuple(self.notes))
        return Fetched(
            "latest", snapshot.identity, (snapshot,), complete=True, notes=tuple(self.notes)
        )

    def window(self) -> Fetched:
        """Return the snapshots of the window, as far as the step reaches."""
        kept = 0
        exhausted = False
        for page in self.pages():
            exhausted = self.take(page)
            if exhausted or self.samples >= self.request.max_samples:
                kept = whole_minutes(
                    self.wanted,
                    since=self.request.since,
                    max_samples=self.request.max_samples,
                    exhausted=exhausted,
                )
            if exhausted or kept:
                break
            if self.samples > self.request.max_samples + self.limits.minute_samples:
                raise ExporterError(f"more than {self.limits.minute_samples} samples in one minute")
        if self.early or self.late:
            self.notes.append(
                f"the exporter sent {self.early + self.late} snapshots from outside the window"
            )
        return Fetched(
            "window",
            self.identity,
            tuple(self.wanted[:kept]),
            complete=exhausted and kept == len(self.wanted),
            notes=tuple(self.notes),
        )

    def pages(self) -> Iterator[Page]:
        """Yield the pages; raises ExporterError where they would never end."""
        request = self.request
        parameters = {
            "since": format_rfc3339(request.since),
            "until": format_rfc3339(max(request.since, request.until)),
            "limit": str(request.page_limit),
        }
        cursors: set[str] = set()
        was_empty = False
        for _ in range(self.limits.pages):
            with self.transport.get(_WINDOW_PATH, parameters) as body:
                page = self.decoded(body)
            yield page
            if page.next_cursor is None:
                return
            if page.next_cursor in cursors:
                raise ExporterError("the exporter repeats a cursor")
            if was_empty and not page.snapshots:
                raise ExporterError("two empty pages in a row that promise more")
            was_empty = not page.snapshots
            cursors.add(page.next_cursor)
            parameters["cursor"] = page.next_cursor
        raise ExporterError(f"more than {self.limits.pages} pages")

    def decoded(self, body: Body) -> Page:
        """Return the decoded page, once it is this source's turn."""
        with self.turn():
            page = decode_window_page(
                self.content(body),
                expected=self.expected,
                now=self.now,
                names=self.names,
                max_decoded_bytes=self.limits.decoded_bytes,
            )
        if None not in (page.identity, self.identity) and page.identity != self.identity:
            raise ExporterError("the pages of one window are of different nodes")
        self.answered = True
        self.identity = self.identity or page.identity
        return page

    def take(self, page: Page) -> bool:
        """Add a page's snapshots; true where the source has nothing more before `until`."""
        since, until = self.request.since, self.request.until
        for snapshot in page.snapshots:
            if not is_new(self.last, snapshot):
                continue
            self.last = snapshot
            if snapshot.collected_at >= until:
                self.late += snapshot.collected_at > until
            elif snapshot.collected_at < since:
                self.early += snapshot.collected_at < since - _EARLY_TOLERANCE
            else:
                self.wanted.append(snapshot)
                self.samples += weight(snapshot)
        return not page.has_more or (self.last is not None and self.last.collected_at >= until)

    def content(self, body: Body) -> bytes:
        """Return the body, unless it sends our own token back: what it holds may get shown."""
        content = body.read()
        token = "" if self.token is None else self.token.reveal()
        if len(token) >= _UNMISTAKABLE_CHARACTERS and token.encode("latin-1") in content:
            raise ExporterError("the answer repeats the token that it was asked with")
        return content

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other source is being decoded."""
        try:
            taken = _decoding_turn.acquire(timeout=self.deadline.remaining())
        except TimeoutError:
            taken = False
        if not taken:
            raise ExporterError(
                "the run's deadline came before the answer was decoded", unreachable=True
            )
        try:
            yield
        finally:
            _decoding_turn.release()


def _without_secrets(fetched: Fetched, token: SecretToken | None) -> Fetched:
    notes = tuple(_one_line(note, token) for note in fetched.notes)
    return Fetched(fetched.contract, fetched.identity, fetched.snapshots, fetched.complete, notes)


def _one_line(text: str, token: SecretToken | None) -> str:
    """Return a text as a reason may be: without the token, on one line, of bounded length."""
    if token is not None:
        text = token.masked(text)
    line = " ".join(text.split())
    return line if len(line) <= _REASON_CHARACTERS else line[: _REASON_CHARACTERS - 1] + "…"
