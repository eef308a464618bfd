"""Passing over samples that were seen before is a short cut: it changes no page but for them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from billing_cli.core.model import NodeIdentity, SamplesDigest, Snapshot
from billing_cli.exporter import decode as decode_module
from billing_cli.exporter import sample_runs
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.decode import Expected, Page, decode_latest, decode_window_page
from billing_cli.exporter.limits import DEFAULT_LIMITS
from billing_cli.exporter.samples import streams_of
from billing_cli.exporter.seen import Seen
from tests.core.examples import examples
from tests.exporter.answers import (
    BOB,
    NOW,
    START,
    encoded,
    minutes,
    page,
    sample,
    snapshot,
    without,
)
from tests.exporter.test_sample_runs import bodies, heaviest

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = timedelta(minutes=1)
JP = NodeIdentity("prod", "jp-1")
SAMPLES = [sample(), sample(BOB, 5, 6)]
TEXT = encoded(SAMPLES)[1:-1]
DIGEST = SamplesDigest(len(TEXT), sha256(TEXT).digest())

# Snapshots whose samples are all that the text between the brackets holds.
CERTAIN = {
    "contract": snapshot(samples=SAMPLES),
    "samples first": {"samples": SAMPLES} | without(snapshot(), "samples"),
    "members behind": snapshot(samples=SAMPLES, emitted_at="later", more=[{}, [{"a": []}]]),
    "members before": {"more": {"samples": "a"}} | snapshot(samples=SAMPLES),
    "bracket in a label": snapshot(samples=[sample(email="a]b"), sample(BOB)]),
    "brace in a label": snapshot(samples=[sample(email="a}b"), sample(BOB)]),
    "wide label": snapshot(samples=[sample(), sample(BOB, email="\u00e9\U0001f600")]),
}

# Snapshots of which that is not known, or that are not worth it.
UNCERTAIN = {
    "no samples": snapshot(samples=[]),
    "null": snapshot(samples=None) | {"samples": None},
    "both in a label": snapshot(samples=[sample(email="a}]b"), sample(BOB)]),
    "escape": snapshot(samples=[sample(email='a"b'), sample(BOB)]),
    "comma": snapshot(samples=[sample(), sample(BOB, email="a,b")]),
    "rejected": snapshot(samples=[sample("x"), sample(BOB)]),
    "upper case": snapshot(samples=[sample("A" + BOB[1:])]),
    "more in a sample": snapshot(samples=[sample(), sample(BOB, more=1)]),
    "another order": snapshot(samples=[sample(), dict(reversed(sample(BOB).items()))]),
    "samples of another object behind": snapshot(samples=SAMPLES, more={"samples": SAMPLES}),
    "something else behind": snapshot(samples=SAMPLES, more={"samples": [{"a": 1}]}),
}


@pytest.mark.parametrize("shot", CERTAIN.values(), ids=CERTAIN.keys())
@pytest.mark.parametrize("list_name", ["snapshots", "items"])
@pytest.mark.parametrize("block_bytes", [1, 150, 128 * 1024])
def test_the_digest_is_that_of_all_between_the_brackets(
    shot: dict[str, Any], list_name: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands around them, and whatever the strings in them hold."""
    monkeypatch.setattr(sample_runs, "_BLOCK_BYTES", block_bytes)
    value = without(page(), "snapshots") | {list_name: [shot]}
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    text = json.dumps(shot["samples"], ensure_ascii=False, separators=(",", ":")).encode()[1:-1]
    assert decoded(body).snapshots[0].digest == SamplesDigest(len(text), sha256(text).digest())


@pytest.mark.parametrize("shot", UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_there_is_no_digest_where_that_is_not_certain(shot: dict[str, Any]) -> None:
    """Nor where decoding is as quick."""
    assert decoded(encoded(page([shot]))).snapshots[0].digest is None


@pytest.mark.parametrize(
    ("before", "samples"),
    [
        ([{"a": 2}, 3], [sample(), sample(BOB)]),
        ([sample(), 3], [sample(), sample(BOB)]),
        ([sample(), 3], [sample(), sample(BOB, email="a,b"), sample(BOB, inbound_tag="")]),
    ],
)
def test_a_part_that_holds_more_than_the_samples_has_no_digest(
    before: list[Any], samples: list[Any]
) -> None:
    """A space hides where they begin: the part begins with another list, and ends with them."""
    body = encoded(page([{"more": {"samples": before}} | snapshot(samples=samples)]))
    first, opening, rest = body.rpartition(b'"samples":[')
    found = decoded(first + opening.replace(b":", b" :") + rest).snapshots[0]
    assert len(found.totals) == len(samples)
    assert found.digest is None


def test_white_space_between_samples_is_part_of_the_text() -> None:
    """That at the ends of the list is not, and without the brackets nobody misses it."""
    first, second = map(encoded, SAMPLES)
    text = first + b" ,\n" + second
    body = encoded(page([snapshot(samples=["HERE"])]))
    digest = decoded(body.replace(b'"HERE"', text)).snapshots[0].digest
    assert digest == SamplesDigest(len(text), sha256(text).digest())
    assert decoded(body.replace(b'"HERE"', b" " + text)).snapshots[0].digest is None
    assert decoded(body.replace(b'"HERE"', text + b" ")).snapshots[0].digest is None
    assert (
        decoded(json.dumps(page([snapshot(samples=SAMPLES)])).encode()).snapshots[0].digest is None
    )


def test_only_the_last_snapshot_of_a_page_has_a_digest() -> None:
    """It is the one that the next run begins with."""
    shots = decoded(encoded(page(minutes(3, size=2)))).snapshots
    assert [one.digest is not None for one in shots] == [False, False, True]


def test_a_latest_answer_has_no_digest() -> None:
    """Nobody would ever be shown the same snapshot again."""
    shot = decode_latest(encoded(snapshot(samples=SAMPLES)), expected=Expected(), now=NOW)
    assert shot.digest is None


@examples(1000)
@given(bodies(), st.sampled_from([1, 40, 400, 128 * 1024]))
def test_a_digest_is_never_of_anything_but_the_samples(body: bytes, block_bytes: int) -> None:
    """Where there is one, its text in brackets is a list of the same samples."""
    with patch.object(sample_runs, "_BLOCK_BYTES", block_bytes):
        try:
            found = decoded(body)
        except ExporterError:
            return
    assert all(one.digest is None for one in found.snapshots[:-1])
    if not found.snapshots or found.snapshots[-1].digest is None:
        return
    digest = found.snapshots[-1].digest
    (text,) = {
        text for text in parts(body, digest.size_bytes) if sha256(text).digest() == digest[1]
    }
    value = json.loads(body)
    told = (value.get("snapshots") or value["items"])[-1]["samples"]
    assert json.loads(b"[" + text + b"]") == told


def test_what_was_seen_before_is_not_decoded() -> None:
    """The first snapshot comes without totals, the others as ever."""
    shots = [snapshot(samples=SAMPLES), snapshot(START + MINUTE, SAMPLES)]
    with counting() as decoded_samples:
        found = decoded(encoded(page(shots)), seen())
    assert decoded_samples == [2]
    first, second = found.snapshots
    assert first == Snapshot(seen().collected_at, JP, {}, is_as_seen=True)
    assert first.digest is None
    assert len(second.totals) == 2
    assert second.digest == DIGEST


@pytest.mark.parametrize(
    "known",
    [
        Seen(START + MINUTE, JP, DIGEST),
        Seen(START, JP, DIGEST),
        Seen(START + timedelta(microseconds=1), JP, DIGEST),
    ],
)
def test_the_same_samples_at_another_time_are_decoded(known: Seen) -> None:
    """An idle node tells the same in every minute; only the watermark's are passed over."""
    shots = [
        snapshot(START + timedelta(microseconds=5), SAMPLES),
        snapshot(START + MINUTE, SAMPLES),
    ]
    assert_all_is_decoded(encoded(page(shots)), known)
    with counting() as decoded_samples:
        decoded(encoded(page(shots)), known)
    assert decoded_samples == [2, 2]


def test_the_same_samples_of_another_node_are_decoded() -> None:
    """A source that speaks for another node begins anew with them."""
    for identity in (NodeIdentity("prod", "jp-2"), NodeIdentity("", "jp-1")):
        assert_all_is_decoded(BODY, Seen(START, identity, DIGEST))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"1024", b"1025"),
        (b"1024", b"9999999999"),
        (b"user@", b"USER@"),
        (b'"samples":[{', b'"samples":[ {'),
        (b"}]}", b"} ]}"),
        (b'"samples":[', b'"samples": ['),
        (b"}]}", b"},{}]}"),
        (b'"collected_at":', b'"collected_at": '),
    ],
)
def test_what_is_spelled_differently_is_decoded(old: bytes, new: bytes) -> None:
    """By a single byte, of the same length or not; what came of it is for others to say."""
    assert old in BODY
    assert_all_is_decoded(BODY.replace(old, new, 1), seen())


ELSEWHERE = {
    "in the page": {"more": {"collected_at": START.isoformat(), "samples": SAMPLES}}
    | page([snapshot(samples=[sample()])]),
    "in another snapshot": page(
        [
            without(snapshot(), "samples") | {"samples": None},
            snapshot(START + MINUTE, SAMPLES),
        ]
    ),
    "deeper in the first": page(
        [{"collected_at": START.isoformat(), "more": [{"samples": SAMPLES}]} | snapshot()]
    ),
    "a stamp of something else": page(
        [{"more": {"collected_at": START.isoformat()}} | snapshot(START + MINUTE, SAMPLES)]
    ),
    "a stamp behind": page([{"samples": SAMPLES} | without(snapshot(), "samples")]),
    "twice": page([snapshot(START.isoformat(), SAMPLES)] * 2),
    "no page": {"samples": SAMPLES},
    "no snapshots": page([]) | {"has_more": [{"samples": SAMPLES}]},
}


@pytest.mark.parametrize("value", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_what_is_not_the_first_snapshot_s_is_decoded(value: dict[str, Any]) -> None:
    """The place is guessed, and then proven; without a proof the page is decoded as ever."""
    assert_all_is_decoded(encoded(value), seen())


def test_what_was_seen_stands_for_nothing_but_a_whole_list() -> None:
    """Elsewhere these bytes may be no JSON at all, and then the page is none."""
    shot = encoded(snapshot(samples=["HERE"]))
    for bad in (
        shot.replace(b'["HERE"]', b"[" + TEXT + b"],[" + TEXT + b"]"),
        shot.replace(b'["HERE"]', b"[" + TEXT + b"]]"),
        shot.replace(b'"samples":["HERE"]', b'"samples":[' + TEXT + b'],"samples":[]'),
        shot.replace(b'"samples":["HERE"]', b'"a":"samples":[' + TEXT + b"]"),
        shot.replace(b'"samples":["HERE"]', b'"a":""samples":[' + TEXT + b']""'),
        shot.replace(b'["HERE"]', b"[" + TEXT + b"]NaN"),
    ):
        body = encoded(page(["SHOT"])).replace(b'"SHOT"', bad)
        assert isinstance(outcome(body, None), str)
        assert outcome(body, seen()) == outcome(body, None)


@pytest.mark.parametrize(
    "wrong",
    [
        page([snapshot(samples=SAMPLES), snapshot(START + MINUTE, [sample(up=-1)])]),
        page([snapshot(samples=SAMPLES), snapshot(START + MINUTE, [sample()] * 2)]),
        page([snapshot(samples=SAMPLES), snapshot(NOW + 9 * MINUTE)]),
        page([snapshot(samples=SAMPLES), snapshot(START + MINUTE, node_id="jp-2")]),
        page([snapshot(samples=SAMPLES)], node_id="jp-2"),
        page([snapshot(samples=SAMPLES)], items=[snapshot()]),
        page([snapshot(samples=SAMPLES)], has_more=1),
        page([snapshot(samples=SAMPLES)], has_more=True),
        page([snapshot(samples=SAMPLES), {}]),
        page([snapshot(samples=SAMPLES)], more="\0"),
        page([snapshot(samples=SAMPLES)], more=float("nan")),
    ],
)
def test_what_is_wrong_with_the_rest_is_found_in_the_same_words(wrong: dict[str, Any]) -> None:
    """Passing over a part makes no page right."""
    body = encoded(wrong)
    reason = outcome(body, None)
    assert isinstance(reason, str)
    assert outcome(body, seen()) == reason


def test_what_was_seen_weighs_what_it_did() -> None:
    """A page that would take too much memory is refused to the same byte."""
    for limit in (heaviest(BODY) - 1, heaviest(BODY)):
        assert isinstance(outcome(BODY, seen(), limit), str) == (limit < heaviest(BODY))
        assert isinstance(outcome(BODY, None, limit), str) == (limit < heaviest(BODY))


STAMPS = ("2026-04-08T12:00:00.123456789Z", "2026-04-08T12:01:00Z", "2026-04-08T12:02:00Z")


FRAGMENTS = [
    *["", " ", "\n", ",", "[", "]", "{", "}", '"', "NaN", "null", "]]", "}]", '"samples":['],
    *['"more":{"samples":[]},', '"collected_at":"2026-04-08T12:00:00Z",', '{"samples":[]},'],
    *[encoded(one).decode() for one in (sample(), [sample()], {"samples": SAMPLES})],
]


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Return a page as the contract lays it out, or one with a place or two that are not so."""
    lists = st.lists(
        st.sampled_from([*SAMPLES, sample(email="a]}")]), min_size=1, max_size=3, unique_by=str
    )
    shots = [snapshot(at, draw(lists)) for at in STAMPS[draw(st.sampled_from([0, 0, 0, 1])) :]]
    text = encoded(page(shots[: draw(st.integers(1, 3))])).decode()
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        edges = [place for place, one in enumerate(text) if one in '{}[]",:']
        # Past the end of the first samples: there a change leaves them as they were.
        first = text.find("]") * draw(st.integers(0, 1))
        start = draw(st.sampled_from([one for one in edges if one >= first]))
        end = draw(st.sampled_from([start, start + 1] * 20 + edges))
        text = text[:start] + draw(st.sampled_from(FRAGMENTS)) + text[max(start, end) :]
        if len(text) < 100:
            break
    return text.encode()


@examples(2000)
@given(pages(), st.data(), st.sampled_from([1, 40, 400, 128 * 1024]))
def test_a_page_decodes_alike_whatever_was_seen(
    body: bytes, data: st.DataObject, block_bytes: int
) -> None:
    """The same page or the same words, but for the totals of the snapshot that was seen."""
    before = data.draw(st.sampled_from(seen_in(body) or [decoded(ONE).snapshots[0]]))
    assert before.digest is not None
    known = Seen(before.collected_at, before.identity, before.digest)

    with patch.object(sample_runs, "_BLOCK_BYTES", block_bytes):
        plain, short = outcome(body, None), outcome(body, known)
    if isinstance(plain, str) or isinstance(short, str):
        assert plain == short
        return
    shots = list(short.snapshots)
    if shots and shots[0].is_as_seen:
        event("passed over")
        first = plain.snapshots[0]
        assert (shots[0].collected_at, shots[0].identity) == (known.collected_at, known.identity)
        assert (first.totals, first.rejected) == (before.totals, ())
        shots[0] = replace(shots[0], totals=first.totals, is_as_seen=False)
    assert replace(short, snapshots=tuple(shots)) == plain


ONE = encoded(page([snapshot(samples=SAMPLES)]))
BODY = encoded(page([snapshot(samples=SAMPLES), snapshot(START + MINUTE, [sample(BOB, 7, 8)])]))


def seen() -> Seen:
    """Return what is known of the first snapshot of BODY."""
    return Seen(START.replace(microsecond=0), JP, DIGEST)


def decoded(body: bytes, known: Seen | None = None) -> Page:
    """Return the page that a body holds."""
    return decode_window_page(body, expected=Expected(), now=NOW, seen=known)


def outcome(
    body: bytes, known: Seen | None, limit: int = DEFAULT_LIMITS.decoded_bytes
) -> Page | str:
    """Return the page that a body holds, or why it holds none."""
    try:
        return decode_window_page(
            body, expected=Expected(), now=NOW, seen=known, max_decoded_bytes=limit
        )
    except ExporterError as error:
        return error.reason


@contextmanager
def counting() -> Iterator[list[int]]:
    """Yield how many samples are decoded of each snapshot from here on."""
    counts: list[int] = []

    def counted(samples: list[Any], *more: Any) -> Any:
        totals, rejected = streams_of(samples, *more)
        counts.append(len(totals))
        return totals, rejected

    with patch.object(decode_module, "streams_of", counted):
        yield counts


def places(body: bytes, piece: bytes) -> list[int]:
    """Return where a piece stands in a body."""
    return [place for place in range(len(body)) if body.startswith(piece, place)]


def parts(body: bytes, size: int) -> set[bytes]:
    """Return all parts of a body that have a size."""
    return {body[place : place + size] for place in range(len(body) - size + 1)}


def seen_in(body: bytes) -> list[Snapshot]:
    """Return what an earlier run can have seen of which the samples are somewhere in a body."""
    found = []
    for opening in places(body, b'"samples":['):
        start = opening + len(b'"samples":[')
        for end in [end for end in places(body, b"]") if end > start][:3]:
            before = page([snapshot(STAMPS[0], ["HERE"])])
            one = outcome(encoded(before).replace(b'"HERE"', body[start:end]), None)
            if not isinstance(one, str) and one.snapshots[0].digest is not None:
                found.append(one.snapshots[0])
    return found


def assert_all_is_decoded(body: bytes, known: Seen) -> None:
    """Knowing that makes no difference at all."""
    found = outcome(body, known)
    assert found == outcome(body, None)
    assert isinstance(found, str) or not any(one.is_as_seen for one in found.snapshots)
