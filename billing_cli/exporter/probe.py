"""Asking a source who and how it is, without taking anything from it.

What it answers goes through the same transport, limits and strict decoding as what is billed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from billing_cli.core.source_facts import Failure, SourceFacts
from billing_cli.core.times import format_rfc3339
from billing_cli.exporter.address import endpoint_of
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.contact import LATEST_PATH, WINDOW_PATH, in_contact
from billing_cli.exporter.credentials import credential_for
from billing_cli.exporter.decode import Decoder
from billing_cli.exporter.expiry import expiries_in, not_after
from billing_cli.exporter.failures import DENIED, NO_WINDOW, USE_ANOTHER_MODE, NotFoundError
from billing_cli.exporter.fleet import concurrently
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.steps import weight
from billing_cli.exporter.tls import TlsContexts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from billing_cli.config.source import Source
    from billing_cli.core.model import NodeIdentity
    from billing_cli.core.source_facts import Stage
    from billing_cli.exporter.contact import Contact
    from billing_cli.exporter.credentials import SecretToken, TokenReference
    from billing_cli.exporter.decode import Page

# Further than any exporter keeps history, so that the first snapshot of the answer is its oldest.
_FAR_BACK = timedelta(days=30)
# Where there is no latest snapshot to ask for, the newest one is looked for among these.
_RECENTLY = timedelta(minutes=10)
_AHEAD = timedelta(minutes=5)
_RECENT_LIMIT = 60
_RECENT_PAGES = 20
_HALF_A_SECOND = 0.5


def probe_all(
    sources: Sequence[Source],
    *,
    now: datetime,
    concurrency: int,
    deadline_seconds: float,
    default_token: SecretToken | TokenReference | None,
) -> dict[str, SourceFacts]:
    """Return what asking each source shows, by its id, after `deadline_seconds` at the latest."""
    work = functools.partial(probe, now=now, default_token=default_token, contexts=TlsContexts())
    answers = concurrently(
        sources, work, concurrency=concurrency, deadline_seconds=deadline_seconds
    )
    return {
        source.source_id: SourceFacts(failure=Failure("connection", answer.reason))
        if isinstance(answer, ExporterError)
        else answer
        for source, answer in answers
    }


def shared_tokens(
    sources: Sequence[Source],
    default_token: SecretToken | TokenReference | None,
    environ: Mapping[str, str] | None = None,
) -> list[tuple[str, ...]]:
    """Return the ids of sources that are sent the same token; those without one are left out."""
    environ = os.environ if environ is None else environ
    by_token: dict[str, list[str]] = {}
    for source in sources:
        with contextlib.suppress(ExporterError):
            found = credential_for(source, environ, default_token)
            if found.token is not None:
                by_token.setdefault(found.token.reveal(), []).append(source.source_id)
    return [tuple(ids) for ids in by_token.values() if len(ids) > 1]


def probe(
    source: Source,
    *,
    now: datetime,
    deadline: float,
    default_token: SecretToken | TokenReference | None = None,
    environ: Mapping[str, str] | None = None,
    contexts: TlsContexts | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> SourceFacts:
    """Return what asking a source shows. Never raises ExporterError: that is one of the facts.

    `now` is the wall clock at the start and `deadline` the monotonic second at which to give up.
    The node is reported, not compared with the expected one.
    """
    asking = _Asking(source, now, limits)
    stage: Stage = "credentials"
    try:
        with in_contact(
            source,
            deadline=deadline,
            default_token=default_token,
            environ=environ,
            contexts=contexts,
            limits=limits,
        ) as contact:
            try:
                asking.note_files(contact)
                asking.ask(contact)
            except ExporterError:
                stage = _stage_of(contact)
                raise
            finally:
                asking.note_connection(contact)
    except ExporterError as error:
        asking.facts["failure"] = Failure(stage, error.reason)
    return SourceFacts(**asking.facts)


class _Asking:
    """What is known of a source so far, as `facts` by name."""

    def __init__(self, source: Source, now: datetime, limits: Limits) -> None:
        self.source = source
        self.now = now
        self.limits = limits
        self.decoder = Decoder(now, limits=limits)
        self.recent_limit = _RECENT_LIMIT
        self.started_at = time.monotonic()
        self.facts: dict[str, Any] = {}

    def note_files(self, contact: Contact) -> None:
        """Note what we prove ourselves with, and whom the source's own bundle trusts."""
        source = self.source
        shown = [] if source.client_cert is None else ["client certificate"]
        if contact.has_token:
            shown.append("token" if source.credential_ref is not None else "shared token")
        self.facts["shown"] = tuple(shown)
        self.facts["notes"] = tuple(map(contact.one_line, contact.notes))
        if source.client_cert is not None and (expiries := _expiries(source.client_cert)):
            # Only the first is ours; those after it lead to the authority.
            self.facts["client_certificate_expires_at"] = expiries[0]
        if source.ca_bundle is not None and (expiries := _expiries(source.ca_bundle)):
            self.facts["authorities_expire_at"] = max(expiries)

    def note_connection(self, contact: Contact) -> None:
        """Note what the connection itself showed, however the asking ended."""
        endpoint = endpoint_of(self.source)
        protocol, certificate = contact.transport.handshake
        self.facts |= {
            "endpoint": endpoint.label,
            "is_exposed": endpoint.exposed,
            "protocol": protocol,
            "has_answered": contact.transport.last_head is not None,
        }
        if certificate:
            with contextlib.suppress(ValueError):
                self.facts["certificate_expires_at"] = not_after(certificate)

    def ask(self, contact: Contact) -> None:
        """Ask for the oldest snapshot and for the newest, by the contract that the exporter has."""
        oldest = self.oldest(contact)
        newest = self.newest(contact)
        self.facts["asked_at"] = self.now + timedelta(seconds=time.monotonic() - self.started_at)
        if newest is None:
            return
        self.facts["newest_at"], self.facts["identity"] = newest
        if oldest is not None and oldest[1] != newest[1]:
            raise ExporterError("the oldest snapshot and the newest one are of different nodes")

    def oldest(self, contact: Contact) -> tuple[datetime, NodeIdentity] | None:
        """Return stamp and node of the oldest snapshot in a windowed exporter's history."""
        if self.source.mode == "latest":
            return None
        try:
            page = self.page(contact, since=self.now - _FAR_BACK, until=self.now, limit=1)
        except NotFoundError:
            if self.source.mode == "window":
                reason = NO_WINDOW + USE_ANOTHER_MODE
                raise ExporterError(reason, code="http_status") from None
            return None
        self.facts["contract"] = "window"
        if not page.snapshots:
            return None
        first = page.snapshots[0]
        fitting = self.limits.wanted_samples // weight(first)
        self.recent_limit = max(1, min(fitting, _RECENT_LIMIT))
        self.facts |= {"oldest_at": first.collected_at, "identity": first.identity}
        return first.collected_at, first.identity

    def newest(self, contact: Contact) -> tuple[datetime, NodeIdentity] | None:
        """Return stamp and node of the newest snapshot, None where it is not found."""
        if self.facts.get("contract") != "window":
            return self.latest(contact)
        # A windowed exporter need not have anything else, but asking for one snapshot is less.
        with contextlib.suppress(ExporterError):
            return self.latest(contact)
        return self.newest_in_window(contact)

    def latest(self, contact: Contact) -> tuple[datetime, NodeIdentity]:
        """Return stamp and node of the latest snapshot."""
        try:
            with contact.transport.get(LATEST_PATH, {}) as body, contact.turn():
                self.note_answer(contact)
                snapshot = self.decoder.latest(contact.content(body))
            contact.check_names(snapshot.identity, (snapshot,))
        except NotFoundError:
            raise ExporterError("HTTP 404: no snapshot yet, or base_url leads elsewhere") from None
        self.facts.setdefault("contract", "latest")
        return snapshot.collected_at, snapshot.identity

    def newest_in_window(self, contact: Contact) -> tuple[datetime, NodeIdentity] | None:
        """Return stamp and node of the last snapshot of the last minutes, as far as pages go."""
        newest, cursor = None, None
        self.facts["searched_since"] = self.now - _RECENTLY
        for _ in range(_RECENT_PAGES):
            page = self.page(
                contact,
                since=self.now - _RECENTLY,
                until=self.now + _AHEAD,
                limit=self.recent_limit,
                cursor=cursor,
            )
            if page.snapshots:
                newest = page.snapshots[-1].collected_at, page.snapshots[-1].identity
            if page.next_cursor is None:
                break
            if page.next_cursor == cursor:
                raise ExporterError("the exporter repeats a cursor")
            cursor = page.next_cursor
        return newest

    def page(
        self,
        contact: Contact,
        *,
        since: datetime,
        until: datetime,
        limit: int,
        cursor: str | None = None,
    ) -> Page:
        """Return one page of the window."""
        parameters = {
            "since": format_rfc3339(since),
            "until": format_rfc3339(until),
            "limit": str(limit),
        }
        if cursor is not None:
            parameters["cursor"] = cursor
        with contact.transport.get(WINDOW_PATH, parameters) as body, contact.turn():
            self.note_answer(contact)
            page = self.decoder.page(contact.content(body))
        contact.check_names(page.identity, page.snapshots)
        return page

    def note_answer(self, contact: Contact) -> None:
        """Note that an answer was complete, and which time it says it is."""
        self.facts["is_accepted"] = True
        head = contact.transport.last_head
        their_time = None if head is None else _date_of(head.date)
        if head is not None and their_time is not None:
            our_time = self.now + timedelta(seconds=head.arrived_at - self.started_at)
            difference = (their_time - our_time).total_seconds()
            # A Date is cut to whole seconds.
            self.facts["clock_difference_seconds"] = difference + _HALF_A_SECOND


def _stage_of(contact: Contact) -> Stage:
    head = contact.transport.last_head
    if head is None:
        return "connection"
    return "authentication" if head.status in DENIED else "answer"


def _date_of(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None


def _expiries(path: str) -> tuple[datetime, ...]:
    try:
        return expiries_in(path)
    except (OSError, ValueError):
        return ()  # OpenSSL has loaded it, so this is being replaced, or nothing that we can read.
