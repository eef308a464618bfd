"""Splitting a stream of JSON into its values, without holding more than one of them in memory."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Everything up to a bracket outside of strings, or up to a quote whose string has no end yet.
_TO_BRACKET = re.compile(
    rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+(?P<bracket>[\[\]{}"])', re.DOTALL
)
_BLANK = b" \t\r\n"
# The beginning of a line of JSON lines, and of nothing within an object that is laid out.
_NEXT_LINE = b"\n{"


def objects_of(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the objects of one array, or of a sequence of values such as JSON lines.

    Only the brackets around and between the objects are looked at: that each object is correct is
    for a parser to say. Raises ExporterError for anything else between them, for an object of more
    than `max_bytes` or without an end in its line, and where the input ends within an object or
    the array.
    """
    splitter = _Splitter(max_bytes)
    for chunk in chunks:
        yield from splitter.feed(chunk)
    splitter.finish()


class _Splitter:
    """The text that is not split yet, its line, and where the last bracket in it left off."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.text = b""
        self.scanned = 0
        self.depth = 0
        self.array = False
        self.ended = False
        self.number = 0
        self.line = 1

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the objects that end in this chunk."""
        self.text += chunk
        start = 0
        while (found := _TO_BRACKET.match(self.text, self.scanned)) is not None:
            bracket = found["bracket"]
            if bracket == b'"':
                break
            self.scanned = found.end()
            if self.depth == 0:
                before = self.text[start : self.scanned - 1]
                self.outside(bracket, before)
                start = self.scanned - (bracket == b"{")
            elif bracket in b"{[":
                self.depth += 1
            else:
                self.depth -= 1
                if self.depth == 0:
                    yield self.text[start : self.scanned]
                    start = self.scanned
        self.line += self.text.count(b"\n", 0, start)
        self.text = self.text[start:]
        self.scanned -= start
        if len(self.text) > self.max_bytes:
            self.check_line()
            raise ExporterError(
                f"value {self.number} is longer than {self.max_bytes} bytes", code="too_large"
            )

    def outside(self, kind: bytes, before: bytes) -> None:
        """Take a bracket between objects, and what is before it."""
        separators = b"," + _BLANK if self.array else _BLANK
        if before.strip(separators) or self.ended:
            self.refuse()
        if kind == b"{":
            self.depth = 1
            self.number += 1
        elif kind == b"[" and not self.array and not self.number:
            self.array = True
        elif kind == b"]" and self.array:
            self.ended = True
        else:
            self.refuse()

    def finish(self) -> None:
        """Raise ExporterError where the input ended too early, or with something else."""
        if self.depth or (self.array and not self.ended):
            self.check_line()
            raise ExporterError(f"ends within value {self.number}", code="not_json")
        if self.text.strip(_BLANK):
            self.refuse()

    def check_line(self) -> None:
        """Raise ExporterError where an object goes on into the next line of JSON lines."""
        if self.depth and _NEXT_LINE in self.text:
            raise ExporterError(f"line {self.line}: invalid JSON", code="not_json")

    def refuse(self) -> NoReturn:
        """Raise ExporterError for what is no object."""
        place = f"what follows value {self.number}" if self.number else "the content"
        raise ExporterError(f"{place} is no JSON object", code="not_json")
