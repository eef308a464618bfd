"""Reading an answer's body without trusting a word of what it says about itself."""

from __future__ import annotations

import tempfile
import zlib
from typing import TYPE_CHECKING, Any, Self

from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.failures import TooLongError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from billing_cli.exporter.limits import Limits

_CHUNK_BYTES = 64 * 1024
_GZIP_WINDOW_BITS = 31


class Body:
    """A body as received and decompressed, kept in a temporary file once it is large.

    Many sources are read at the same time; only the one that is being decoded is in memory.
    """

    def __init__(self, spool_bytes: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=spool_bytes)  # noqa: SIM115
        self._length = 0

    def append(self, piece: bytes, limit: int) -> None:
        """Add a piece; raises ExporterError where the body grows beyond the limit, in bytes."""
        self._length += len(piece)
        if self._length > limit:
            raise TooLongError(limit)
        try:
            self._file.write(piece)
        except OSError as error:
            raise ExporterError(f"no room to keep the answer: {error.strerror}") from None

    def read(self) -> bytes:
        """Return the whole body."""
        self._file.seek(0)
        return self._file.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def receive(body: Body, raw: Any, content_encoding: str, limits: Limits) -> None:
    """Read a urllib3 response to its end into the body.

    Decompresses gzip piece by piece, so that a small answer that unpacks to a huge one is refused
    when it passes the limit. Raises ExporterError for other encodings, for compressed data that is
    broken, cut short or goes on after its end, and for more than `limits.body_bytes`; network
    errors come through as they are.
    """
    encoding = content_encoding.strip().lower()
    if encoding in {"", "identity"}:
        for chunk in _chunks(raw):
            body.append(chunk, limits.body_bytes)
    elif encoding in {"gzip", "x-gzip"}:
        _inflate(body, raw, limits.body_bytes)
    else:
        raise ExporterError("the answer's Content-Encoding is neither gzip nor identity")


def _inflate(body: Body, raw: Any, limit: int) -> None:
    decoder = zlib.decompressobj(_GZIP_WINDOW_BITS)
    received = 0
    for chunk in _chunks(raw):
        received += len(chunk)
        # Compressed data that unpacks to nothing would otherwise go on for ever.
        if decoder.eof:
            raise ExporterError("the answer goes on after the end of its gzip data")
        if received > limit:
            raise TooLongError(limit)
        pending = chunk
        while True:
            try:
                piece = decoder.decompress(pending, _CHUNK_BYTES)
            except zlib.error:
                raise ExporterError("the answer's gzip data is broken") from None
            body.append(piece, limit)
            pending = decoder.unconsumed_tail
            if not pending and len(piece) < _CHUNK_BYTES:
                break
        if decoder.unused_data:
            raise ExporterError("the answer goes on after the end of its gzip data")
    if not decoder.eof:
        raise ExporterError("the answer's gzip data is cut short")


def _chunks(raw: Any) -> Iterator[bytes]:
    # Not stream(): its chunked reader has no bound for the length of a line.
    while chunk := raw.read(_CHUNK_BYTES, decode_content=False):
        yield chunk
