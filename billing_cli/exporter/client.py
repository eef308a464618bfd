"""One source's bounded step: pages fetched, decoded, put in order and cut to whole minutes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.contact import LATEST_PATH, WINDOW_PATH, in_contact
from billing_cli.exporter.decode import Expected, decode_latest, decode_window_page
from billing_cli.exporter.failures import NotFoundError, TooLongError
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.samples import StreamNames
from billing_cli.exporter.steps import IncomparableError, is_new, weight, whole_minutes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.exporter.api import FetchRequest
    from billing_cli.exporter.body import Body
    from billing_cli.exporter.contact import Contact
    from billing_cli.exporter.credentials import SecretToken
    from billing_cli.exporter.decode import Page
    from billing_cli.exporter.source import Contract
    from billing_cli.exporter.tls import TlsContexts

# Exporters may cut `since` to whole seconds.
_EARLY_TOLERANCE = timedelta(seconds=1)


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
    with in_contact(
        request.source,
        deadline=deadline,
        default_token=default_token,
        environ=environ,
        contexts=contexts,
        limits=limits,
    ) as contact:
        try:
            return _Step(request, now, contact, limits).fetched()
        except IncomparableError:
            # Whether both say the same shows once both are decoded.
            return _Step(replace(request, seen=None), now, contact, limits).fetched()


class _Step:
    """The state of one step while its pages come in."""

    def __init__(
        self, request: FetchRequest, now: datetime, contact: Contact, limits: Limits
    ) -> None:
        self.request = request
        self.now = now
        self.contact = contact
        self.limits = limits
        self.notes = list(contact.notes)
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
            with self.contact.transport.get(LATEST_PATH, {}) as body, self.contact.turn():
                snapshot = decode_latest(
                    self.contact.content(body),
                    expected=self.expected,
                    now=self.now,
                    max_decoded_bytes=self.limits.decoded_bytes,
                )
            self.contact.check_names(snapshot.identity, (snapshot,))
        except NotFoundError:
            self.notes.append("HTTP 404: no snapshot yet, or base_url leads elsewhere")
            return self.result("latest", None, (), complete=True)
        return self.result("latest", snapshot.identity, (snapshot,), complete=True)

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
        complete = exhausted and kept == len(self.wanted)
        return self.result("window", self.identity, tuple(self.wanted[:kept]), complete=complete)

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
            try:
                with self.contact.transport.get(WINDOW_PATH, parameters) as body:
                    page = self.decoded(body)
            except TooLongError:
                if parameters["limit"] == "1":
                    raise
                # A node of very many streams: its snapshots fit, if they come one by one.
                parameters["limit"] = "1"
                continue
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
        with self.contact.turn():
            page = decode_window_page(
                self.contact.content(body),
                expected=self.expected,
                now=self.now,
                names=self.names,
                # Looked at once the content is there: names that may hide our token are decoded.
                seen=None if self.contact.may_hide_token else self.request.seen,
                max_decoded_bytes=self.limits.decoded_bytes,
            )
        self.contact.check_names(page.identity, page.snapshots)
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

    def result(
        self,
        contract: Contract,
        identity: NodeIdentity | None,
        snapshots: tuple[Snapshot, ...],
        *,
        complete: bool,
    ) -> Fetched:
        """Return what was fetched, with the notes of the whole step."""
        notes = tuple(map(self.contact.one_line, self.notes))
        return Fetched(contract, identity, snapshots, complete, notes)
