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
from billing_cli.exporter.strict_json import (
    parse_strict,
    refuse_constant,
    weight_of_text,
    weight_of_values,
)
from billing_cli.exporter.uuids import all_canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

make_totals = maker(Totals)


@dataclass(frozen=True, slots=True)
class SampleRun:
    """Samples that follow one another in a list, by column. The uuids are canonical."""

    uuids: list[str]
    tags: list[str]
    totals: list[Totals]

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
) -> Any:
    """Return the JSON value of a body, with a SampleRun in the place of each run, or None.

    None says no more of a body than that `checked_text` and `parse_strict` have to decide on it:
    it may be laid out otherwise, weigh too much, or be no JSON. The parameters are as there.
    """
    lifted = _lifted(body, max_decoded_bytes)
    if lifted is None:
        return None
    text, runs = lifted
    # A NaN of the exporter's own would take the place of a run.
    if text.count(_PLACEHOLDER) != len(runs):
        return None
    waiting = iter(runs)

    def next_run(constant: str) -> SampleRun:
        if constant != _PLACEHOLDER:
            refuse_constant(constant)
        return next(waiting)

    try:
        value = parse_strict(text, object_from, next_run)
    except ExporterError:
        return None
    return value if next(waiting, None) is None else None


def _lifted(body: bytes, max_decoded_bytes: int) -> tuple[str, list[SampleRun]] | None:
    """Return the text with placeholders, and the runs that these stand for, in their order."""
    most_values = max_decoded_bytes - weight_of_text(body)
    most_rest = _MOST_REST_CHARACTERS + len(body) // _MOST_REST_SHARE
    if len(body) > most_values:
        return None
    rest: list[str] = []
    runs: list[SampleRun] = []
    tags: dict[str, str] = {}
    values = rest_characters = 0
    for block in _blocks(body):
        try:
            text = block.decode()
        except UnicodeDecodeError:
            return None
        # What stands before a sample, its four values, and so on; at last what stands behind all.
        pieces = _SAMPLE.split(text)
        around, uuids = pieces[::5], pieces[1::5]
        if not all_canonical(uuids):
            around, uuids = [text], []
        beside = "".join(around)
        rest_characters += len(beside)
        values += weight_of_values(beside.encode()) + len(uuids) * _WEIGHT_OF_SAMPLE
        if rest_characters > most_rest or values > most_values:
            return None
        if uuids:
            uplink, downlink = map(int, pieces[3::5]), map(int, pieces[4::5])
            samples = SampleRun(
                # The database will name most accounts by the same uuids: each is kept once.
                list(map(intern, uuids)),
                # A node has few tags, and each is kept once however many streams it names.
                list(map(tags.setdefault, pieces[2::5], pieces[2::5])),
                list(map(make_totals, zip(uplink, downlink, strict=True))),
            )
            starts = [0, *(place for place in range(1, len(uuids)) if around[place] != ",")]
            for start, end in pairwise([*starts, len(uuids)]):
                # Where a second value may follow the first one this is a list, and more may follow.
                rest += around[start], _PLACEHOLDER
                runs.append(samples.part(start, start + 1))
                if end > start + 1:
                    rest += ",", _PLACEHOLDER
                    runs.append(samples.part(start + 1, end))
        rest.append(around[-1])
    return "".join(rest), runs


def _blocks(body: bytes) -> Iterator[bytes]:
    """Yield the body in pieces, each of which begins an object, so that few samples are cut."""
    start = 0
    while start < len(body):
        end = body.find(b"{", start + _BLOCK_BYTES)
        end = len(body) if end < 0 else end
        yield body[start:end]
        start = end
