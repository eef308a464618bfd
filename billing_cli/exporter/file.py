"""Snapshots from a file in place of an exporter: with the same limits and the same results.

A file holds a list of snapshots (as exporters store them), a page, or one snapshot a line (as log
shippers write them), of one node or of several, in any order, optionally compressed with gzip.
Where a node has two snapshots of the same stamp, the later one in the file counts: exporters
replace the earlier one, too.
"""

from __future__ import annotations

import codecs
import gzip
import sys
import tempfile
import zlib
from bisect import bisect_left
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.decode import Decoder, Head
from billing_cli.exporter.json_values import objects_of
from billing_cli.exporter.limits import DEFAULT_LIMITS, Limits
from billing_cli.exporter.steps import StepSnapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from billing_cli.core.model import NodeIdentity, Snapshot
    from billing_cli.exporter.api import FetchRequest
    from billing_cli.exporter.wire import WireSnapshot

_CHUNK_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"


def read_file(
    path: str,
    *,
    now: datetime,
    renamed: Mapping[str, NodeIdentity] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    on_progress: Callable[[int], None] | None = None,
) -> SnapshotFile:
    """Return the snapshots of a file; `-` is stdin. To be closed after use.

    The file is read once, whole, into a temporary file; memory holds where each snapshot is, not
    its samples. `now` bounds how far in the future a snapshot may lie; `renamed` gives the present
    identity of nodes by their former stored ids. `on_progress` is called with
    the number of bytes read so far, after decompression. Raises ExporterError (code `file`) that
    names the file and the value in it that is wrong.
    """
    file = SnapshotFile(Decoder(now, limits=limits, renamed=renamed or {}), limits)
    try:
        with _opened(path) as stream:
            file.add_all(objects_of(_chunks(stream, limits, on_progress), limits.body_bytes))
    except ExporterError as error:
        file.close()
        raise ExporterError(f"{path}: {error.reason}", code="file") from None
    except (OSError, EOFError, zlib.error) as error:
        file.close()
        why = getattr(error, "strerror", None) or "the gzip data is broken or cut short"
        raise ExporterError(f"{path}: {why}", code="file") from None
    except BaseException:
        file.close()
        raise
    return file


def fetched_from_file(
    file: SnapshotFile,
    requests: Sequence[FetchRequest],
    claims: Mapping[str, Sequence[NodeIdentity]],
) -> dict[str, Fetched | ExporterError]:
    """Return what each request's source has in the file for its step, as `fetch_all` would.

    `claims` are the nodes of the file that each source claims, by its id.
    """
    outcomes: dict[str, Fetched | ExporterError] = {}
    for request in requests:
        source_id = request.source.source_id
        try:
            outcomes[source_id] = file.fetch(request, claims.get(source_id, ()))
        except ExporterError as error:
            outcomes[source_id] = error.with_traceback(None)
    return outcomes


class _Entry(NamedTuple):
    """Where the samples of a snapshot are in the temporary file, in bytes."""

    collected_at: datetime
    offset: int
    length: int
    where: str


class SnapshotFile:
    """The snapshots of a file by node, their samples still on disk. Made by `read_file`."""

    def __init__(self, decoder: Decoder, limits: Limits) -> None:
        self._decoder = decoder
        self._limits = limits
        self._samples: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._length = 0
        self._entries: dict[NodeIdentity, dict[datetime, _Entry]] = {}
        self._sorted: dict[NodeIdentity, list[_Entry]] = {}
        self._failures: dict[NodeIdentity, ExporterError] = {}

    @property
    def nodes(self) -> frozenset[NodeIdentity]:
        """The nodes that the file has snapshots of."""
        return frozenset(self._entries)

    def first_stamp(self, node: NodeIdentity) -> datetime | None:
        """Return the stamp of a node's first snapshot; None where none can be used."""
        return min(self._entries[node], default=None)

    def close(self) -> None:
        """Delete the temporary file."""
        self._samples.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add_all(self, values: Iterable[bytes]) -> None:
        """Take in pages and bare snapshots.

        What is wrong with a snapshot fails the node that it names, and what is wrong with a page
        all nodes of it. Raises ExporterError where none is named, and for more snapshots than the
        limit.
        """
        count = 0
        for number, value in enumerate(values, 1):
            where = f"value {number}"
            for wire in self._wires(value, where):
                count += 1
                if count > self._limits.file_snapshots:
                    raise ExporterError(f"more than {self._limits.file_snapshots} snapshots")
                self._add(wire, where)
        self._sorted = {
            identity: sorted(entries.values()) for identity, entries in self._entries.items()
        }

    def _wires(self, value: bytes, where: str) -> list[WireSnapshot]:
        try:
            return self._decoder.page_or_snapshot(value, where)
        except ExporterError as error:
            usable, failed = self._decoder.usable_snapshots(value, where, error)
        for identity, why in failed.items():
            self._fail(identity, why)
        return usable

    def _add(self, wire: WireSnapshot, where: str) -> None:
        identity = self._decoder.identity(wire, where)
        try:
            head = self._decoder.head(wire, where)
        except ExporterError as error:
            if not identity.node_id:
                raise
            self._fail(identity, error)
        else:
            self._entries.setdefault(identity, {})[head.collected_at] = self._stored(head)

    def _fail(self, identity: NodeIdentity, error: ExporterError) -> None:
        """Keep a fault of a node, which the other nodes do not share."""
        self._entries.setdefault(identity, {})
        self._failures.setdefault(identity, error.with_traceback(None))

    def fetch(self, request: FetchRequest, nodes: Sequence[NodeIdentity]) -> Fetched:
        """Return the step of a source that claims these nodes; raises ExporterError."""
        if not nodes:
            notes = ("the file has no snapshot of this source",)
            return Fetched("window", None, (), complete=True, notes=notes, is_from_file=True)
        if len(nodes) > 1:
            names = ", ".join(repr(node.stored) for node in nodes)
            raise ExporterError(
                f"claims several nodes of the file: {names}; set expected_env",
                code="wrong_identity",
            )
        (identity,) = nodes
        if failure := self._failures.get(identity):
            raise failure
        step = StepSnapshots(request, self._limits)
        for snapshot in self._window(identity, request.since, request.until):
            if step.add((snapshot,), has_more=True):
                break
        else:
            step.add((), has_more=False)
        return Fetched("window", identity, step.kept, complete=step.complete, is_from_file=True)

    def _window(
        self, identity: NodeIdentity, since: datetime, until: datetime
    ) -> Iterator[Snapshot]:
        entries = self._sorted[identity]
        for entry in entries[bisect_left(entries, since, key=lambda entry: entry.collected_at) :]:
            if entry.collected_at >= until:
                return
            self._samples.seek(entry.offset)
            samples = self._samples.read(entry.length)
            yield self._decoder.snapshot(Head(entry.collected_at, identity, samples, entry.where))

    def _stored(self, head: Head) -> _Entry:
        entry = _Entry(head.collected_at, self._length, len(bytes(head.samples)), head.where)
        self._samples.write(head.samples)
        self._length += entry.length
        return entry


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Yield the content of a file, or of stdin, decompressed."""
    with ExitStack() as opened:
        stream: Any = sys.stdin.buffer
        if path != "-":
            stream = opened.enter_context(Path(path).open("rb"))
        if stream.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
            stream = opened.enter_context(gzip.open(stream))
        yield stream


def _chunks(
    stream: IO[bytes], limits: Limits, on_progress: Callable[[int], None] | None
) -> Iterator[bytes]:
    received = 0
    is_blank = True
    while chunk := stream.read(_CHUNK_BYTES):
        if not received:
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        received += len(chunk)
        if received > limits.file_bytes:
            raise ExporterError(f"longer than {limits.file_bytes} bytes", code="too_large")
        if on_progress is not None:
            on_progress(received)
        is_blank = is_blank and not chunk.strip()
        yield chunk
    if is_blank:
        raise ExporterError("is empty: it holds no snapshot")
