from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.model import MAX_TOTAL, NodeIdentity, StreamName, Totals
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.decode import Decoder, Expected, Page
from billing_cli.exporter.failures import TooLargeError
from billing_cli.exporter.limits import Limits
from tests.unit.exporter.answers import (
    ALICE,
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

if TYPE_CHECKING:
    from collections.abc import Iterator

JP_1 = NodeIdentity(env="prod", node_id="jp-1")


def test_a_page_becomes_snapshots_of_named_streams() -> None:
    """Tag and uuid name a stream; the e-mail address is dropped."""
    decoded = decode(page([snapshot(samples=[sample(), sample(BOB, 0, MAX_TOTAL)])]))
    assert decoded == Page(JP_1, decoded.snapshots, has_more=False, next_cursor=None)
    (only,) = decoded.snapshots
    assert only.identity == JP_1
    assert only.rejected == ()
    assert only.totals == {
        StreamName("xhttp-premium", ALICE): Totals(1024, 2048),
        StreamName("xhttp-premium", BOB): Totals(0, MAX_TOTAL),
    }
    assert all(type(name) is StreamName for name in only.totals)
    assert all(type(totals) is Totals for totals in only.totals.values())


def test_a_stamp_is_cut_to_microseconds() -> None:
    """Nine digits of a second lose their last three, without rounding."""
    decoded = decode(page([snapshot("2026-04-08T12:00:00.123456999Z")]))
    assert decoded.snapshots[0].collected_at == datetime(2026, 4, 8, 12, 0, 0, 123456, UTC)


@pytest.mark.parametrize(
    "samples",
    [
        [without(sample(inbound_tag=""), "inbound_tag")],
        [sample(inbound_tag=None)],
        [without(sample(inbound_tag=""), "email")],
        [sample(inbound_tag="", online=True, limits={"down": [1, 2.5, None]})],
        [dict(reversed(sample(inbound_tag="").items()))],
    ],
    ids=["no tag", "null tag", "no e-mail", "unknown fields", "another order"],
)
def test_a_sample_may_be_laid_out_otherwise(samples: list[Any]) -> None:
    """Order, unknown fields and a missing tag make no difference."""
    decoded = decode(page([snapshot(samples=samples)]))
    assert decoded.snapshots[0].totals == {StreamName("", ALICE): Totals(1024, 2048)}


@pytest.mark.parametrize(
    "answer",
    [
        page([snapshot(uplink_bytes_total=7, downlink_bytes_total=9, uuid="x", inbound_tag="")]),
        page(uplink_bytes_total=7, window_start="a", window_end="b", emitted_at=1, source_id="c"),
        without(page(items=[snapshot()]), "snapshots"),
        page(None, items=None),
        page(None, items=[]),
        page([], items=[snapshot()]),
        without(page(), "has_more", "next_cursor"),
        without(page(), "node_id", "env"),
        page(has_more=None, next_cursor="left over"),
    ],
    ids=",".join,
)
def test_a_page_may_be_laid_out_otherwise(answer: dict[str, Any]) -> None:
    """Unknown fields are ignored, `items` is another name for `snapshots`."""
    decoded = decode(answer)
    assert [one.totals for one in decoded.snapshots] == [
        {StreamName("xhttp-premium", ALICE): Totals(1024, 2048)}
    ]
    assert not decoded.has_more
    assert decoded.next_cursor is None


@pytest.mark.parametrize("nothing", [[], None])
def test_an_empty_window_names_nobody(nothing: object) -> None:
    """Empty node and environment are legal where there is no snapshot, even if others are due."""
    answer = without(page(node_id="", env=""), "snapshots") | {"snapshots": nothing}
    assert decode(answer, Expected("jp-1", "prod")).identity is None


def test_an_empty_window_may_name_its_node() -> None:
    """The node is then known, and checked."""
    assert decode(page([])).identity == JP_1
    assert "us-9" in reason(page([]), Expected(node_id="us-9"))


def test_a_snapshot_without_samples_is_one() -> None:
    """An idle node has nothing to count; an encoder may write null for its empty list."""
    for answer in (page([snapshot(samples=[])]), page([snapshot() | {"samples": None}])):
        assert decode(answer).snapshots[0].totals == {}


def test_a_next_page_is_named_by_its_cursor() -> None:
    """The cursor comes through as it was sent."""
    cursor = "2026-04-08T12:00:00.123456789Z|ä &+/="
    decoded = decode(page(has_more=True, next_cursor=cursor))
    assert decoded.has_more
    assert decoded.next_cursor == cursor


def test_an_upper_case_uuid_is_the_same_uuid() -> None:
    """Streams are named by the lower-case form."""
    upper = "ABCDEF00-1111-1111-1111-11111111ABCD"
    decoded = decode(page([snapshot(samples=[sample(upper)])]))
    assert list(decoded.snapshots[0].totals) == [StreamName("xhttp-premium", upper.lower())]


@pytest.mark.parametrize(
    "uuid",
    [
        None,
        7,
        "",
        "user@example.com",
        ALICE[:-1],
        ALICE + "1",
        f" {ALICE}",
        f"{ALICE}\n",
        f"{{{ALICE}}}",
        ALICE.replace("-", ""),
        ALICE.replace("-", "_"),
        "1111111\uff11-1111-1111-1111-111111111111",
        f"urn:uuid:{ALICE}",
        "g" + ALICE[1:],
        f"{ALICE}\n{BOB}",
    ],
)
def test_a_sample_without_a_uuid_is_rejected_alone(uuid: object) -> None:
    """It is shown with its reason; the other samples are used."""
    decoded = decode(page([snapshot(samples=[sample(uuid), sample(BOB, 3, 4)])]))
    (only,) = decoded.snapshots
    assert only.totals == {StreamName("xhttp-premium", BOB): Totals(3, 4)}
    (why,) = only.rejected
    assert why.startswith("sample 1: uuid ")
    assert why.endswith(" is not a UUID")
    assert "\n" not in why


def test_a_missing_uuid_is_rejected_alone() -> None:
    """A sample that lacks the key altogether is one without a uuid."""
    decoded = decode(page([snapshot(samples=[without(sample(), "uuid"), sample(BOB)])]))
    assert len(decoded.snapshots[0].totals) == 1
    assert decoded.snapshots[0].rejected == ("sample 1: uuid without text is not a UUID",)


def test_streams_are_named_by_one_object_across_snapshots() -> None:
    """Memory holds one name per stream, in whatever order the snapshots list them."""
    first, second, third = minutes(3, size=4)
    third["samples"].reverse()
    decoder = Decoder(NOW)
    pages = [decoder.page(encoded(page(each))) for each in ([first, second], [third], [first])]
    found = [name for one in pages for shot in one.snapshots for name in shot.totals]
    assert len(found) == 16
    assert len({id(name) for name in found}) == 4


def test_streams_that_are_made_up_all_the_time_are_forgotten() -> None:
    """The names that a fetch keeps have a bound, or a hostile exporter could fill the memory."""
    decoder = Decoder(NOW, limits=Limits(page_samples=10))
    for number in range(50):
        decoder.page(encoded(page([snapshot(samples=[sample(f"{number:08x}{ALICE[8:]}")])])))
    assert len(decoder.names) <= 11


def test_the_latest_answer_is_a_bare_snapshot() -> None:
    """Its element is that of a window's list."""
    decoded = Decoder(NOW, Expected("jp-1", "prod")).latest(encoded(snapshot()))
    assert decoded == decode(page()).snapshots[0]


@pytest.mark.parametrize(
    ("why", "bad"),
    [
        ("samples[1].uplink_bytes_total: expected int >= 0", sample(up=-1)),
        ("samples[1].downlink_bytes_total: expected int >= 0", sample(down=-1)),
        ("expected int <= 9223372036854775807", sample(up=MAX_TOTAL + 1)),
        ("expected int <= 9223372036854775807", sample(down=10**400)),
        ("expected int, got float", sample(up=1.0)),
        ("expected int, got float", sample(up=1e16)),
        ("expected int, got bool", sample(up=True)),
        ("expected int, got str", sample(up="1024")),
        ("expected int, got null", sample(down=None)),
        ("expected int, got array", sample(down=[])),
        ("missing required field uplink_bytes_total", without(sample(), "uplink_bytes_total")),
        ("missing required field downlink_bytes_total", without(sample(), "downlink_bytes_total")),
        ("missing required", without(sample("no uuid"), "downlink_bytes_total")),
        ("missing required", without(sample(7), "downlink_bytes_total")),
        ("samples[1].inbound_tag: expected str", sample(inbound_tag=7)),
        ("inbound_tag has 257 characters", sample(inbound_tag="x" * 257)),
        ("samples[1]: expected object, got array", [1, 2]),
        ("samples[1]: expected object, got null", None),
        ("samples[1]: expected object, got str", "text"),
    ],
)
def test_a_wrong_sample_fails_the_answer(why: str, bad: object) -> None:
    """Figures that cannot be right cast doubt on all the others."""
    assert why in reason(page([snapshot(samples=[sample(BOB), bad])]))
    assert why in latest_reason(snapshot(samples=[sample(BOB), bad]))


@pytest.mark.parametrize(
    "hidden",
    ["\x1b[2J", "\x00", "\n", "\x7f", "\x85", "\u202e", "\u200b", "\ufeff", "\u2028", "\u2029"],
)
@pytest.mark.parametrize("key", ["node_id", "env", "inbound_tag"])
def test_a_name_with_characters_that_nobody_sees_is_refused(key: str, hidden: str) -> None:
    """Control, format and line separating characters rewrite terminals and reorder text."""
    name = f"vip{hidden}"
    bad = snapshot(samples=[sample(inbound_tag=name)]) if key == "inbound_tag" else snapshot()
    if key != "inbound_tag":
        bad[key] = name
    why = reason(page([bad], node_id=None, env=None))
    assert "control or format character" in why or "a NUL" in why
    assert why.isprintable()


@pytest.mark.parametrize("name", ["xhttp premium", "東京-1", "vip-🚀", "é", "node\u00a01"])
def test_a_name_may_hold_any_character_that_is_seen(name: str) -> None:
    """Whatever the script."""
    decoded = decode(page([snapshot(samples=[sample(inbound_tag=name)])]))
    assert [stream.inbound_tag for stream in decoded.snapshots[0].totals] == [name]


@pytest.mark.parametrize(
    ("why", "bad"),
    [
        ("appears twice", snapshot(samples=[sample(), sample(up=5)])),
        ("appears twice", snapshot(samples=[sample("A" + ALICE[1:]), sample("a" + ALICE[1:])])),
        ("not an RFC 3339 time with a zone", snapshot("2026-04-08T12:00:00")),
        ("not an RFC 3339 time with a zone", snapshot("yesterday")),
        ("not an RFC 3339 time with a zone", snapshot("2026-02-30T12:00:00Z")),
        ("not an RFC 3339 time with a zone", snapshot("2026-04-08T12:00:00.1234567890Z")),
        ("collected_at: expected str, got null", snapshot(collected_at=None)),
        ("collected_at: expected str, got int", snapshot(collected_at=1775649600)),
        ("more than 5 minutes ahead", snapshot(NOW + timedelta(minutes=5, seconds=1))),
        ("no node_id", snapshot(node_id="")),
        ("no node_id", without(snapshot(), "node_id")),
        ("node_id has 257 characters", snapshot(node_id="n" * 257)),
        ("env has 257 characters", snapshot(env="n" * 257)),
        ("node_id: expected str", snapshot(node_id=1)),
        ("env holds a control or format character", snapshot(env="prod\n")),
        ("node_id 'us-2'", snapshot(node_id="us-2")),
        ("env 'test'", snapshot(env="test")),
        ("missing required field samples", without(snapshot(), "samples")),
        ("samples: expected array", snapshot(samples={})),
        ("expected object, got array", []),
    ],
)
def test_a_wrong_snapshot_fails_the_answer(why: str, bad: object) -> None:
    """Nothing of an answer is used where one of its snapshots breaks the contract."""
    assert why in reason(page([bad], node_id=None, env=None), Expected("jp-1", "prod"))
    assert why in latest_reason(bad)


def test_a_clock_that_is_a_little_ahead_is_none() -> None:
    """Five minutes are allowed for."""
    assert decode(page([snapshot(NOW + timedelta(minutes=4, seconds=59))])).snapshots


@pytest.mark.parametrize(
    ("why", "bad"),
    [
        ("neither snapshots nor items", {}),
        ("neither snapshots nor items", {"error": "not ready"}),
        ("both snapshots and items", page(items=[snapshot()])),
        ("snapshots: expected array", page({"0": 1})),
        ("items: expected array", page(items="none")),
        ("of node 'prod:us-2'", page([snapshot(), snapshot(node_id="us-2")])),
        ("of node 'test:jp-1'", page([snapshot(), snapshot(env="test")])),
        ("the page is of node 'prod:us-2'", page(node_id="us-2")),
        ("the page is of node 'test:jp-1'", page(env="test")),
        ("the page has no node_id", page([], node_id="")),
        ("has_more: expected bool", page(has_more="false")),
        ("has_more: expected bool", page(has_more=0)),
        ("has_more without a next_cursor", page(has_more=True)),
        ("has_more without a next_cursor", page(has_more=True, next_cursor="")),
        ("has_more without a next_cursor", without(page(has_more=True), "next_cursor")),
        ("next_cursor: expected str", page(has_more=True, next_cursor=17)),
        ("next_cursor has 4097 characters", page(has_more=True, next_cursor="c" * 4097)),
        ("the answer: expected object, got array", [page()]),
        ("the answer: expected object, got str", "text"),
        ("the answer: expected object, got null", None),
        ("neither snapshots nor items", sample()),
    ],
)
def test_a_wrong_page_is_refused(why: str, bad: object) -> None:
    """Each breach of the contract has its own words."""
    assert why in reason(bad)


@pytest.mark.parametrize("left_out", [{"env": None}, {"node_id": None}, {"env": "", "node_id": ""}])
def test_a_page_may_leave_out_what_its_snapshots_say(left_out: dict[str, str | None]) -> None:
    """They name the node."""
    assert decode(page(**left_out)).identity == NodeIdentity("prod", "jp-1")


@pytest.mark.parametrize(
    ("expected", "identity"),
    [(Expected(), None), (Expected("jp-1", "prod"), NodeIdentity("prod", "jp-1"))],
)
def test_an_empty_page_may_leave_out_its_env(
    expected: Expected, identity: NodeIdentity | None
) -> None:
    """It names no node then, or the expected one."""
    assert decode(page([], env=None), expected).identity == identity


def test_the_reason_never_shows_a_long_value_in_part() -> None:
    """A value is shown whole or not at all, so that a secret in it can be found and masked."""
    assert "x" * 100 not in reason(page([snapshot(collected_at="x" * 5000)]))


def decode(answer: object, expected: Expected = Expected()) -> Page:  # noqa: B008 - immutable
    """Return a decoded window answer."""
    return Decoder(NOW, expected).page(encoded(answer))


def reason(answer: object, expected: Expected = Expected()) -> str:  # noqa: B008 - immutable
    """Return why a window answer is refused: one line."""
    with pytest.raises(ExporterError) as caught:
        decode(answer, expected)
    assert not caught.value.unreachable
    assert "\n" not in caught.value.reason
    return caught.value.reason


def latest_reason(answer: object) -> str:
    """Return why a latest answer is refused."""
    with pytest.raises(ExporterError) as caught:
        Decoder(NOW, Expected("jp-1", "prod")).latest(encoded(answer))
    return caught.value.reason


def test_the_history_of_a_page_keeps_its_order() -> None:
    """Order is the business of whoever joins pages; decoding changes none."""
    late, early = snapshot(START + timedelta(minutes=1)), snapshot(START)
    stamps = [one.collected_at for one in decode(page([late, early])).snapshots]
    assert stamps == sorted(stamps, reverse=True)


def test_rejected_samples_keep_their_numbers_in_a_long_list() -> None:
    """However many good ones stand between them; one in upper case is good."""
    (shot,) = minutes(1, size=450)
    shot["samples"][120]["uuid"] = "nobody"
    shot["samples"][399]["uuid"] = ALICE.replace("-", "_")
    shot["samples"][400]["uuid"] = "ABCDEF00-1111-1111-1111-11111111ABCD"
    (only,) = decode(page([shot])).snapshots
    assert [why.split(":")[0] for why in only.rejected] == [
        "sample 121",
        "sample 400",
    ]
    assert len(only.totals) == 448
    assert list(only.totals)[398].sample_uuid == "abcdef00-1111-1111-1111-11111111abcd"


def test_of_a_repeated_key_the_last_value_counts() -> None:
    """As in most JSON parsers; the values before it have to be of the right type, too."""
    body = encoded(page([snapshot(samples=[sample(up=5)])]))
    body = body.replace(b'"uplink_bytes_total":5', b'"uplink_bytes_total":1,"uplink_bytes_total":5')
    body = body.replace(b'"samples":', b'"samples":[],"samples":')
    (only,) = Decoder(NOW).page(body).snapshots
    assert list(only.totals.values()) == [Totals(5, 2048)]


@pytest.mark.parametrize(
    "layout",
    [
        lambda value: json.dumps(value, indent=4),
        lambda value: json.dumps(value, indent="\t", sort_keys=True),
        lambda value: json.dumps(value, separators=(" ,\r\n ", " : ")),
        lambda value: "".join(
            f"\\u{ord(one):04x}" if one.isalpha() and in_string else one
            for one, in_string in characters(json.dumps(value))
        ),
    ],
    ids=["indented", "sorted", "spaced", "escaped"],
)
def test_any_legal_layout_of_json_gives_the_same_result(layout: Any) -> None:
    """White space, the order of keys and escapes change nothing."""
    value = page(minutes(3, size=3), has_more=True, next_cursor="c")
    assert Decoder(NOW).page(layout(value).encode()) == decode(value)


@pytest.mark.parametrize("text", [r"\\u0000", r"\\\\u0000", r"u0000", r"\u0001"])
def test_text_about_a_nul_is_no_nul(text: str) -> None:
    """Only the escape itself is one, in whichever string it is."""
    body = encoded(page()).replace(b"user@example.com", text.encode())
    assert Decoder(NOW).page(body).snapshots
    nul = encoded(page()).replace(b"user@example.com", rb"\\" + rb"\u0000")
    with pytest.raises(ExporterError, match="a string holds a NUL"):
        Decoder(NOW).page(nul)


@pytest.mark.parametrize(
    ("why", "limits"),
    [
        ("a snapshot of more than 5 samples", Limits(snapshot_samples=5)),
        ("a page of more than 11 samples", Limits(page_samples=11)),
        ("more than 13 objects", Limits(page_objects=13)),
    ],
)
def test_samples_and_objects_have_a_bound(why: str, limits: Limits) -> None:
    """Bytes alone bound nothing: short values take many times their length in memory."""
    body = encoded(page(minutes(2, size=6)))
    with pytest.raises(TooLargeError, match=why):
        Decoder(NOW, limits=limits).page(body)
    assert Decoder(NOW, limits=Limits(page_samples=12, page_objects=15)).page(body)


def characters(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character, and whether it is within a string; `text` has no escapes."""
    in_string = False
    for one in text:
        in_string ^= one == '"'
        yield one, in_string
