"""A hostile exporter beside an honest one, which must not notice."""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.credentials import SecretToken
from billing_cli.exporter.fleet import fetch_all
from billing_cli.exporter.limits import Limits
from tests.unit.exporter.answers import (
    NOW,
    START,
    encoded,
    fetched,
    minutes,
    page,
    request,
    snapshot,
)
from tests.unit.exporter.hostility import GOOD, HOSTILITIES, Hostility
from tests.unit.exporter.servers import answering, http, serving

if TYPE_CHECKING:
    from tests.unit.exporter.servers import Visit

MARKER = "marker-7f3a9c21-token"
RUN_SECONDS = 60.0
LIMITS = Limits(
    body_bytes=4_000_000,
    page_samples=3000,
    page_objects=20_000,
    pages=40,
    retries=1,
    backoff_seconds=0.01,
)


@pytest.mark.parametrize("hostility", HOSTILITIES, ids=lambda hostility: hostility.name)
def test_it_fails_alone_in_time_and_in_one_line(hostility: Hostility) -> None:
    """The source ends by itself, long before the run's deadline; the honest one is fetched."""
    with (
        serving(hostility.script, greets=hostility.greets) as hostile,
        serving(answering(GOOD)) as honest,
    ):
        address = hostile.url.replace("http:", "https:") if hostility.greets else hostile.url
        outcomes = dict(
            fetch_all(
                [
                    request(
                        address,
                        source_id="hostile",
                        auth_mode="bearer",
                        timeout_seconds=hostility.timeout_seconds,
                        expected_node_id="jp-1" if "token" not in hostility.name else None,
                        expected_env="prod",
                    ),
                    request(honest.url, source_id="honest"),
                ],
                now=NOW,
                concurrency=2,
                deadline_seconds=RUN_SECONDS,
                default_token=SecretToken(MARKER),
                environ={},
                limits=LIMITS,
            )
        )
    honest_outcome, outcome = outcomes["honest"], outcomes["hostile"]
    assert isinstance(honest_outcome, Fetched)
    assert len(honest_outcome.snapshots) == 3
    assert isinstance(outcome, ExporterError)
    assert hostility.why in outcome.reason
    assert outcome.unreachable == hostility.unreachable
    assert outcome.reason.isprintable()
    assert MARKER not in outcome.reason


def test_the_hostile_have_at_least_thirty_ways() -> None:
    """The list is the one that a security review would go through."""
    assert len({hostility.name for hostility in HOSTILITIES}) == len(HOSTILITIES) >= 30


def test_an_answer_larger_than_memory_holds_is_kept_in_a_file() -> None:
    """The body is spooled while it comes in, and read back whole."""
    body = encoded(page([snapshot(padding="x" * 300_000), *minutes(3)[1:]]))
    with serving(answering(body)) as server:
        limits = dataclasses.replace(LIMITS, spool_bytes=1000)
        assert len(fetched(server.url, limits=limits).snapshots) == 3


def test_a_page_that_the_exporter_cuts_short_is_asked_for_snapshot_by_snapshot() -> None:
    """Exporters close an answer that takes longer than 10 s to write."""
    shots = minutes(2)
    single = answering(
        encoded(page(shots[:1], has_more=True, next_cursor="a")), encoded(page(shots[1:]))
    )

    def script(visit: Visit) -> None:
        if "limit=1 " in visit.head.replace("&", " "):
            single(visit)
        else:
            visit.send(http(headers={"Content-Length": "", "Transfer-Encoding": "chunked"}))
            visit.send(b"5\r\n{}   \r\n")
            visit.connection.close()

    with serving(script) as server:
        assert len(fetched(server.url).snapshots) == 2
    assert ["limit=1" in head for head in server.heads] == [False, True, True]


def test_one_connection_serves_all_pages() -> None:
    """Where the exporter keeps it open; a handshake for every page would cost more than it."""
    ports: list[int] = []
    shots = minutes(4)
    bodies = [
        encoded(page(shots[0:2], has_more=True, next_cursor="a")),
        encoded(page(shots[1:3], has_more=True, next_cursor="b")),
        encoded(page(shots[2:4])),
    ]
    answer = answering(*bodies)

    def script(visit: Visit) -> None:
        ports.append(visit.connection.getpeername()[1])
        answer(visit)

    with serving(script) as server:
        assert len(fetched(server.url).snapshots) == 4
    assert len(ports) == 3
    assert len(set(ports)) == 1


def test_a_kept_connection_that_was_closed_is_opened_again() -> None:
    """An exporter may hang up between two pages."""
    bodies = [
        encoded(page(minutes(2), has_more=True, next_cursor="a")),
        encoded(page(minutes(3)[2:])),
    ]
    answer = answering(*bodies)

    def script(visit: Visit) -> None:
        answer(visit)
        visit.connection.close()

    with serving(script) as server:
        assert len(fetched(server.url).snapshots) == 3


def test_the_pages_of_a_source_share_the_run_s_deadline() -> None:
    """Each page may be in time and all of them together too late."""

    def slow(visit: Visit) -> None:
        visit.server.closing.wait(0.05)
        number = len(visit.server.heads)
        shots = minutes(1, start=START + timedelta(milliseconds=number))
        visit.send(http(encoded(page(shots, has_more=True, next_cursor=str(number)))))

    with serving(slow) as server:
        (outcome,) = fetch_all(
            [request(server.url, timeout_seconds=10.0)],
            now=NOW,
            concurrency=1,
            deadline_seconds=0.5,
            default_token=None,
        )
    assert isinstance(outcome[1], ExporterError)
    assert "run's deadline" in outcome[1].reason
    assert outcome[1].unreachable


@pytest.mark.parametrize(
    "head",
    [
        http(headers={"Content-Length": "1000"}),
        http(headers={"Content-Length": "1000", "Connection": "close"}),
        http(headers={"Content-Length": "1000"}).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["kept", "closing", "HTTP/1.0"],
)
def test_an_answer_that_is_too_slow_is_hung_up_on(head: bytes) -> None:
    """The reason says that an answer had begun, and the thread that reads it ends."""

    def slow(visit: Visit) -> None:
        visit.send(head)
        visit.drip(b" " * 1000)

    with serving(slow) as server:
        with pytest.raises(ExporterError) as caught:
            fetched(server.url, timeout_seconds=0.5)
        assert caught.value.reason == (
            f"no complete answer from 127.0.0.1:{server.port} within 0.5 s"
        )
        for thread in threading.enumerate():
            if thread.name == "exchange":
                thread.join(2)
                assert not thread.is_alive()
