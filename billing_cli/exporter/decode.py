"""From JSON to the core's snapshots: what an exporter answered, or one reason why not.

A sample whose uuid is no UUID is rejected alone and counted; anything else that breaks the contract
fails the whole answer, so that nothing of it is used.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from billing_cli.core.model import NodeIdentity, Snapshot, StreamName, Totals
from billing_cli.core.times import parse_rfc3339
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.failures import TooLargeError
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.names import checked_name, quoted
from billing_cli.exporter.wire import (
    WirePage,
    WireSnapshot,
    cursor_of,
    names_in,
    page_of,
    snapshot_of,
    snapshots_in,
    snapshots_of,
    usable_samples,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

_FUTURE_TOLERANCE = timedelta(minutes=5)

# The generated constructors are Python code; without them 100,000 samples take a fifth less time.
_stream_name = partial(tuple.__new__, StreamName)
_totals = partial(tuple.__new__, Totals)


class Expected(NamedTuple):
    """Which node an answer has to be of; None leaves that part open."""

    node_id: str | None = None
    env: str | None = None


ANY_NODE = Expected()


class Page(NamedTuple):
    """One page of a window.

    `identity` is None where the page names no node, which is legal only without snapshots.
    `next_cursor` is set exactly where `has_more` is true.
    """

    identity: NodeIdentity | None
    snapshots: tuple[Snapshot, ...]
    has_more: bool
    next_cursor: str | None


class Head(NamedTuple):
    """A snapshot whose samples are still JSON. `where` names it in a reason."""

    collected_at: datetime
    identity: NodeIdentity
    samples: msgspec.Raw | bytes
    where: str


@dataclass(slots=True)
class Decoder:
    """Decodes the answers of one fetch.

    `now` bounds how far in the future a snapshot may lie. A stream's name is kept once, in
    `names`, however many snapshots hold it. What a node published under a former stored id is taken
    as of its present identity (`renamed`). Every method raises ExporterError with a one-line
    reason for what breaks the contract, TooLargeError for what exceeds the limits.
    """

    now: datetime
    expected: Expected = ANY_NODE
    limits: Limits = DEFAULT_LIMITS
    names: dict[StreamName, StreamName] = field(default_factory=dict)
    renamed: Mapping[str, NodeIdentity] = field(default_factory=dict)

    def page(self, body: bytes) -> Page:
        """Return the page that a window answer holds, its snapshots in the order of the wire."""
        page = page_of(body, "the answer", self.limits.page_objects)
        wires = snapshots_of(page)
        claimed = self._claimed(page, wires[0] if wires else None)
        heads = self._page_heads(wires)
        identity = heads[0].identity if heads else claimed
        if identity is not None:
            self._check_identity(identity, "the page")
            _check_claim(claimed, identity)
        next_cursor = cursor_of(page) if page.has_more else None
        del page, wires
        snapshots = self._snapshots(heads)
        return Page(identity, snapshots, next_cursor is not None, next_cursor)

    def latest(self, body: bytes) -> Snapshot:
        """Return the one bare snapshot of a `latest` answer."""
        wire = snapshot_of(body, "the snapshot", self.limits.page_objects)
        return self.snapshot(self.head(wire, "the snapshot"))

    def page_or_snapshot(self, value: bytes, where: str) -> list[WireSnapshot]:
        """Return the snapshots of a page, or one bare snapshot, as they are in the JSON."""
        page = page_of(value, where, self.limits.page_objects)
        if page.snapshots is msgspec.UNSET and page.items is msgspec.UNSET:
            return [snapshot_of(value, where, self.limits.page_objects)]
        wires = snapshots_of(page)
        for wire in wires:
            _check_claim(self._claimed(page, wire), self.identity(wire, where))
        return wires

    def usable_snapshots(
        self, value: bytes, where: str, refusal: ExporterError
    ) -> tuple[list[WireSnapshot], dict[NodeIdentity, ExporterError]]:
        """Return the usable snapshots of a page that was refused, and why its nodes fail.

        Each other snapshot fails the node that it names; all nodes of the page fail where it names
        none, or where the page itself is wrong. Raises ExporterError where the page names none.
        """
        usable: list[WireSnapshot] = []
        failed: dict[NodeIdentity, ExporterError] = {}
        claims = [WirePage(node_id, env) for node_id, env in names_in(value)[:1]]
        for place, part in snapshots_in(value):
            try:
                wire = snapshot_of(part, f"{where}.{place}", self.limits.page_objects)
                for claim in claims:
                    _check_claim(self._claimed(claim, wire), self.identity(wire, where))
                usable.append(wire)
            except ExporterError as error:
                named = self.nodes_named_in(part)
                failed |= dict.fromkeys(named, error)
                if not named:
                    failed = {}
                    break
        if failed:
            return usable, failed
        failed = dict.fromkeys(self.nodes_named_in(value), refusal)
        if not failed:
            raise refusal
        return [], failed

    def nodes_named_in(self, value: bytes) -> list[NodeIdentity]:
        """Return the nodes that a page or snapshot speaks for that can't be used."""
        nodes = []
        for node_id, env in names_in(value):
            with suppress(ExporterError):
                identity = NodeIdentity(checked_name(env, "env"), checked_name(node_id, "node_id"))
                if identity.node_id:
                    nodes.append(self.renamed.get(identity.stored, identity))
        complete = {node.node_id for node in nodes if node.env}
        return [node for node in nodes if node.env or node.node_id not in complete]

    def identity(self, wire: WirePage | WireSnapshot, where: str) -> NodeIdentity:
        """Return the node that a page or a snapshot speaks for, by its present name."""
        identity = identity_of(wire, where)
        return self.renamed.get(identity.stored, identity)

    def head(self, wire: WireSnapshot, where: str) -> Head:
        """Return a snapshot's stamp and node, its samples still JSON."""
        identity = self.identity(wire, where)
        self._check_identity(identity, where)
        return Head(self._collected_at(wire.collected_at, where), identity, wire.samples, where)

    def snapshot(self, head: Head) -> Snapshot:
        """Return a snapshot with its samples decoded."""
        totals, rejected = self._streams(head)
        return Snapshot(head.collected_at, head.identity, totals, rejected)

    def _claimed(self, page: WirePage, wire: WireSnapshot | None) -> NodeIdentity | None:
        """Return the node that a page names, if any; what it leaves out is as in its snapshot.

        A page without snapshots that leaves out an env names none, unless that is expected.
        """
        if not (page.node_id or page.env):
            return None
        other = wire or self.expected
        if wire is None and not (page.env or other.env):
            return None
        names = WirePage(node_id=page.node_id or other.node_id, env=page.env or other.env)
        return self.identity(names, "the page")

    def _page_heads(self, wires: Sequence[WireSnapshot]) -> list[Head]:
        heads: list[Head] = []
        for number, wire in enumerate(wires, 1):
            head = self.head(wire, f"snapshot {number}")
            if heads and head.identity != heads[0].identity:
                raise ExporterError(
                    f"snapshot {number} is of node {quoted(head.identity.stored)}, "
                    f"the one before of {quoted(heads[0].identity.stored)}",
                    code="wrong_identity",
                )
            heads.append(head)
        return heads

    def _snapshots(self, heads: list[Head]) -> tuple[Snapshot, ...]:
        decoded: list[Snapshot] = []
        samples = 0
        for head in heads:
            snapshot = self.snapshot(head)
            samples += len(snapshot.totals) + len(snapshot.rejected)
            if samples > self.limits.page_samples:
                raise TooLargeError(f"a page of more than {self.limits.page_samples} samples")
            decoded.append(snapshot)
        return tuple(decoded)

    def _streams(self, head: Head) -> tuple[dict[StreamName, Totals], tuple[str, ...]]:
        """Return the totals of every usable sample, and a reason for each unusable one."""
        samples, rejected = usable_samples(head.samples, head.where)
        if len(samples) + len(rejected) > self.limits.snapshot_samples:
            raise TooLargeError(f"a snapshot of more than {self.limits.snapshot_samples} samples")
        # A node has few tags: each is checked once, and kept once.
        tags = {
            tag: checked_name(tag, f"{head.where}: inbound_tag")
            for tag in {sample.inbound_tag for sample in samples}
        }
        found = [_stream_name((tags[sample.inbound_tag], sample.uuid)) for sample in samples]
        if len(self.names) > self.limits.page_samples:
            self.names.clear()
        names = map(self.names.setdefault, found, found)
        totals = [
            _totals((sample.uplink_bytes_total, sample.downlink_bytes_total)) for sample in samples
        ]
        streams = dict(zip(names, totals, strict=True))
        if len(streams) != len(found):
            name = _first_repeated(found)
            stream = quoted(f"{name.inbound_tag}/{name.sample_uuid}")
            raise ExporterError(
                f"{head.where}: the stream {stream} appears twice", code="invalid_answer"
            )
        return streams, rejected

    def _check_identity(self, identity: NodeIdentity, where: str) -> None:
        """Raise ExporterError for a node without a name, and for one that is not expected."""
        if not identity.node_id:
            raise ExporterError(f"{where} has no node_id", code="invalid_answer")
        for key, found, wanted in (
            ("node_id", identity.node_id, self.expected.node_id),
            ("env", identity.env, self.expected.env),
        ):
            if wanted is not None and found != wanted:
                raise ExporterError(
                    f"{where} is of {key} {quoted(found)}, expected {quoted(wanted)}",
                    code="wrong_identity",
                )

    def _collected_at(self, text: str, where: str) -> datetime:
        """Return the snapshot's stamp, truncated to microseconds."""
        try:
            moment = parse_rfc3339(text)
        except ValueError:
            raise ExporterError(
                f"{where}: collected_at {quoted(text)} is not an RFC 3339 time with a zone",
                code="invalid_answer",
            ) from None
        if moment - self.now > _FUTURE_TOLERANCE:
            raise ExporterError(
                f"{where}: collected_at {text} lies more than 5 minutes ahead",
                code="invalid_answer",
            )
        return moment


def identity_of(wire: WirePage | WireSnapshot, where: str) -> NodeIdentity:
    """Return the node that a page or a snapshot names; raises ExporterError for a bad name."""
    return NodeIdentity(
        env=checked_name(wire.env, f"{where}: env"),
        node_id=checked_name(wire.node_id, f"{where}: node_id"),
    )


def _check_claim(claimed: NodeIdentity | None, identity: NodeIdentity) -> None:
    """Raise ExporterError where a page names another node than a snapshot of it."""
    if claimed is not None and claimed != identity:
        raise ExporterError(
            f"the page is of node {quoted(claimed.stored)}, "
            f"its snapshots of {quoted(identity.stored)}",
            code="wrong_identity",
        )


def _first_repeated(names: list[StreamName]) -> StreamName:
    known: set[StreamName] = set()
    for name in names:
        if name in known:
            return name
        known.add(name)
    raise AssertionError("only called with a repeated name")  # pragma: no cover
