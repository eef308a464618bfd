"""Strict decoding: what an exporter answered, as core values or as one reason why not.

The wire contract names what is legal. A sample whose uuid is no UUID is rejected alone and
counted; anything else that is wrong fails the whole answer, so that nothing of it is used.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from billing_cli.core.model import NodeIdentity, Snapshot
from billing_cli.core.times import parse_rfc3339
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.fields import as_list, as_name, as_object
from billing_cli.exporter.limits import DEFAULT_LIMITS, MAX_CURSOR_CHARACTERS
from billing_cli.exporter.sample_runs import AS_SEEN, digest_of_all, parse_runs
from billing_cli.exporter.samples import StreamNames, raw_object, streams_of
from billing_cli.exporter.seen import last_span, seen_span
from billing_cli.exporter.strict_json import checked_text, parse_strict, shown

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.exporter.seen import Seen

_FUTURE_TOLERANCE = timedelta(minutes=5)


class Expected(NamedTuple):
    """Which node an answer has to speak for; None leaves that part open."""

    node_id: str | None = None
    env: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a window.

    `identity` is None where the page names no node, which is legal only without snapshots.
    `next_cursor` is set exactly where `has_more` is true.
    """

    identity: NodeIdentity | None
    snapshots: tuple[Snapshot, ...]
    has_more: bool
    next_cursor: str | None


def decode_window_page(
    body: bytes,
    *,
    expected: Expected,
    now: datetime,
    names: StreamNames | None = None,
    max_decoded_bytes: int = DEFAULT_LIMITS.decoded_bytes,
    seen: Seen | None = None,
) -> Page:
    """Return the page that a window answer holds, its snapshots in the order of the wire.

    `now` bounds how far in the future a snapshot may lie. `names` is shared by the
    pages of one fetch. A first snapshot that is the one `seen` before `is_as_seen` and comes
    without its totals; all else is what it is without `seen`. Raises ExporterError with a one-line
    reason for every answer that breaks the contract.
    """
    decoding = _Decoding(expected, now, names or StreamNames())
    with _PausedCollector():
        if seen is not None:
            page = decoding.page_as_seen(body, seen, max_decoded_bytes)
            if page is not None:
                return page
        value = parse_runs(
            body, raw_object, max_decoded_bytes=max_decoded_bytes, last=last_span(body)
        )
        if value is None:
            text = checked_text(body, max_decoded_bytes=max_decoded_bytes)
            # Bytes, text and values are each as large as the page: no two longer than need be.
            del body
            value = parse_strict(text, raw_object)
            del text
        else:
            del body
        return decoding.page(value)


def decode_latest(
    body: bytes,
    *,
    expected: Expected,
    now: datetime,
    max_decoded_bytes: int = DEFAULT_LIMITS.decoded_bytes,
) -> Snapshot:
    """Return the one bare snapshot of a `latest` answer; raises as `decode_window_page` does."""
    decoding = _Decoding(expected, now, StreamNames())
    with _PausedCollector():
        value = parse_runs(body, raw_object, max_decoded_bytes=max_decoded_bytes)
        if value is not None:
            del body
            return decoding.snapshot(value, "the snapshot")
        text = checked_text(body, max_decoded_bytes=max_decoded_bytes)
        del body
        return decoding.snapshot(parse_strict(text, raw_object), "the snapshot")


class _PausedCollector:
    """Keeps the cyclic garbage collector out of the way while values are made in great number.

    They form no cycles, and walking them again and again takes a fifth of the time. Decoding in
    several threads at once is harmless: whoever paused the collector starts it again.
    """

    def __enter__(self) -> None:
        self.was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self.was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class _Decoding:
    """What decoding one answer needs to know besides the answer."""

    expected: Expected
    now: datetime
    names: StreamNames

    def page_as_seen(self, body: bytes, seen: Seen, max_decoded_bytes: int) -> Page | None:
        """Return a page whose first snapshot was seen before, without decoding that again.

        None leaves the page to be decoded as a whole, which also words all that is wrong with it.
        """
        span = seen_span(body, seen)
        if span is None:
            return None
        value = parse_runs(
            body,
            raw_object,
            max_decoded_bytes=max_decoded_bytes,
            seen=span,
            last=last_span(body),
        )
        if value is None:
            return None
        with suppress(ExporterError):
            page = self.page(value)
            first, *others = page.snapshots or (None,)
            # Only here may it have been passed over; and what came twice is compared as a whole.
            if (
                first is not None
                and first.is_as_seen
                and (first.collected_at, first.identity) == (seen.collected_at, seen.identity)
                and not (others and others[0].collected_at == seen.collected_at)
            ):
                return page
        return None

    def page(self, value: Any) -> Page:
        """Return the decoded page."""
        page = as_object(value, "the answer")
        claimed = _page_identity(page)
        snapshots = tuple(self.snapshots(_page_snapshots(page)))
        identity = snapshots[0].identity if snapshots else claimed
        if identity is not None:
            self.check_identity(identity, "the page")
        if claimed is not None and snapshots and claimed != identity:
            raise ExporterError(
                f"the page speaks for node {shown(claimed.stored)}, "
                f"its snapshots for {shown(snapshots[0].identity.stored)}"
            )
        has_more = page.get("has_more")
        if has_more is not None and not isinstance(has_more, bool):
            raise ExporterError(f"has_more is {shown(has_more)}, neither true nor false")
        return Page(identity, snapshots, bool(has_more), _next_cursor(page) if has_more else None)

    def snapshots(self, values: list[Any]) -> list[Snapshot]:
        """Return the decoded snapshots, all of one node; empties the list as it goes."""
        decoded: list[Snapshot] = []
        for number in range(1, len(values) + 1):
            # Taken out of the list: the raw form is several times larger than the decoded one.
            values[number - 1], value = None, values[number - 1]
            snapshot = self.snapshot(value, f"snapshot {number}")
            if decoded and snapshot.identity != decoded[0].identity:
                raise ExporterError(
                    f"snapshot {number} is of node {shown(snapshot.identity.stored)}, "
                    f"the one before of {shown(decoded[0].identity.stored)}"
                )
            decoded.append(snapshot)
        return decoded

    def snapshot(self, value: Any, where: str) -> Snapshot:
        """Return one decoded snapshot."""
        members = as_object(value, where)
        identity = NodeIdentity(
            env=as_name(members.get("env"), f"{where}: env"),
            node_id=as_name(members.get("node_id"), f"{where}: node_id"),
        )
        self.check_identity(identity, where)
        collected_at = self.collected_at(members.get("collected_at"), where)
        if "samples" not in members:
            raise ExporterError(f"{where}: samples is missing")
        samples = as_list(members["samples"], f"{where}: samples")
        if samples == [AS_SEEN]:
            return Snapshot(collected_at, identity, {}, is_as_seen=True)
        digest = digest_of_all(samples)
        totals, rejected = streams_of(samples, where, self.names)
        return Snapshot(collected_at, identity, totals, rejected, digest)

    def check_identity(self, identity: NodeIdentity, where: str) -> None:
        """Raise ExporterError for a nameless node, and for another than the expected one."""
        if not identity.node_id:
            raise ExporterError(f"{where} has no node_id")
        for key, found, wanted in (
            ("node_id", identity.node_id, self.expected.node_id),
            ("env", identity.env, self.expected.env),
        ):
            if wanted is not None and found != wanted:
                raise ExporterError(f"{where} is of {key} {shown(found)}, expected {shown(wanted)}")

    def collected_at(self, value: Any, where: str) -> datetime:
        """Return the snapshot's stamp, cut to microseconds."""
        if not isinstance(value, str):
            raise ExporterError(f"{where}: collected_at is {shown(value)}, not a time")
        try:
            moment = parse_rfc3339(value)
        except ValueError:
            raise ExporterError(
                f"{where}: collected_at {shown(value)} is not an RFC 3339 time with a zone"
            ) from None
        if moment - self.now > _FUTURE_TOLERANCE:
            raise ExporterError(f"{where}: collected_at {value} lies more than 5 minutes ahead")
        return moment


def _page_identity(page: dict[str, Any]) -> NodeIdentity | None:
    """Return whom the page claims to speak for; an empty window names nobody."""
    node_id = as_name(page.get("node_id"), "node_id")
    env = as_name(page.get("env"), "env")
    return NodeIdentity(env, node_id) if node_id or env else None


def _page_snapshots(page: dict[str, Any]) -> list[Any]:
    """Return the raw snapshots, under either of their two names."""
    if "snapshots" not in page and "items" not in page:
        raise ExporterError("the answer has neither snapshots nor items")
    snapshots = as_list(page.pop("snapshots", None), "snapshots")
    items = as_list(page.pop("items", None), "items")
    if snapshots and items:
        raise ExporterError("the answer has both snapshots and items")
    return snapshots or items


def _next_cursor(page: dict[str, Any]) -> str:
    cursor = page.get("next_cursor")
    if cursor is None or cursor == "":
        raise ExporterError("has_more without a next_cursor")
    if not isinstance(cursor, str):
        raise ExporterError(f"next_cursor is {shown(cursor)}, not a string")
    if len(cursor) > MAX_CURSOR_CHARACTERS:
        raise ExporterError(f"next_cursor has {len(cursor)} characters")
    return cursor
