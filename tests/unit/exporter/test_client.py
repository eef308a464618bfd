from __future__ import annotations

import gzip
import itertools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import responses

from billing_cli.core.model import NodeIdentity
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.credentials import SecretToken
from billing_cli.exporter.limits import Limits
from tests.unit.exporter.answers import (
    NOW,
    START,
    encoded,
    fetched,
    minutes,
    page,
    sample,
    snapshot,
    without,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "https://jp-1.example/exporter/"
HOST = "https://jp-1.example:443/exporter"
WINDOW = f"{HOST}/v1/snapshots/window"
LATEST = f"{HOST}/v1/snapshots/latest"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def exporter() -> Iterator[responses.RequestsMock]:
    """Answer requests with what a test registers; everything registered has to be asked for."""
    with responses.RequestsMock() as mock:
        yield mock


def test_a_window_is_asked_for_as_the_contract_says(exporter: responses.RequestsMock) -> None:
    """Bounds are RFC 3339, few snapshots are asked for at first, and there is no cursor yet."""
    answer(exporter, page(minutes(3)))
    result = fetched(BASE, since=START + timedelta(microseconds=5), page_limit=7)
    assert [one.path_url for one in requests_of(exporter)] == [
        (
            "/exporter/v1/snapshots/window?since=2026-04-08T12%3A00%3A00.000005Z"
            "&until=2026-04-08T12%3A29%3A59.999999Z&limit=2"
        )
    ]
    assert result.contract == "window"
    assert result.identity == NodeIdentity("prod", "jp-1")
    assert result.complete
    assert result.notes == ()


def test_the_headers_say_what_is_understood(exporter: responses.RequestsMock) -> None:
    """JSON, gzip or nothing, our name; no token where there is none."""
    answer(exporter, page(minutes(3)))
    fetched(BASE)
    headers = requests_of(exporter)[0].headers
    assert headers["Accept-Encoding"] == "gzip, identity"
    assert headers["Accept"] == "application/json"
    assert headers["User-Agent"].startswith("billing/")
    assert "Authorization" not in headers
    assert "Cookie" not in headers


def test_a_token_is_sent_as_bearer(exporter: responses.RequestsMock) -> None:
    """The source's own token, or else the default."""
    answer(exporter, page(minutes(3)))
    answer(exporter, page(minutes(3)))
    fetched(BASE, auth_mode="bearer", default_token=SecretToken("default"))
    fetched(
        BASE,
        default_token=SecretToken("default"),
        credential_ref="env:OWN",
        environ={"OWN": "own\u00e9"},
    )
    sent = [one.headers["Authorization"] for one in requests_of(exporter)]
    assert sent == ["Bearer default", "Bearer own\u00e9"]


def test_pages_are_joined_by_their_opaque_cursors(exporter: responses.RequestsMock) -> None:
    """Each cursor goes back as it came; the snapshot at the seam counts once."""
    cursor = "2026-04-08T12:01:00.123456789Z +&=/%?é"
    shots = minutes(6)
    answer(exporter, page(shots[:3], has_more=True, next_cursor=cursor))
    answer(exporter, page(shots[2:5], has_more=True, next_cursor="second"))
    answer(exporter, page(shots[5:]))
    result = fetched(BASE)
    asked = [parse_qs(urlsplit(one.url).query) for one in requests_of(exporter)]
    assert [one.get("cursor") for one in asked] == [None, [cursor], ["second"]]
    assert all(one["since"] == asked[0]["since"] for one in asked)
    assert stamps(result) == [START + number * MINUTE for number in range(6)]
    assert result.complete


def test_a_compressed_page_is_read(exporter: responses.RequestsMock) -> None:
    """What gzip packs, the decoder gets unpacked."""
    exporter.get(
        WINDOW,
        body=gzip.compress(encoded(page(minutes(3)))),
        headers={"Content-Encoding": "GZIP"},
        auto_calculate_content_length=True,
    )
    assert len(fetched(BASE).snapshots) == 3


def test_the_step_ends_at_a_minute_when_it_is_full(exporter: responses.RequestsMock) -> None:
    """No further page is asked for, and the minute that may lack snapshots is left out."""
    shots = minutes(4, size=3)
    half_minute = snapshot(START + 3 * MINUTE + timedelta(seconds=30), [sample()])
    answer(exporter, page([*shots, half_minute], has_more=True, next_cursor="next"))
    result = fetched(BASE, max_samples=10)
    assert stamps(result) == [START + number * MINUTE for number in range(3)]
    assert not result.complete


def test_the_step_goes_on_until_a_minute_is_whole(exporter: responses.RequestsMock) -> None:
    """However full it is already, two minutes after that of `since` have to be in."""
    shots = [snapshot(START + timedelta(seconds=15 * number)) for number in range(13)]
    for number in range(13):
        answer(exporter, page([shots[number]], has_more=True, next_cursor=str(number)))
    result = fetched(BASE, max_samples=1)
    assert stamps(result) == [START + timedelta(seconds=15 * number) for number in range(12)]
    assert not result.complete


def test_a_page_that_is_too_large_is_cut_to_the_step(exporter: responses.RequestsMock) -> None:
    """Although nothing is missing: the rest belongs to the next step."""
    answer(exporter, page(minutes(20, size=10)))
    result = fetched(BASE, max_samples=50)
    assert stamps(result) == [START + number * MINUTE for number in range(5)]
    assert not result.complete


def test_what_lies_outside_the_window_is_dropped_with_a_note(
    exporter: responses.RequestsMock,
) -> None:
    """An exporter that ignores the bounds does no harm; its pages end at `until`."""
    early = minutes(3, start=START - timedelta(hours=1))
    late = minutes(2, start=NOW + MINUTE)
    answer(exporter, page([*early, *minutes(3), *late], has_more=True, next_cursor="more"))
    result = fetched(BASE)
    assert stamps(result) == [START + number * MINUTE for number in range(3)]
    assert result.complete
    (note,) = result.notes
    assert "5 snapshots from outside the window" in note


def test_the_ends_of_the_window_are_no_news(exporter: responses.RequestsMock) -> None:
    """Both are inclusive on the wire, and `since` may have been cut to its second."""
    shots = [snapshot(START), snapshot(START + MINUTE), snapshot(NOW)]
    answer(exporter, page(shots))
    result = fetched(BASE, since=START + timedelta(milliseconds=999))
    assert stamps(result) == [START + MINUTE]
    assert result.complete
    assert result.notes == ()


def test_an_empty_window_has_no_news(exporter: responses.RequestsMock) -> None:
    """Nobody is named, nothing is there, and nothing more will come."""
    answer(exporter, page([], node_id="", env=""))
    result = fetched(BASE, expected_node_id="jp-1", expected_env="prod")
    assert (result.identity, result.snapshots, result.complete) == (None, (), True)


def test_a_window_that_ends_before_it_begins_is_still_asked_for(
    exporter: responses.RequestsMock,
) -> None:
    """The watermark may be ahead of the last closed minute; the source is looked at anyway."""
    answer(exporter, page([snapshot(NOW)]))
    result = fetched(BASE, since=NOW, until=NOW - MINUTE)
    query = parse_qs(urlsplit(requests_of(exporter)[0].url).query)
    assert query["since"] == query["until"]
    assert (result.snapshots, result.complete) == ((), True)


def test_auto_falls_back_to_the_latest_snapshot(exporter: responses.RequestsMock) -> None:
    """404 tells an exporter without the window; its one snapshot is taken as it stands."""
    exporter.get(WINDOW, status=404)
    exporter.get(LATEST, body=encoded(snapshot(NOW - timedelta(seconds=3))))
    result = fetched(BASE)
    assert result.contract == "latest"
    assert result.identity == NodeIdentity("prod", "jp-1")
    assert stamps(result) == [NOW - timedelta(seconds=3)]
    assert result.complete


def test_latest_mode_asks_for_nothing_else(exporter: responses.RequestsMock) -> None:
    """Whatever the minute of the snapshot."""
    exporter.get(LATEST, body=encoded(snapshot(START - timedelta(days=1))))
    assert stamps(fetched(BASE, mode="latest")) == [START - timedelta(days=1)]


@pytest.mark.parametrize("mode", ["auto", "latest"])
def test_an_exporter_may_have_no_snapshot_yet(exporter: responses.RequestsMock, mode: str) -> None:
    """404 from a source without a watermark is no failure, and noted."""
    if mode == "auto":
        exporter.get(WINDOW, status=404)
    exporter.get(LATEST, status=404)
    result = fetched(BASE, mode=mode)
    assert (result.contract, result.identity, result.snapshots) == ("latest", None, ())
    assert result.complete
    assert "no snapshot yet" in result.notes[0]


@pytest.mark.parametrize("mode", ["auto", "latest", "window"])
def test_404_from_a_source_with_a_watermark_is_a_failure(
    exporter: responses.RequestsMock, mode: str
) -> None:
    """It had snapshots before, so the address or the exporter has changed."""
    if mode != "latest":
        exporter.get(WINDOW, status=404)
    if mode != "window":
        exporter.get(LATEST, status=404)
    error = failure(mode=mode, has_watermark=True)
    assert error.reason.startswith("HTTP 404: the exporter h")
    assert (error.code, error.unreachable) == ("http_status", False)


def test_auto_with_a_watermark_still_falls_back_to_latest(
    exporter: responses.RequestsMock,
) -> None:
    """An exporter may never have had the window."""
    exporter.get(WINDOW, status=404)
    exporter.get(LATEST, body=encoded(snapshot(NOW)))
    assert fetched(BASE, has_watermark=True).contract == "latest"


def test_window_mode_needs_the_window(exporter: responses.RequestsMock) -> None:
    """There 404 is a failure, which says that the contract is missing, and what to set."""
    exporter.get(WINDOW, status=404)
    assert failure(mode="window").reason == (
        "HTTP 404: the exporter has no windowed snapshots at this address; "
        'set mode = "auto" or "latest"'
    )


def test_a_web_page_is_reported_with_what_to_switch_on(exporter: responses.RequestsMock) -> None:
    """An exporter without the snapshot API answers every path with 200 and HTML."""
    exporter.get(WINDOW, body="\n <html><body>Xray Exporter</body></html>")
    error = failure()
    assert error.code == "html"
    assert "EXPORTER_NODE_ID, ACCOUNTS_BASE_URL and INTERNAL_SERVICE_TOKEN" in error.reason


def test_a_window_does_not_turn_into_latest_halfway(exporter: responses.RequestsMock) -> None:
    """404 to a later page is a failure, even where the first one was empty."""
    answer(exporter, page([], node_id="", env="", has_more=True, next_cursor="next"))
    exporter.get(WINDOW, status=404)
    assert "HTTP 404" in failure().reason


@pytest.mark.parametrize(
    ("status", "why", "unreachable"),
    [
        (400, "HTTP 400", False),
        (401, "HTTP 401: the exporter refuses the credentials", False),
        (403, "HTTP 403: the exporter refuses the credentials", False),
        (429, "HTTP 429", False),
        (500, "HTTP 500", False),
        (201, "HTTP 201", False),
        (204, "HTTP 204", False),
        (206, "HTTP 206", False),
        (301, "HTTP 301: redirects are not followed", False),
        (302, "HTTP 302: redirects are not followed", False),
        (307, "HTTP 307: redirects are not followed", False),
        (308, "HTTP 308: redirects are not followed", False),
    ],
)
def test_success_is_exactly_200(
    exporter: responses.RequestsMock, status: int, why: str, unreachable: bool
) -> None:
    """Anything else is a failure at once, whatever its body holds; nothing is followed."""
    exporter.get(
        WINDOW, status=status, body=encoded(page(minutes(3))), headers={"Location": LATEST}
    )
    error = failure()
    assert (error.reason, error.unreachable) == (why, unreachable)
    assert len(exporter.calls) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_failure_is_tried_again_within_bounds(
    exporter: responses.RequestsMock, status: int
) -> None:
    """Twice, and then it is that nobody answered."""
    exporter.get(WINDOW, status=status)
    error = failure()
    assert (error.reason, error.unreachable) == (f"HTTP {status}", True)
    assert len(exporter.calls) == 3


def test_a_passing_failure_passes(exporter: responses.RequestsMock) -> None:
    """The page is taken from the attempt that brought it."""
    exporter.get(WINDOW, status=503)
    answer(exporter, page(minutes(3)))
    assert len(fetched(BASE).snapshots) == 3


def test_no_retry_outlives_the_source_s_time(exporter: responses.RequestsMock) -> None:
    """Where the pause would reach beyond the timeout, the failure stands."""
    exporter.get(WINDOW, status=503)
    assert failure(timeout_seconds=5.0, limits=Limits(backoff_seconds=60)).reason == "HTTP 503"
    assert len(exporter.calls) == 1


@pytest.mark.parametrize(
    ("why", "pages"),
    [
        ("has_more without a next_cursor", [page(minutes(3), has_more=True)]),
        ("has_more without a next_cursor", [page(minutes(3), has_more=True, next_cursor="")]),
        ("repeats a cursor", [page(minutes(3), has_more=True, next_cursor="a")] * 2),
        (
            "repeats a cursor",
            [
                page(minutes(2), has_more=True, next_cursor="a"),
                page(minutes(1, start=START + 2 * MINUTE), has_more=True, next_cursor="b"),
                page(minutes(1, start=START + 3 * MINUTE), has_more=True, next_cursor="a"),
            ],
        ),
        (
            "out of order",
            [page(minutes(3), has_more=True, next_cursor="a"), page(minutes(2))],
        ),
        ("out of order", [page(minutes(3)[::-1])]),
        ("two different snapshots", [page([snapshot(), snapshot(samples=[sample(up=9)])])]),
        (
            "two different snapshots",
            [
                page(minutes(2), has_more=True, next_cursor="a"),
                page([snapshot(START + MINUTE, [sample(up=9)])]),
            ],
        ),
        (
            "different nodes",
            [
                page(minutes(2), has_more=True, next_cursor="a"),
                page([snapshot(START + 2 * MINUTE, node_id="us-2")], node_id="us-2"),
            ],
        ),
        (
            "two pages in a row without a later snapshot promise more",
            [
                page([], has_more=True, next_cursor="a"),
                page([], has_more=True, next_cursor="b"),
            ],
        ),
        (
            "two pages in a row without a later snapshot promise more",
            [
                page(minutes(2), has_more=True, next_cursor="a"),
                page(minutes(2)[1:], has_more=True, next_cursor="b"),
                page([], has_more=True, next_cursor="c"),
            ],
        ),
        ("expected 'us-9'", [page(minutes(2))]),
    ],
)
def test_pages_that_do_not_fit_together_fail_the_source(
    exporter: responses.RequestsMock, why: str, pages: list[Any]
) -> None:
    """Nothing is guessed, and nothing goes round in circles."""
    for one in pages:
        answer(exporter, one)
    expected = "us-9" if "us-9" in why else None
    error = failure(expected_node_id=expected)
    assert why in error.reason
    assert not error.unreachable


def test_one_empty_page_in_between_is_legal(exporter: responses.RequestsMock) -> None:
    """An exporter may have skipped what it no longer has."""
    answer(exporter, page([], node_id="", env="", has_more=True, next_cursor="a"))
    answer(exporter, page(minutes(3)))
    assert len(fetched(BASE).snapshots) == 3


def test_pages_may_now_and_then_have_no_later_snapshot(exporter: responses.RequestsMock) -> None:
    """Both ends of a page are inclusive, so one may only repeat the end of the one before."""
    shots = minutes(5)
    pages = [shots[:1], shots[:1], shots[:3], [], shots[2:4], shots[3:4], shots[4:]]
    for number, some in enumerate(pages):
        answer(exporter, page(some, has_more=some != pages[-1], next_cursor=str(number)))
    assert len(fetched(BASE).snapshots) == 5


def test_pages_have_a_bound(exporter: responses.RequestsMock) -> None:
    """New cursors for ever are no way to keep a run busy."""
    shots = minutes(4)
    for number, one in enumerate(shots):
        answer(exporter, page([one], has_more=True, next_cursor=str(number)))
    assert failure(limits=Limits(pages=4)).reason == "more than 4 pages"


def test_snapshots_that_are_too_long_together_are_asked_for_one_by_one(
    exporter: responses.RequestsMock,
) -> None:
    """A node of very many streams: two of its snapshots need not fit into one answer."""
    shots = minutes(2)
    exporter.get(WINDOW, body=b" " * 5001)
    answer(exporter, page(shots[:1], has_more=True, next_cursor="second"))
    answer(exporter, page(shots[1:]))
    result = fetched(BASE, limits=Limits(body_bytes=5000))
    assert limits_asked(exporter) == ["2", "1", "1"]
    assert stamps(result) == [START, START + MINUTE]


def test_pages_are_as_large_as_the_snapshots_of_the_node_allow(
    exporter: responses.RequestsMock,
) -> None:
    """The first page shows how many samples a snapshot has; the request bounds the rest."""
    shots = minutes(4, size=10)
    for limits, more, asked in (
        (Limits(wanted_samples=45), {"page_limit": 60}, ["2", "4"]),
        (Limits(wanted_samples=5), {"page_limit": 60}, ["2", "1"]),
        (Limits(), {"page_limit": 7}, ["2", "7"]),
        (Limits(), {"page_limit": 1}, ["1", "1"]),
        (Limits(), {"page_limit": 5000}, ["2", "1000"]),
    ):
        answer(exporter, page(shots[:2], has_more=True, next_cursor="a"))
        answer(exporter, page(shots[2:]))
        assert len(fetched(BASE, limits=limits, **more).snapshots) == 4
        assert limits_asked(exporter) == asked
        exporter.reset()


@pytest.mark.parametrize(
    ("limits", "used"),
    [
        (Limits(minute_samples=15), [0, 5]),
        (Limits(minute_snapshots=3), [0, 1, 5]),
        (Limits(), [0, 1, 2, 3, 4, 5]),
    ],
)
def test_of_a_minute_beyond_the_bounds_the_last_snapshot_has_the_bytes(
    exporter: responses.RequestsMock, limits: Limits, used: list[int]
) -> None:
    """The first ones stay, because the snapshot at the watermark is one of them."""
    for number in range(6):
        shots = minutes(1, start=START + number * timedelta(seconds=1), size=10)
        answer(exporter, page(shots, has_more=number < 5, next_cursor=str(number)))
    result = fetched(BASE, limits=limits, max_samples=10)
    assert [one.collected_at.second for one in result.snapshots] == used
    assert any("were skipped" in note for note in result.notes) == (len(used) < 6)


@pytest.mark.parametrize(
    ("why", "body", "headers"),
    [
        ("longer than 1000 bytes", b" " * 1001, {}),
        ("longer than 1000 bytes", gzip.compress(b" " * 1001), {"Content-Encoding": "gzip"}),
        ("more than 100 objects", b"{" * 900, {}),
        ("gzip data is broken", b"{}", {"Content-Encoding": "gzip"}),
        ("cut short", gzip.compress(b"{}")[:-3], {"Content-Encoding": "gzip"}),
        ("follows the end", gzip.compress(b"{}") + b"{}", {"Content-Encoding": "gzip"}),
        ("Content-Encoding", b"{}", {"Content-Encoding": "br"}),
        ("Content-Encoding", gzip.compress(b"{}"), {"Content-Encoding": "gzip, gzip"}),
        ("the answer is a web page, not JSON", b"<html>", {"Content-Type": "text/html"}),
    ],
    # Packed bodies hold the time at which they were packed, and would be new names every time.
    ids=itertools.count(),
)
def test_a_body_that_is_none_fails_the_source(
    exporter: responses.RequestsMock, why: str, body: bytes, headers: dict[str, str]
) -> None:
    """Too long, packed otherwise, broken, or no JSON."""
    exporter.get(WINDOW, body=body, headers=headers)
    limits = Limits(body_bytes=1000, page_objects=100, backoff_seconds=0)
    assert why in failure(limits=limits).reason


def test_an_address_that_is_refused_is_never_asked(exporter: responses.RequestsMock) -> None:
    """Plain HTTP to another host fails before anything is sent; allow_http is the only way."""
    assert "loopback" in failure("http://jp-1.example").reason
    assert len(exporter.calls) == 0
    url = "http://jp-1.example:80/v1/snapshots/window"
    exporter.get(url, body=encoded(page(minutes(3))))
    token = SecretToken("0123456789abcdef")
    result = fetched(
        "http://jp-1.example", allow_http=True, auth_mode="bearer", default_token=token
    )
    assert len(result.snapshots) == 3
    assert requests_of(exporter)[0].headers["Authorization"] == "Bearer 0123456789abcdef"
    assert result.notes == ("the token goes to jp-1.example:80 without encryption",)


def test_an_answer_that_repeats_the_token_is_not_used(exporter: responses.RequestsMock) -> None:
    """What it holds may be stored and shown."""
    token = SecretToken("0123456789abcdef")
    answer(exporter, page([snapshot(node_id=token.reveal())]))
    error = failure(auth_mode="bearer", default_token=token)
    assert error.reason == "the answer repeats the token that it was asked with"


@pytest.mark.parametrize("token", ["0123456789/abcdef", "0123456789abcd\xe9f"])
@pytest.mark.parametrize(
    "named",
    [
        {"node_id": "?"},
        {"env": "a ? b"},
        {"samples": [sample(inbound_tag="?")]},
        {"samples": [sample("?")]},
    ],
)
def test_a_token_is_recognised_however_it_is_spelled(
    exporter: responses.RequestsMock, token: str, named: dict[str, Any]
) -> None:
    """JSON has escapes for every character, and the header's encoding is not the answer's."""
    escaped = "".join(f"\\u{ord(one):04x}" for one in token)
    plain = token.replace("/", "\\/")
    for spelled in (escaped, plain):
        body = encoded(page([snapshot(**named)], node_id="", env=""))
        exporter.get(WINDOW, body=body.replace(b"?", spelled.encode()))
        error = failure(auth_mode="bearer", default_token=SecretToken(token))
        assert error.reason == "the answer repeats the token that it was asked with"
        exporter.reset()


@pytest.mark.parametrize(("token", "is_used"), [("hunter-2", False), ("hunter2", True)])
def test_a_name_that_repeats_a_short_token_is_not_used(
    exporter: responses.RequestsMock, token: str, *, is_used: bool
) -> None:
    """A name is shown in results; one of a few characters may hold the token by chance."""
    answer(exporter, page([snapshot(node_id=f"{token}-1")], node_id=f"{token}-1"))
    if is_used:
        assert len(fetched(BASE, auth_mode="bearer", default_token=SecretToken(token)).snapshots)
        return
    error = failure(auth_mode="bearer", default_token=SecretToken(token))
    assert error.reason == "the answer repeats the token that it was asked with"


def test_a_token_in_a_reason_is_masked(exporter: responses.RequestsMock) -> None:
    """Short tokens may be words, so an answer may hold them; reasons do not."""
    answer(exporter, page([snapshot("hunter2")]))
    error = failure(auth_mode="bearer", default_token=SecretToken("hunter2"))
    assert "'***'" in error.reason
    assert "hunter2" not in error.reason


def test_rejected_samples_come_with_the_rest(exporter: responses.RequestsMock) -> None:
    """They are part of the snapshot that they were in."""
    bad = without(sample(), "uuid")
    answer(exporter, page([snapshot(samples=[bad, sample()]), *minutes(3)[1:]]))
    first = fetched(BASE).snapshots[0]
    assert len(first.totals) == 1
    assert len(first.rejected) == 1


def answer(exporter: responses.RequestsMock, value: Any) -> None:
    """Let the next request for the window be answered with this page."""
    exporter.get(WINDOW, body=encoded(value))


def failure(base_url: str = BASE, **more: Any) -> ExporterError:
    """Return why fetching fails: one printable line."""
    with pytest.raises(ExporterError) as caught:
        fetched(base_url, **more)
    assert caught.value.reason.isprintable()
    return caught.value


def limits_asked(exporter: responses.RequestsMock) -> list[str]:
    """Return the `limit` of each request."""
    queries = [parse_qs(urlsplit(one.url).query) for one in requests_of(exporter)]
    return [query["limit"][0] for query in queries]


def requests_of(exporter: responses.RequestsMock) -> list[Any]:
    """Return the requests that were sent."""
    return [call.request for call in exporter.calls]


def stamps(result: Any) -> list[datetime]:
    """Return when the snapshots were taken, without the digits that all have in common."""
    return [one.collected_at.replace(microsecond=0) for one in result.snapshots]
