"""The wire format of exporters as typed structs.

msgspec refuses what is no JSON, and values of the wrong type; what it accepts and the contract does
not is checked here. Unknown fields are ignored, and of a key that is repeated in one object the
last value counts.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from typing import Annotated, TypeVar

import msgspec

from billing_cli.core.model import MAX_TOTAL
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.failures import TooLargeError
from billing_cli.exporter.limits import MAX_CURSOR_CHARACTERS
from billing_cli.exporter.names import all_canonical, canonical_uuid, quoted

_CHUNK_BYTES = 1024 * 1024

# So many samples of a snapshot are shown with their uuid; all of them would take memory.
_SHOWN_REASONS = 100
_NO_UUID = "the uuid of a sample is not a UUID"

# An escaped NUL: behind an even number of backslashes, or else it is text about one.
_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_HTML_HINT = (
    "the answer is a web page, not JSON: the exporter's snapshot API is off; "
    "set EXPORTER_NODE_ID, ACCOUNTS_BASE_URL and INTERNAL_SERVICE_TOKEN there, or correct base_url"
)

Total = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOTAL)]


class WireSample(msgspec.Struct, gc=False):
    """The counters of one stream; `email` and unknown fields are skipped."""

    uplink_bytes_total: Total
    downlink_bytes_total: Total
    uuid: str | None = None
    inbound_tag: str | None = None


class WireSampleAnyUuid(msgspec.Struct, gc=False):
    """A sample whose uuid may be any JSON value, for snapshots in which one is no string."""

    uplink_bytes_total: Total
    downlink_bytes_total: Total
    uuid: msgspec.Raw = msgspec.Raw(b"null")
    inbound_tag: str | None = None


class WireSnapshot(msgspec.Struct, gc=False):
    """One snapshot. Its samples are decoded later, so that those of one are in memory at a time."""

    collected_at: str
    samples: msgspec.Raw
    node_id: str | None = None
    env: str | None = None


_Snapshots = list[WireSnapshot] | None | msgspec.UnsetType


class WirePage(msgspec.Struct, gc=False):
    """One page of a window."""

    node_id: str | None = None
    env: str | None = None
    snapshots: _Snapshots = msgspec.UNSET
    items: _Snapshots = msgspec.UNSET
    has_more: bool | None = None
    next_cursor: str | None = None


class _WireNames(msgspec.Struct, gc=False):
    """Who speaks in a page or snapshot that can't be used; everything else may be wrong."""

    node_id: msgspec.Raw = msgspec.Raw(b"null")
    env: msgspec.Raw = msgspec.Raw(b"null")
    snapshots: msgspec.Raw = msgspec.Raw(b"null")
    items: msgspec.Raw = msgspec.Raw(b"null")


_Wire = TypeVar("_Wire")
_Usable = tuple[list[WireSample], tuple[str, ...]]

_PAGE = msgspec.json.Decoder(WirePage)
_SNAPSHOT = msgspec.json.Decoder(WireSnapshot)
_SAMPLES = msgspec.json.Decoder(list[WireSample] | None)
_SAMPLES_ANY_UUID = msgspec.json.Decoder(list[WireSampleAnyUuid] | None)
_STRING = msgspec.json.Decoder(str)
_UNDECODABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_NAMES = msgspec.json.Decoder(_WireNames)
_NAMES_LIST = msgspec.json.Decoder(list[_WireNames])
_NAME = msgspec.json.Decoder(str | None)
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def page_of(body: bytes, where: str, max_objects: int) -> WirePage:
    """Return the page that a body holds.

    Raises ExporterError for what is no page, TooLargeError for more than `max_objects` objects.
    """
    return _decoded(_PAGE, body, where, max_objects)


def snapshot_of(body: bytes, where: str, max_objects: int) -> WireSnapshot:
    """Return the one bare snapshot that a body holds; raises as `page_of` does."""
    return _decoded(_SNAPSHOT, body, where, max_objects)


def snapshots_of(page: WirePage) -> list[WireSnapshot]:
    """Return the snapshots of a page, under either of their two names.

    Raises ExporterError where it has neither, or both.
    """
    if page.snapshots is msgspec.UNSET and page.items is msgspec.UNSET:
        raise ExporterError("the answer has neither snapshots nor items", code="invalid_answer")
    if page.snapshots and page.items:
        raise ExporterError("the answer has both snapshots and items", code="invalid_answer")
    return page.snapshots or page.items or []


def cursor_of(page: WirePage) -> str:
    """Return where the next page begins; raises ExporterError where that is missing or too long."""
    if not page.next_cursor:
        raise ExporterError("has_more without a next_cursor", code="cursor")
    if len(page.next_cursor) > MAX_CURSOR_CHARACTERS:
        raise ExporterError(f"next_cursor has {len(page.next_cursor)} characters", code="cursor")
    return page.next_cursor


def names_in(body: bytes) -> list[tuple[str | None, str | None]]:
    """Return the (node_id, env) of each page and snapshot in a body that can't be used otherwise.

    Those whose names are not text are left out; there are none where the body is no JSON.
    """
    try:
        wires = [_NAMES.decode(body)]
    except _UNDECODABLE:
        return []
    for listed in (wires[0].snapshots, wires[0].items):
        with suppress(*_UNDECODABLE):
            wires.extend(_NAMES_LIST.decode(listed))
    names = []
    for wire in wires:
        with suppress(*_UNDECODABLE):
            names.append((_NAME.decode(wire.node_id), _NAME.decode(wire.env)))
    return names


def snapshots_in(body: bytes) -> list[tuple[str, bytes]]:
    """Return where each snapshot of a page is, and its JSON; none where that can't be found."""
    found: list[tuple[str, bytes]] = []
    with suppress(*_UNDECODABLE):
        wire = _NAMES.decode(body)
        for name, listed in (("snapshots", wire.snapshots), ("items", wire.items)):
            with suppress(*_UNDECODABLE):
                raws = enumerate(_RAW_LIST.decode(listed))
                found.extend((f"{name}[{place}]", bytes(raw)) for place, raw in raws)
    return found


def usable_samples(raw: bytes | msgspec.Raw, where: str) -> _Usable:
    """Return the samples with a canonical uuid, and a reason for each without a usable one."""
    try:
        samples = _SAMPLES.decode(raw) or []
    except msgspec.DecodeError as error:
        if not str(error).endswith(".uuid`"):
            raise _refusal(error, f"{where}: samples") from None
        return _usable_of_any(raw, where)
    if all_canonical([sample.uuid for sample in samples]):
        return samples, ()
    return _canonical(samples)


def _decoded(
    decoder: msgspec.json.Decoder[_Wire], body: bytes | msgspec.Raw, where: str, max_objects: int
) -> _Wire:
    """Return what a body holds, after the checks that msgspec does not make."""
    if _is_web_page(body):
        raise ExporterError(_HTML_HINT, code="html")
    _check_text(body, where)
    if body.count(b"{") > max_objects:
        raise TooLargeError(f"{where} holds more than {max_objects} objects")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refusal(error, where) from None


def _is_web_page(body: bytes | msgspec.Raw) -> bool:
    return body[:_CHUNK_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


def _check_text(body: bytes, where: str) -> None:
    """Raise ExporterError for what is no UTF-8, and for a NUL in a string."""
    if not body.isascii():
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for start in range(0, len(body), _CHUNK_BYTES):
                decoder.decode(body[start : start + _CHUNK_BYTES])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise ExporterError(f"{where} is not UTF-8", code="not_json") from None
    if b"\\" in body and _ESCAPED_NUL.search(body):
        raise ExporterError(f"{where}: a string holds a NUL", code="invalid_answer")


def _refusal(error: Exception, where: str) -> ExporterError:
    """Return why msgspec does not decode a body. Its messages quote nothing of the content."""
    if isinstance(error, RecursionError):
        return ExporterError(f"{where} is not usable JSON: nested too deeply", code="not_json")
    message, _, path = str(error).partition(" - at `$")
    message = message.replace("`", "").removeprefix("JSON is malformed: ")
    message = message[:1].lower() + message[1:]
    if isinstance(error, msgspec.ValidationError):
        return ExporterError(f"{where}{path.rstrip('`')}: {message}", code="invalid_answer")
    return ExporterError(f"{where} is not JSON: {message}", code="not_json")


def _usable_of_any(raw: bytes | msgspec.Raw, where: str) -> _Usable:
    """Do as `usable_samples` where at least one uuid is no string; about five times slower."""
    try:
        wires = _SAMPLES_ANY_UUID.decode(raw) or []
    except msgspec.DecodeError as error:
        raise _refusal(error, f"{where}: samples") from None
    samples = []
    for wire in wires:
        uuid = bytes(wire.uuid)
        text = _STRING.decode(uuid) if uuid.startswith(b'"') else None
        samples.append(
            WireSample(wire.uplink_bytes_total, wire.downlink_bytes_total, text, wire.inbound_tag)
        )
    return _canonical(samples)


def _canonical(samples: list[WireSample]) -> _Usable:
    """Bring uuids to lower case, and sort out the samples that have none."""
    usable: list[WireSample] = []
    rejected: list[str] = []
    for number, sample in enumerate(samples, 1):
        uuid = canonical_uuid(sample.uuid)
        if uuid is not None:
            sample.uuid = uuid
            usable.append(sample)
            continue
        if len(rejected) >= _SHOWN_REASONS:
            rejected.append(_NO_UUID)
            continue
        shown = "without text" if sample.uuid is None else quoted(sample.uuid)
        rejected.append(f"sample {number}: uuid {shown} is not a UUID")
    return usable, tuple(rejected)
