"""Samples in the contract's own layout, read by a pattern instead of by the JSON parser.

Nearly all of a large page is samples that differ in nothing but their values. A regular expression
lifts them out of the text, one or two placeholders stay behind for each run of them, and the
little that is left goes through the strict parser as ever. The placeholder is `NaN`, which the
parser takes for a value wherever JSON may have one, and nowhere else: it asks for the runs one by
one, in their order, and a run that it does not ask for stood in a string. So the value is the same
as if the parser had read the samples itself, repeated keys and all other errors included.

This way only ever says yes. Whatever does not fit is left to the strict parser alone, which words
every refusal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from sys import intern
from typing import TYPE_CHECKING, Any

from billing_cli.core.makers import maker
from billing_cli.core.model import Totals
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.seen import Span, digest_of
from billing_cli.exporter.strict_json import (
    parse_strict,
    refuse_constant,
    weight_of_text,
    weight_of_values,
)
from billing_cli.exporter.uuids import all_canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from billing_cli.core.model import SamplesDigest

# What is worked on at one time stays in the processor's cache, and weighs nothing beside the page.
_BLOCK_BYTES = 128 * 1024

# A body with more than this beside its samples is of another layout, and gains nothing here.
_MOST_REST_CHARACTERS = 64 * 1024
_MOST_REST_SHARE = 4

_PLACEHOLDER = "NaN"

# No escapes, which take a parser; no commas and brackets, so that every sample weighs the same.
_STRING = r'[^"\\,{\[\x00-\x1f]*+'
# With 18 digits at most it cannot be above 2^63-1.
_COUNTER = r"0|[1-9][0-9]{0,17}+"
# The uuid is any 36 characters here, and checked together with many others.
_SAMPLE = re.compile(
    rf'\{{"uuid":"(.{{36}})","email":"{_STRING}","inbound_tag":"({_STRING})",'
    rf'"uplink_bytes_total":({_COUNTER}),"downlink_bytes_total":({_COUNTER})\}}',
    re.DOTALL,
)
_WEIGHT_OF_SAMPLE = weight_of_values(b"{,,,,}")

_END = object()

make_totals = maker(Totals)


AS_SEEN = object()
"""Stands for all samples of a list, where these were seen before and have been passed over."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A part of the body that is nothing but samples, from its first byte to its last.

    `runs` is how many runs were lifted from it.
    """

    digest: SamplesDigest
    runs: int


@dataclass(frozen=True, slots=True)
class SampleRun:
    """Samples that follow one another in a list, by column. The uuids are canonical.

    `whole` is what they are a part of, where its digest was asked for.
    """

    uuids: list[str]
    tags: list[str]
    totals: list[Totals]
    whole: Whole | None = None

    def part(self, start: int, end: int) -> SampleRun:
        """Return the samples from one place to before another."""
        return SampleRun(self.uuids[start:end], self.tags[start:end], self.totals[start:end])

    def rows(self) -> Iterator[tuple[str, str, int, int]]:
        """Yield each sample as (uuid, inbound tag, uplink, downlink)."""
        for uuid, tag, totals in zip(self.uuids, self.tags, self.totals, strict=True):
            yield (uuid, tag, *totals)


def parse_runs(
    body: bytes,
    object_from: Callable[[list[tuple[str, Any]]], Any],
    *,
    max_decoded_bytes: int,
    seen: Span | None = None,
    last: Span | None = None,
) -> Any:
    """Return the JSON value of a body, with a SampleRun in the place of each run, or None.

    None says no more of a body than that `checked_text` and `parse_strict` have to decide on it:
    it may be laid out otherwise, weigh too much, or be no JSON. The parameters are as there.

    `seen` is a part of the body that was decoded before as all that is between the brackets of a
    list of samples. AS_SEEN takes its place; the value is that of the body only if this comes to
    be the one element of a list. `last` is a part that follows it, of which `digest_of_all` may
    tell the digest.
    """
    lifted = _lifted(body, max_decoded_bytes, seen, last)
    if lifted is None:
        return None
    text, runs = lifted
    # A NaN of the exporter's own would take the place of a run.
    if text.count(_PLACEHOLDER) != len(runs):
        return None
    waiting = iter(runs)

    def next_run(constant: str) -> object:
        if constant != _PLACEHOLDER:
            refuse_constant(constant)
        return next(waiting)

    try:
        value = parse_strict(text, object_from, next_run)
    except ExporterError:
        return None
    return value if next(waiting, _END) is _END else None


def digest_of_all(samples: list[Any]) -> SamplesDigest | None:
    """Return the digest of the text of a list of samples, where that is certain.

    A part of the body that begins with a sample and ends with one has been parsed as exactly the
    elements of this list: each run of it is in the value once, and in the order of the text. What
    is between two elements of a list is a comma and white space. So this part is the whole text
    of the list, apart from white space at its ends, whatever the strings in it hold.
    """
    whole = samples[0].whole if samples and type(samples[0]) is SampleRun else None
    if whole is None or len(samples) != whole.runs:
        return None
    is_all = all(type(one) is SampleRun and one.whole is whole for one in samples)
    return whole.digest if is_all else None


def _lifted(
    body: bytes, max_decoded_bytes: int, seen: Span | None, last: Span | None
) -> tuple[str, list[object]] | None:
    """Return the text with placeholders, and the runs that these stand for, in their order."""
    most_values = max_decoded_bytes - weight_of_text(body)
    if len(body) > most_values:
        return None
    lifting = _Lifting(body, most_values)
    place = 0
    try:
        if seen is not None:
            lifting.lift(Span(place, seen.start))
            lifting.pass_over(seen)
            place = seen.end
        if last is not None and place <= last.start:
            lifting.lift(Span(place, last.start))
            lifting.lift_whole(last)
            place = last.end
        lifting.lift(Span(place, len(body)))
    except _OtherwiseError:
        return None
    return "".join(lifting.rest), lifting.runs


class _OtherwiseError(Exception):
    """A body gains nothing from lifting, or is not to be decoded at all."""


class _Lifting:
    """What is lifted from a body, part by part, and the `rest` that is left for the parser."""

    def __init__(self, body: bytes, most_values: int) -> None:
        self.body = body
        self.rest: list[str] = []
        self.runs: list[object] = []
        self._tags: dict[str, str] = {}
        self._values_left = most_values
        self._characters_left = _MOST_REST_CHARACTERS + len(body) // _MOST_REST_SHARE

    def pass_over(self, span: Span) -> None:
        """Leave a placeholder for a part that was decoded before; it weighs what it did."""
        # It has a digest, so it is samples of this pattern: one brace each, a comma between two.
        samples = self.body.count(b"{", span.start, span.end)
        self._count(0, samples * _WEIGHT_OF_SAMPLE + (samples - 1) * weight_of_values(b","))
        self.rest.append(_PLACEHOLDER)
        self.runs.append(AS_SEEN)

    def lift_whole(self, span: Span) -> None:
        """Lift a part; its runs know its digest if it begins and ends with one of them."""
        pieces, runs = len(self.rest), len(self.runs)
        self.lift(span)
        if self.rest[pieces] == self.rest[-1] == "":
            lifted = self.runs[runs:]
            whole = Whole(digest_of(self.body, span), len(lifted))
            self.runs[runs:] = [
                SampleRun(one.uuids, one.tags, one.totals, whole)
                for one in lifted
                if isinstance(one, SampleRun)
            ]

    def lift(self, span: Span) -> None:
        """Lift all samples of a part that are laid out as in the contract."""
        for block in _blocks(self.body, span):
            try:
                text = block.decode()
            except UnicodeDecodeError:
                raise _OtherwiseError from None
            self._lift_text(text)

    def _lift_text(self, text: str) -> None:
        # What stands before a sample, its four values, and so on; at last what stands behind all.
        pieces = _SAMPLE.split(text)
        around, uuids = pieces[::5], pieces[1::5]
        if not all_canonical(uuids):
            around, uuids = [text], []
        beside = "".join(around)
        self._count(len(beside), weight_of_values(beside.encode()) + len(uuids) * _WEIGHT_OF_SAMPLE)
        if uuids:
            uplink, downlink = map(int, pieces[3::5]), map(int, pieces[4::5])
            samples = SampleRun(
                # The database will name most accounts by the same uuids: each is kept once.
                list(map(intern, uuids)),
                # A node has few tags, and each is kept once however many streams it names.
                list(map(self._tags.setdefault, pieces[2::5], pieces[2::5])),
                list(map(make_totals, zip(uplink, downlink, strict=True))),
            )
            starts = [0, *(place for place in range(1, len(uuids)) if around[place] != ",")]
            for start, end in pairwise([*starts, len(uuids)]):
                # Where a second value may follow the first one this is a list, and more may follow.
                self.rest += around[start], _PLACEHOLDER
                self.runs.append(samples.part(start, start + 1))
                if end > start + 1:
                    self.rest += ",", _PLACEHOLDER
                    self.runs.append(samples.part(start + 1, end))
        self.rest.append(around[-1])

    def _count(self, rest_characters: int, values: int) -> None:
        self._characters_left -= rest_characters
        self._values_left -= values
        if self._characters_left < 0 or self._values_left < 0:
            raise _OtherwiseError


def _blocks(body: bytes, span: Span) -> Iterator[bytes]:
    """Yield a part in pieces, each of which begins an object, so that few samples are cut."""
    start = span.start
    while start < span.end:
        end = body.find(b"{", start + _BLOCK_BYTES, span.end)
        end = span.end if end < 0 else end
        yield body[start:end]
        start = end
