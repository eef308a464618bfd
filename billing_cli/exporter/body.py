"""Reading an answer's body within bounds, whatever it says about itself."""

from __future__ import annotations

import tempfile
import zlib
from typing import TYPE_CHECKING, Any, Self

from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.failures import TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from billing_cli.exporter.limits import Limits

CHUNK_BYTES = 64 * 1024
_GZIP_WINDOW_BITS = 31


class Body:
    """A body as received and decompressed, kept in a temporary file once it is large.

    Many sources are read at the same time; only the one that is being decoded is in memory.
    """

    def __init__(self, spool_bytes: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=spool_bytes)  # noqa: SIM115
        self._length = 0

    def append(self, piece: bytes, limit: int) -> None:
        """Add a piece; raises TooLargeError where the body grows beyond the limit, in bytes."""
        self._length += len(piece)
        if self._length > limit:
            raise TooLargeError(f"the answer is longer than {limit} bytes")
        try:
            self._file.write(piece)
        except OSError as error:
            raise ExporterError(f"the answer cannot be kept: {error.strerror}") from None

    def read(self) -> bytes:
        """Return the whole body."""
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        """Give the memory, or the file, back."""
        self._file.close()

    def __del__(self) -> None:
        """Close the file of an answer that came after the deadline and is not read."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def receive(body: Body, raw: Any, content_encoding: str, limits: Limits) -> None:
    """Read a urllib3 response to its end into the body.

    Raises ExporterError for an encoding other than gzip, for compressed data that is broken, and
    for more than `limits.body_bytes`; network errors come through as they are.
    """
    encoding = content_encoding.strip().lower()
    # Not stream(): its chunked reader has no bound for the length of a line.
    chunks = iter(lambda: raw.read(CHUNK_BYTES, decode_content=False), b"")
    if encoding in {"gzip", "x-gzip"}:
        chunks = _inflated(chunks, limits.body_bytes)
    elif encoding not in {"", "identity"}:
        raise ExporterError(
            "the answer's Content-Encoding is neither gzip nor identity", code="invalid_answer"
        )
    for chunk in chunks:
        body.append(chunk, limits.body_bytes)


def _inflated(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yield what gzip data unpacks to, in pieces of bounded size.

    Raises ExporterError for data that is broken, cut short or goes on after its end, and
    TooLargeError for more than `limit` compressed bytes: some data unpacks to nothing for ever.
    """
    decoder = zlib.decompressobj(_GZIP_WINDOW_BITS)
    received = 0
    for chunk in chunks:
        if decoder.eof:
            raise _trailing_data()
        received += len(chunk)
        if received > limit:
            raise TooLargeError(f"the answer is longer than {limit} bytes")
        pending = chunk
        while True:
            try:
                piece = decoder.decompress(pending, CHUNK_BYTES)
            except zlib.error:
                raise ExporterError("the gzip data is broken", code="invalid_answer") from None
            yield piece
            pending = decoder.unconsumed_tail
            if not pending and len(piece) < CHUNK_BYTES:
                break
        if decoder.unused_data:
            raise _trailing_data()
    if not decoder.eof:
        raise ExporterError("the gzip data is cut short", code="invalid_answer")


def _trailing_data() -> ExporterError:
    return ExporterError("data follows the end of the gzip data", code="invalid_answer")
