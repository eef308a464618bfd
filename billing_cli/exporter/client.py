"""One source's bounded step: pages fetched, decoded, put in order and cut to whole minutes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.times import format_rfc3339
from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.contact import LATEST_PATH, WINDOW_PATH, in_contact
from billing_cli.exporter.decode import Decoder, Expected
from billing_cli.exporter.failures import (
    NO_WINDOW,
    USE_ANOTHER_MODE,
    CutShortError,
    NotFoundError,
    TooLargeError,
)
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.steps import StepSnapshots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.exporter.api import Contract, FetchRequest
    from billing_cli.exporter.contact import Contact
    from billing_cli.exporter.credentials import SecretToken, TokenReference
    from billing_cli.exporter.decode import Page
    from billing_cli.exporter.tls import TlsContexts

# The snapshot at the watermark and the next one: what a run needs that is on time.
_FIRST_PAGE_SNAPSHOTS = 2
# A source that has used this part of the run's time ends with what it has; the next run goes on.
_SHARE_OF_TIME = 0.5
# What real exporters send at most, whatever they are asked for.
_MOST_PAGE_SNAPSHOTS = 1000


def fetch(
    request: FetchRequest,
    *,
    now: datetime,
    deadline: float,
    default_token: SecretToken | TokenReference | None = None,
    environ: Mapping[str, str] | None = None,
    contexts: TlsContexts | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Fetched:
    """Return what a source has for a step.

    `now` is the wall clock, against which stamps in the future are recognised; `deadline` is the
    monotonic second at which the run gives up on all sources, in addition to the source's own
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
        began = time.monotonic()
        late_at = began + (deadline - began) * _SHARE_OF_TIME
        return _Step(request, now, contact, limits, late_at).fetched()


class _Step:
    """The state of one step while its pages come in."""

    def __init__(
        self,
        request: FetchRequest,
        now: datetime,
        contact: Contact,
        limits: Limits,
        late_at: float,
    ) -> None:
        source = request.source
        self.request = request
        self.contact = contact
        self.limits = limits
        self.late_at = late_at
        self.notes = list(contact.notes)
        expected = Expected(source.expected_node_id, source.expected_env)
        self.decoder = Decoder(now, expected, limits, renamed=request.renamed)
        self.snapshots = StepSnapshots(request, limits)
        self.has_window = False
        self.identity: NodeIdentity | None = None

    def fetched(self) -> Fetched:
        """Return the step, by whichever contract the source speaks."""
        mode = self.request.source.mode
        if mode == "latest":
            return self.latest()
        try:
            return self.window()
        except NotFoundError:
            if mode == "window" or self.has_window:
                reason = NO_WINDOW + (USE_ANOTHER_MODE if mode == "window" else "")
                raise ExporterError(reason, code="http_status") from None
            return self.latest()

    def latest(self) -> Fetched:
        """Return the one snapshot on offer, whatever its minute."""
        try:
            with self.contact.transport.get(LATEST_PATH, {}) as body, self.contact.turn():
                snapshot = self.decoder.latest(self.contact.content(body))
            self.contact.check_names(snapshot.identity, (snapshot,))
        except NotFoundError:
            if self.request.has_watermark:
                raise ExporterError(
                    "HTTP 404: the exporter had snapshots before and has none now; "
                    "check base_url, and whether its snapshot API is on",
                    code="http_status",
                ) from None
            self.notes.append("HTTP 404: no snapshot yet, or base_url leads elsewhere")
            return self.result("latest", None, (), complete=True)
        return self.result("latest", snapshot.identity, (snapshot,), complete=True)

    def window(self) -> Fetched:
        """Return the snapshots of the window, as far as the step reaches."""
        for page in self.pages():
            is_late = time.monotonic() > self.late_at
            if self.snapshots.add(page.snapshots, has_more=page.has_more, is_late=is_late):
                break
        if self.snapshots.outside:
            self.notes.append(
                f"the exporter sent {self.snapshots.outside} snapshots from outside the window"
            )
        if self.snapshots.skipped:
            self.notes.append(
                f"{self.snapshots.skipped} snapshots were skipped, as there are too many in one "
                "minute: the last of the minute has their bytes"
            )
        return self.result(
            "window", self.identity, self.snapshots.kept, complete=self.snapshots.complete
        )

    def pages(self) -> Iterator[Page]:
        """Yield the pages; raises ExporterError where they would never end."""
        request = self.request
        parameters = {
            "since": format_rfc3339(request.since),
            # Both ends are inclusive on the wire, and the snapshot at `until` is not wanted.
            "until": format_rfc3339(max(request.since, request.until - timedelta.resolution)),
        }
        cursors: set[str] = set()
        newest: datetime | None = None
        is_stale = is_single = False
        for _ in range(self.limits.pages):
            limit = 1 if is_single else self.page_limit()
            try:
                page = self.page(parameters | {"limit": str(limit)})
            except (CutShortError, TooLargeError):
                if limit == 1:
                    raise
                # The snapshots of a node of very many streams may fit one by one.
                is_single = True
                continue
            if page.next_cursor in cursors:
                raise ExporterError("the exporter repeats a cursor", code="cursor")
            yield page
            if page.next_cursor is None:
                return
            last = page.snapshots[-1].collected_at if page.snapshots else None
            is_later = last is not None and (newest is None or last > newest)
            # One may be empty, or repeat the end of the page before it: ends are inclusive.
            if is_stale and not is_later:
                raise ExporterError(
                    "two pages in a row without a later snapshot promise more", code="cursor"
                )
            newest, is_stale = (last, False) if is_later else (newest, True)
            cursors.add(page.next_cursor)
            parameters["cursor"] = page.next_cursor
        raise ExporterError(f"more than {self.limits.pages} pages", code="cursor")

    def page_limit(self) -> int:
        """Return how many snapshots to ask for: few, until it is known how large they are."""
        largest = self.snapshots.largest
        wanted = self.limits.wanted_samples // largest if largest else _FIRST_PAGE_SNAPSHOTS
        return max(1, min(wanted, self.request.page_limit, _MOST_PAGE_SNAPSHOTS))

    def page(self, parameters: Mapping[str, str]) -> Page:
        """Return one page, decoded once it is this source's turn."""
        with self.contact.transport.get(WINDOW_PATH, parameters) as body, self.contact.turn():
            page = self.decoder.page(self.contact.content(body))
        self.contact.check_names(page.identity, page.snapshots)
        if None not in (page.identity, self.identity) and page.identity != self.identity:
            raise ExporterError(
                "the pages of one window are of different nodes", code="wrong_identity"
            )
        self.has_window = True
        self.identity = self.identity or page.identity
        return page

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
