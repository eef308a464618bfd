"""Windows that begin with the snapshot at the watermark, of which is known how it looked."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import responses

from billing_cli.core.model import NodeIdentity, SamplesDigest
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.credentials import SecretToken
from billing_cli.exporter.seen import Seen
from tests.exporter.answers import BOB, START, encoded, fetched, minutes, page, sample, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "https://jp-1.example"
WINDOW = "https://jp-1.example:443/v1/snapshots/window"
MINUTE = timedelta(minutes=1)
SAMPLES = [sample(), sample(BOB)]
FIRST = snapshot(samples=SAMPLES)
SECOND = snapshot(START + MINUTE, SAMPLES)


@pytest.fixture
def exporter() -> Iterator[responses.RequestsMock]:
    """Answer requests with what a test registers; everything registered has to be asked for."""
    with responses.RequestsMock() as mock:
        yield mock


def test_the_first_snapshot_of_a_window_is_passed_over(exporter: responses.RequestsMock) -> None:
    """It is there, as proof that history goes on from it."""
    answer(exporter, page([FIRST, SECOND]))
    first, second = fetched(BASE, seen=seen_of(SAMPLES)).snapshots
    assert first.is_as_seen
    assert (first.collected_at, first.totals) == (START, {})
    assert len(second.totals) == 2
    assert second.digest == seen_of(SAMPLES).digest


def test_a_page_may_begin_with_it_once_more(exporter: responses.RequestsMock) -> None:
    """A node so large that its snapshots come one by one, and each twice."""
    answer(exporter, page([FIRST], has_more=True, next_cursor="a"))
    answer(exporter, page([FIRST, SECOND]))
    found = fetched(BASE, seen=seen_of(SAMPLES)).snapshots
    assert [one.is_as_seen for one in found] == [True, False]


def test_what_is_spelled_in_two_ways_is_fetched_and_compared_as_a_whole(
    exporter: responses.RequestsMock,
) -> None:
    """Both say the same; whether the first one does as well, its bytes do not tell."""
    pages = (
        page([FIRST], has_more=True, next_cursor="a"),
        page([snapshot(samples=SAMPLES[::-1]), SECOND]),
    )
    for value in pages * 2:
        answer(exporter, value)
    found = fetched(BASE, seen=seen_of(SAMPLES)).snapshots
    assert [(one.is_as_seen, len(one.totals)) for one in found] == [(False, 2)] * 2


def test_what_is_told_in_two_ways_is_an_error(exporter: responses.RequestsMock) -> None:
    """As it is where nothing was seen before."""
    pages = (
        page([FIRST], has_more=True, next_cursor="a"),
        page([snapshot(samples=[sample(up=7)]), SECOND]),
    )
    for value in pages * 2:
        answer(exporter, value)
    with pytest.raises(ExporterError, match=r"^two different snapshots of "):
        fetched(BASE, seen=seen_of(SAMPLES))


def test_names_that_may_hide_the_token_are_decoded(exporter: responses.RequestsMock) -> None:
    """It may be a new one, which nobody looked for when these samples were seen."""
    token = "0123456789abcd\xe9f"
    samples = [sample(inbound_tag="HERE")]
    body = encoded(page([snapshot(samples=samples), SECOND])).replace(b"HERE", token.encode())
    exporter.get(WINDOW, body=body, auto_calculate_content_length=True)
    text = encoded(samples)[1:-1].replace(b"HERE", token.encode())
    with pytest.raises(ExporterError, match="repeats the token"):
        fetched(BASE, auth_mode="bearer", default_token=SecretToken(token), seen=seen_of_text(text))


def test_what_is_passed_over_takes_no_room_in_a_step(exporter: responses.RequestsMock) -> None:
    """The bound is on what is decoded and applied."""
    shots = minutes(5, size=10)
    for known, count in ((None, 3), (seen_of(shots[0]["samples"]), 4)):
        answer(exporter, page(shots))
        found = fetched(BASE, max_samples=31, since=START, seen=known)
        assert len(found.snapshots) == count


def seen_of(samples: list[Any]) -> Seen:
    """Return what is known of these samples at START."""
    return seen_of_text(encoded(samples)[1:-1])


def seen_of_text(text: bytes) -> Seen:
    """Return what is known of the text of some samples at START."""
    digest = SamplesDigest(len(text), sha256(text).digest())
    return Seen(START, NodeIdentity("prod", "jp-1"), digest)


def answer(exporter: responses.RequestsMock, value: Any) -> None:
    """Let the exporter's next answer be this value."""
    exporter.get(WINDOW, body=encoded(value), auto_calculate_content_length=True)
