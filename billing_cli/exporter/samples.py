"""Samples, checked column by column.

A page may hold a hundred thousand samples, and their checks have to stay cheap beside parsing the
text; so each check is one pass in C over one column, and looks for the culprit only when it fails.
Samples in the contract's own layout come as columns already, and all but checked.
"""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from sys import intern
from typing import TYPE_CHECKING, Any

from billing_cli.core.makers import maker
from billing_cli.core.model import MAX_TOTAL, StreamName
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.fields import as_name, as_object
from billing_cli.exporter.sample_runs import SampleRun, make_totals
from billing_cli.exporter.strict_json import shown, unique_members
from billing_cli.exporter.uuids import all_canonical, canonical_uuids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from billing_cli.core.model import Totals

    _Streams = tuple[Sequence[str], Sequence[str], list[Totals], tuple[str, ...]]

_MOST_KNOWN_NAMES = 200_000
_SAMPLE_KEYS = ("uuid", "inbound_tag", "uplink_bytes_total", "downlink_bytes_total")

_sample_values = itemgetter(*_SAMPLE_KEYS)

_stream_name = maker(StreamName)


def streams_of(
    samples: list[Any], where: str, names: StreamNames
) -> tuple[dict[StreamName, Totals], tuple[str, ...]]:
    """Return the totals of every usable sample, and a reason for each unusable one."""
    lifted = set(map(type, samples)) == {SampleRun}
    uuids, tags, totals, rejected = (_joined if lifted else _checked)(samples, where)
    found = names.of(tags, uuids)
    streams = dict(zip(found, totals, strict=True))
    if len(streams) != len(found):
        raise ExporterError(f"{where}: the stream {_first_repeated(found)} appears twice")
    return streams, rejected


def raw_object(pairs: list[tuple[str, Any]]) -> Any:
    """Return a sample as the tuple (uuid, inbound tag, uplink, downlink), other objects as dicts.

    No other JSON value becomes a tuple, so a sample cannot be mistaken for anything else. The
    first branch is the layout of the contract: five different keys, so none can appear twice.
    A sample that lacks a key stays a dict; what holds samples is none, whatever else it holds.
    """
    try:
        (first, uuid), (second, _), (third, tag), (fourth, uplink), (fifth, downlink) = pairs
    except ValueError:
        pass
    else:
        if (
            first == "uuid"
            and second == "email"
            and third == "inbound_tag"
            and fourth == "uplink_bytes_total"
            and fifth == "downlink_bytes_total"
        ):
            return (uuid, tag, uplink, downlink)
    members = unique_members(pairs)
    if "samples" in members or "uplink_bytes_total" not in members:
        return members
    try:
        return _sample_values(members)
    except KeyError:
        return members


class StreamNames:
    """Names each stream by one object, however many snapshots of a fetch hold it.

    Exporters send the same streams again and again, most of them in the same order. One that
    makes up new ones all the time costs memory only up to a bound.
    """

    __slots__ = ("_found", "_known", "_tags", "_uuids")

    def __init__(self) -> None:
        self._known: dict[StreamName, StreamName] = {}
        self._tags: Sequence[str] = ()
        self._uuids: Sequence[str] = ()
        self._found: list[StreamName] = []

    def of(self, tags: Sequence[str], uuids: Sequence[str]) -> list[StreamName]:
        """Return the names of the streams with these tags and uuids, in their order."""
        if tags == self._tags and uuids == self._uuids:
            return self._found
        # The database will name most accounts by the same uuids: each is kept once.
        found = list(map(_stream_name, zip(tags, map(intern, uuids), strict=True)))
        if self._found:
            if len(self._known) > _MOST_KNOWN_NAMES:
                self._known.clear()
            # Filled late, because many a fetch ends after one snapshot.
            self._known.update(zip(self._found, self._found, strict=True))
            found = list(map(self._known.setdefault, found, found))
        self._tags, self._uuids, self._found = tags, uuids, found
        return found


def _joined(runs: list[SampleRun], where: str) -> _Streams:
    """Return what `_checked` does, of samples of which all but the tags is known to be right."""
    uuids = list(chain.from_iterable(run.uuids for run in runs))
    tags = list(chain.from_iterable(run.tags for run in runs))
    totals = list(chain.from_iterable(run.totals for run in runs))
    for tag in set(tags):
        as_name(tag, f"{where}: inbound_tag")
    return uuids, tags, totals, ()


def _checked(samples: list[Any], where: str) -> _Streams:
    """Return the uuids, tags and totals of the usable samples, and why others are not."""
    uuids, raw_tags, raw_uplink, raw_downlink = _columns(samples, where)
    uplink = _counters(raw_uplink, f"{where}: uplink_bytes_total")
    downlink = _counters(raw_downlink, f"{where}: downlink_bytes_total")
    tags = _tags(raw_tags, f"{where}: inbound_tag")
    rejected: tuple[str, ...] = ()
    if not all_canonical(uuids):
        normalised = canonical_uuids(uuids)
        rejected = tuple(
            f"sample {number}: uuid {shown(uuid)} is not a UUID"
            for number, (uuid, good) in enumerate(zip(uuids, normalised, strict=True), 1)
            if good is None
        )
        usable = [index for index, good in enumerate(normalised) if good is not None]
        uuids = [normalised[index] for index in usable]
        tags = [tags[index] for index in usable]
        uplink = [uplink[index] for index in usable]
        downlink = [downlink[index] for index in usable]
    totals = list(map(make_totals, zip(uplink, downlink, strict=True)))
    return uuids, tags, totals, rejected


def _columns(samples: list[Any], where: str) -> tuple[Sequence[Any], ...]:
    """Return the samples' uuids, tags, uplink and downlink totals, each in one sequence."""
    if not samples:
        return ((), (), (), ())
    if SampleRun in set(map(type, samples)):
        samples = [
            row
            for sample in samples
            for row in (sample.rows() if isinstance(sample, SampleRun) else (sample,))
        ]
    if set(map(type, samples)) != {tuple}:
        samples = [_values(sample, number, where) for number, sample in enumerate(samples, 1)]
    return tuple(zip(*samples, strict=True))


def _values(sample: Any, number: int, where: str) -> tuple[Any, ...]:
    """Return a sample's four values, None for those that it lacks."""
    if isinstance(sample, tuple):
        return sample
    return tuple(map(as_object(sample, f"{where}: sample {number}").get, _SAMPLE_KEYS))


def _counters(values: Sequence[Any], where: str) -> Sequence[int]:
    # Exact types: True is an int to isinstance, and no counter.
    kinds = set(map(type, values))
    if not kinds or (kinds == {int} and min(values) >= 0 and max(values) <= MAX_TOTAL):
        return values
    for number, value in enumerate(values, 1):
        if value is None:
            raise ExporterError(f"{where} of sample {number} is missing")
        if type(value) is not int:
            raise ExporterError(f"{where} of sample {number} is {shown(value)}, not an integer")
        if value < 0:
            raise ExporterError(f"{where} of sample {number} is negative")
        if value > MAX_TOTAL:
            raise ExporterError(f"{where} of sample {number} is above 2^63-1")
    raise AssertionError("only reached with a bad counter")  # pragma: no cover


def _tags(values: Sequence[Any], where: str) -> Sequence[str]:
    if not set(map(type, values)) <= {str}:
        values = ["" if value is None else value for value in values]
        for number, value in enumerate(values, 1):
            if not isinstance(value, str):
                raise ExporterError(f"{where} of sample {number} is {shown(value)}, not a string")
    # A node has few tags, and each is kept once however many streams it names.
    tags = {tag: as_name(tag, where) for tag in set(values)}
    return list(map(tags.__getitem__, values))


def _first_repeated(names: list[StreamName]) -> str:
    seen: set[StreamName] = set()
    for name in names:
        if name in seen:
            return f"{name.inbound_tag}/{name.sample_uuid}"
        seen.add(name)
    raise AssertionError("only called with a repeated name")  # pragma: no cover
