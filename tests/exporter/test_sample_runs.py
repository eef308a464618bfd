"""Lifting samples out of the text is a short cut: it never changes what a body decodes to."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing_cli.exporter import decode as decode_module
from billing_cli.exporter import sample_runs
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.decode import Expected, Page, decode_latest, decode_window_page
from billing_cli.exporter.limits import DEFAULT_LIMITS
from billing_cli.exporter.sample_runs import SampleRun, parse_runs
from billing_cli.exporter.samples import raw_object
from billing_cli.exporter.strict_json import weight_of_text, weight_of_values
from tests.core.examples import examples
from tests.exporter.answers import ALICE, BOB, NOW, encoded, minutes, page, sample, snapshot

PLAIN = encoded(sample()).decode()
OTHER = encoded(sample(BOB)).decode()

# Texts, because most of what may be wrong with JSON cannot be made from values.
STRINGS = [
    f'"{ALICE}"',
    f'"{BOB}"',
    f'"{ALICE.replace("1", "A")}"',
    f'"{ALICE[:-1]}g"',
    f'"{ALICE[:-1]}\n"',
    f'"{ALICE[:-1]}\x01"',
    f'"{ALICE[:-1]}\\"',
    f'"{ALICE[:-1]}"',
    f'"{ALICE[:-1]}é"',
    '""',
    '"a"',
    '"NaN"',
    '"é\U0001f600"',
    '"a,b"',
    '"{a"',
    '"[a"',
    '"samples"',
    '"\x7f"',
    r'"\u0061"',
    r'"\u0000"',
    r'"\ud800"',
    r'"\""',
    '"\x01"',
    '"a\nb"',
    json.dumps(PLAIN),
    f'"[{PLAIN}]"',
    f'"{PLAIN}',
    '"' + "t" * 300 + '"',
]
COUNTERS = [
    *["0", "1", "-1", "01", "1.0", "1e3", "-0", "1_0", "+1", "NaN", "Infinity", "true", "null"],
    *["{}", "[]", "[1", "1]", '"1"', " 1", "1 ", "\u0661", "", "9" * 18, "9" * 19, "9" * 5000],
    *[str(2**63 - 1), str(2**63)],
]
string_texts = st.sampled_from(STRINGS)
counter_texts = st.sampled_from(COUNTERS) | st.integers(0, 10**18).map(str)
value_texts = string_texts | counter_texts | st.sampled_from([PLAIN, f"[{PLAIN}]", "{}"])


@st.composite
def sample_texts(draw: st.DrawFn) -> str:
    """Return a sample as the contract lays it out, or with something about it that is not so."""
    members = [
        ["uuid", json.dumps(draw(st.uuids().map(str)))],
        ["email", '"user@example.com"'],
        ["inbound_tag", '"xhttp-premium"'],
        ["uplink_bytes_total", "1024"],
        ["downlink_bytes_total", "2048"],
    ]
    if draw(st.booleans()):
        change = draw(st.sampled_from(["value", "twice", "more", "less", "order", "space"]))
        place = draw(st.integers(0, 4))
        if change == "value":
            texts = counter_texts if place > 2 else string_texts
            members[place][1] = draw(texts if draw(st.booleans()) else value_texts)
        elif change == "twice":
            members.insert(draw(st.integers(0, 5)), [members[place][0], draw(value_texts)])
        elif change == "more":
            members.insert(draw(st.integers(0, 5)), ["more", draw(value_texts)])
        elif change == "less":
            del members[place]
        elif change == "order":
            members.append(members.pop(place))
        else:
            members[place][1] += draw(st.sampled_from([" ", "\n", "\t\r"]))
    return "{" + ",".join(f'"{key}":{text}' for key, text in members) + "}"


# Two of the same stream, elements that are no samples, and what a list may not have between them.
element_texts = sample_texts() | st.sampled_from([PLAIN, OTHER]) | value_texts
separators = st.sampled_from([","] * 12 + [", ", ",,", "", ":", ",\n"])


@st.composite
def list_texts(draw: st.DrawFn, elements: st.SearchStrategy[str]) -> str:
    """Return a list of some elements, most of them with a comma between."""
    text = ""
    for number, element in enumerate(draw(st.lists(elements, max_size=6))):
        text += (draw(separators) if number else "") + element
    return f"[{text}]"


@st.composite
def object_texts(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """Return an object of these members, now and then with one replaced, repeated or strange."""
    members = list(members)
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(0, len(members)))
        key = draw(st.sampled_from([key for key, _ in members] + ["more", "items"]))
        members.insert(place, (key, draw(value_texts)))
    if draw(st.integers(0, 9)) == 0:
        return "{" + ",".join([f'"{key}":{text}' for key, text in members] + [PLAIN]) + "}"
    return "{" + ",".join(f'"{key}":{text}' for key, text in members) + "}"


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return the body of a page: mostly right, or wrong at any level."""
    elements = draw(st.sampled_from([element_texts, sample_texts(), st.sampled_from([PLAIN])]))
    shots = [
        draw(
            object_texts(
                [
                    ("collected_at", '"2026-04-08T12:00:00Z"'),
                    ("node_id", '"jp-1"'),
                    ("env", '"prod"'),
                    ("samples", draw(list_texts(elements))),
                ]
            )
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    text = draw(
        object_texts(
            [
                ("node_id", '"jp-1"'),
                ("env", '"prod"'),
                ("snapshots", f"[{','.join(shots)}]"),
                ("has_more", draw(st.sampled_from(["false", "true", "NaN"]))),
                ("next_cursor", draw(st.sampled_from(['"c"', '"NaN"', "null", PLAIN]))),
            ]
        )
    )
    return (text + draw(st.sampled_from(["", "\n", "NaN"]))).encode()


@examples(1500)
@given(bodies(), st.sampled_from([1, 40, 400, 128 * 1024]))
@example(encoded(page(minutes(3, size=3))), 200)
@example(f'{{"snapshots":[],"a":"x{PLAIN}"}}'.encode(), 400)
@example(f'{{"snapshots":[],"a":["x{PLAIN}",NaN]}}'.encode(), 400)
@example(f'{{"snapshots":[],"a":["x{PLAIN}",Infinity]}}'.encode(), 400)
@example(f'{{"snapshots":[],"a":Na{PLAIN}N}}'.encode(), 400)
@example(f'{{"snapshots":[],{PLAIN}:1}}'.encode(), 400)
@example(f'{{"snapshots":[],"a":{PLAIN},{PLAIN}}}'.encode(), 400)
@example(f'{{"snapshots":[],"a":"x","b{PLAIN}"}}'.encode(), 400)
@example(b"\xef\xbb\xbf" + encoded(page(minutes(2))), 400)
@example(encoded(page(minutes(2))) + b"\xff", 400)
def test_a_body_decodes_alike_with_and_without_lifting(body: bytes, block_bytes: int) -> None:
    """The same page, or the same words, wherever a body is cut into blocks."""
    with patch.object(sample_runs, "_BLOCK_BYTES", block_bytes):
        assert outcome(body) == strict_outcome(body)


@pytest.mark.parametrize("key", sample())
@pytest.mark.parametrize("text", STRINGS + COUNTERS, ids=lambda text: repr(text)[:30])
def test_a_sample_that_is_nearly_in_the_layout_decodes_alike(key: str, text: str) -> None:
    """What the pattern takes for granted, the parser would have found the same."""
    shots = minutes(2, size=3)
    shots[1]["samples"][1][key] = "HERE"
    body = encoded(page(shots)).replace(b'"HERE"', text.encode())
    for limit in (heaviest(body) - 1, heaviest(body), DEFAULT_LIMITS.decoded_bytes):
        assert outcome(body, limit) == strict_outcome(body, limit)


@examples()
@given(bodies(), st.integers(-1, 1))
def test_what_weighs_too_much_is_refused_alike(body: bytes, beyond: int) -> None:
    """Both count the same commas and brackets, to the last one."""
    limit = heaviest(body) + beyond
    assert outcome(body, limit) == strict_outcome(body, limit)
    too_heavy = outcome(body, limit)[0] == "the answer would take too much memory to decode"
    assert too_heavy == (beyond < 0)


@pytest.mark.parametrize("block_bytes", [300, 1000, 128 * 1024])
def test_samples_in_the_layout_of_the_contract_are_lifted(
    block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them reaches the parser, however the body is cut."""
    monkeypatch.setattr(sample_runs, "_BLOCK_BYTES", block_bytes)
    value = lifted(encoded(page(minutes(4, size=30))))
    for shot in value["snapshots"]:
        assert {type(run) for run in shot["samples"]} == {SampleRun}
        assert sum(len(run.uuids) for run in shot["samples"]) == 30


def test_a_sample_of_another_layout_is_parsed_between_those_that_are_lifted() -> None:
    """One unusual label does not slow the others down."""
    shots = minutes(1, size=9)
    shots[0]["samples"][4]["email"] = 'a "quoted" label'
    found = lifted(encoded(page(shots)))["snapshots"][0]["samples"]
    assert [type(one) for one in found] == [SampleRun] * 2 + [tuple] + [SampleRun] * 2
    assert [len(one.uuids) for one in found if type(one) is SampleRun] == [1, 3, 1, 3]


def test_a_body_of_another_layout_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not gain anything is not tried to its end, and is not held twice."""
    spaced = json.dumps(page(minutes(10, size=20))).encode()
    assert lifted(spaced) is not None
    monkeypatch.setattr(sample_runs, "_MOST_REST_CHARACTERS", 1000)
    assert lifted(spaced) is None


def test_a_latest_answer_is_lifted_too() -> None:
    """Its samples are laid out as those of a window."""
    body = encoded(snapshot(samples=[sample(), sample(BOB, 0, 1)]))
    assert [run.uuids for run in lifted(body)["samples"]] == [[ALICE], [BOB]]
    assert outcome(body)[1] == strict_outcome(body)[1]


def heaviest(body: bytes) -> int:
    """Return the lowest limit under which a body is decoded."""
    return weight_of_text(body) + max(len(body), weight_of_values(body))


def lifted(body: bytes) -> Any:
    """Return what lifting makes of a body."""
    return parse_runs(body, raw_object, max_decoded_bytes=DEFAULT_LIMITS.decoded_bytes)


def strict_outcome(body: bytes, limit: int = DEFAULT_LIMITS.decoded_bytes) -> list[Any]:
    """Return what the strict parser alone makes of a body."""
    with patch.object(decode_module, "parse_runs", lambda *_, **__: None):
        return outcome(body, limit)


def outcome(body: bytes, limit: int = DEFAULT_LIMITS.decoded_bytes) -> list[Any]:
    """Return the page or why there is none, and the same of the body as a latest answer."""
    found: list[Any] = []
    for decode in (decode_window_page, decode_latest):
        try:
            decoded = decode(body, expected=Expected(), now=NOW, max_decoded_bytes=limit)
        except ExporterError as error:
            found.append(error.reason)
        else:
            # Equal dicts may differ in their order.
            shots = decoded.snapshots if isinstance(decoded, Page) else (decoded,)
            found.append((decoded, [list(shot.totals.items()) for shot in shots]))
    return found
