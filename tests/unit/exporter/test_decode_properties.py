"""Whatever arrives, decoding ends in a page or in its own error, and in the same one every time."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from billing_cli.core.model import MAX_TOTAL
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.decode import Decoder, Page
from tests.unit.core.examples import examples
from tests.unit.exporter.answers import ALICE, BOB, NOW, encoded, minutes, page, sample, snapshot

REAL = encoded(page(minutes(3, size=2), has_more=True, next_cursor="2026-04-08T12:02:00Z"))

TOKENS = [
    b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"{", b"}", b"[", b"]", b",",
    b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"9" * 30, b"0.5",
    b'"uuid":', b'"samples":', b'"uplink_bytes_total":', b"\x00", b"\n", b"2026-13-01T00:00:00Z",
]  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([ALICE, BOB, MAX_TOTAL, MAX_TOTAL + 1, "prod", "jp-1", -1, ""])
)
keys = st.sampled_from([*page(), *snapshot(), *sample(), "items"]) | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=30,
)
totals = st.integers(min_value=-1, max_value=MAX_TOTAL + 1) | scalars
samples = st.fixed_dictionaries(
    {},
    optional={
        "uuid": st.uuids().map(str) | scalars,
        "email": scalars,
        "inbound_tag": st.sampled_from(["a", "b", ""]) | scalars,
        "uplink_bytes_total": totals,
        "downlink_bytes_total": totals,
    },
)
good_samples = st.fixed_dictionaries(
    {
        "uuid": st.uuids().map(str) | st.sampled_from([ALICE, ALICE.upper(), "nobody", None]),
        "email": st.text(max_size=5),
        "inbound_tag": st.sampled_from(["a", "b", ""]),
        "uplink_bytes_total": st.integers(min_value=0, max_value=MAX_TOTAL),
        "downlink_bytes_total": st.integers(min_value=0, max_value=MAX_TOTAL),
    }
)


@examples(80)
@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
@example(b"")
@example(b"[" * 5000)
def test_any_bytes_and_any_json_are_decoded_or_refused(body: bytes) -> None:
    """Nothing but the decoder's own error ever comes out."""
    outcome(body)


@examples(80)
@given(st.lists(samples, max_size=4), values)
def test_any_samples_are_decoded_or_refused(made: list[Any], extra: Any) -> None:
    """The same holds deep inside an otherwise good page."""
    outcome(json.dumps(page([snapshot(samples=made, more=extra)], extra=extra)).encode())


@examples(100)
@given(st.data())
def test_a_damaged_page_is_decoded_or_refused(data: st.DataObject) -> None:
    """Bytes of a real page are replaced, dropped and repeated, tokens are thrown in."""
    body = REAL
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 40)))
        patch = data.draw(
            st.sampled_from(TOKENS) | st.binary(max_size=4) | st.just(body[start:end] * 2)
        )
        body = body[:start] + patch + body[end:]
    outcome(body)


@examples(80)
@given(st.lists(good_samples, max_size=6), st.randoms(use_true_random=False))
def test_the_layout_of_a_sample_changes_nothing(made: list[Any], random: Any) -> None:
    """Neither the order of its keys nor an unknown one."""
    shuffled = []
    for one in made:
        members = [*one.items(), ("extra", [1])]
        random.shuffle(members)
        shuffled.append(dict(members))
    plain = outcome(encoded(page([snapshot(samples=made)])))
    assert outcome(encoded(page([snapshot(samples=shuffled)]))) == plain


@examples(80)
@given(st.lists(good_samples, min_size=1, max_size=6))
def test_every_sample_is_used_or_rejected(made: list[Any]) -> None:
    """None is lost: a page is refused, or each sample is a stream or has its reason."""
    decoded = outcome(encoded(page([snapshot(samples=made)])))
    if isinstance(decoded, Page):
        (only,) = decoded.snapshots
        assert len(only.totals) + len(only.rejected) == len(made)
        wanted = {
            (one["inbound_tag"], one["uuid"].lower()): (
                one["uplink_bytes_total"],
                one["downlink_bytes_total"],
            )
            for one in made
            if one["uuid"] not in ("nobody", None)
        }
        assert only.totals == wanted


def outcome(body: bytes) -> Page | str:
    """Return the decoded page, or the one line that says why there is none."""
    try:
        Decoder(NOW).latest(body)
    except ExporterError as error:
        assert_one_line(error.reason)
    try:
        decoded = Decoder(NOW).page(body)
    except ExporterError as error:
        assert_one_line(error.reason)
        return error.reason
    assert decoded.has_more == (decoded.next_cursor is not None)
    for one in decoded.snapshots:
        assert all(0 <= total <= MAX_TOTAL for pair in one.totals.values() for total in pair)
    return decoded


def assert_one_line(reason: str) -> None:
    """A reason is printable and on one line."""
    assert reason.isprintable(), reason
