from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.exporter import fleet
from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.credentials import SecretToken
from billing_cli.exporter.fleet import fetch_all
from tests.unit.exporter.answers import (
    NOW,
    QUICK,
    START,
    encoded,
    fetched,
    minutes,
    page,
    request,
)
from tests.unit.exporter.servers import answering, http, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from billing_cli.exporter.api import FetchRequest
    from tests.unit.exporter.servers import Visit

GOOD = encoded(page(minutes(3)))
MARKER = "marker-7f3a9c21-token"


def test_two_hundred_sources_of_which_twenty_are_down_all_have_an_outcome() -> None:
    """Half of those that are down refuse, the others swallow; nobody waits for them in line."""
    with serving(answering(GOOD)) as server, serving(lambda visit: visit.hang()) as swallowing:
        down = [(f"refusing-{number}", "http://127.0.0.1:1") for number in range(10)]
        down += [(f"swallowing-{number}", swallowing.url) for number in range(10)]
        up = [(f"up-{number}", server.url) for number in range(180)]
        mixed = [one for tenth in range(20) for one in (down[tenth], *up[tenth::20])]
        wanted = [
            request(url, source_id=name, timeout_seconds=1.0 if url == swallowing.url else 30.0)
            for name, url in mixed
        ]
        outcomes = run(wanted, concurrency=32)
    assert len(outcomes) == 200
    for name, outcome in outcomes.items():
        if name.startswith("up-"):
            assert isinstance(outcome, Fetched)
            assert len(outcome.snapshots) == 3
        else:
            assert isinstance(outcome, ExporterError)
            assert outcome.unreachable


def test_as_many_sources_are_asked_at_once_as_allowed() -> None:
    """Eight servers that answer only when all of them have been asked."""
    everybody = threading.Barrier(8, timeout=30)

    def meet(visit: Visit) -> None:
        everybody.wait()
        answering(GOOD)(visit)

    with serving(meet) as server:
        wanted = [
            request(server.url, source_id=str(number), timeout_seconds=30.0) for number in range(8)
        ]
        outcomes = run(wanted, concurrency=8, deadline_seconds=60.0)
    assert all(isinstance(outcome, Fetched) for outcome in outcomes.values())


def test_no_more_sources_are_asked_at_once_than_allowed() -> None:
    """A bound of two shows two at most, and everybody has a turn."""
    lock = threading.Lock()
    present = 0
    most = 0

    def count(visit: Visit) -> None:
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        visit.server.closing.wait(0.01)
        with lock:
            present -= 1
        answering(GOOD)(visit)

    with serving(count) as server:
        wanted = [request(server.url, source_id=str(number)) for number in range(12)]
        outcomes = run(wanted, concurrency=2)
    assert len(outcomes) == 12
    assert all(isinstance(outcome, Fetched) for outcome in outcomes.values())
    assert len(server.heads) == 12
    assert 1 <= most <= 2


def test_sources_come_as_they_finish() -> None:
    """A slow one does not hold back one that is asked for after it."""
    released = threading.Event()

    def slow(visit: Visit) -> None:
        released.wait(30)
        answering(GOOD)(visit)

    with serving(slow) as tortoise, serving(answering(GOOD)) as hare:
        outcomes = fetch_all(
            [request(tortoise.url, source_id="tortoise"), request(hare.url, source_id="hare")],
            now=NOW,
            concurrency=2,
            deadline_seconds=60.0,
            default_token=None,
        )
        assert next(outcomes)[0] == "hare"
        released.set()
        assert [name for name, _ in outcomes] == ["tortoise"]


def test_a_slow_source_has_its_share_of_the_time_and_keeps_what_it_sent() -> None:
    """It dribbles, has hours to tell, and would go on until the deadline; others get all theirs."""
    since, shots = START - timedelta(days=5), iter(range(10_000))

    def dribble(visit: Visit) -> None:
        number = next(shots)
        one = minutes(1, start=since + number * timedelta(minutes=1))
        answer = http(encoded(page(one, has_more=True, next_cursor=str(number))))
        for piece in (answer[:40], answer[40:]):
            visit.send(piece)
            visit.server.closing.wait(0.02)

    with serving(dribble) as slow, serving(answering(GOOD)) as server:
        wanted = [request(slow.url, source_id="slow", since=since)]
        wanted += [request(server.url, source_id=f"up-{number}") for number in range(6)]
        outcomes = run(wanted, concurrency=2, deadline_seconds=6.0)
    assert all(isinstance(outcome, Fetched) for outcome in outcomes.values())
    found = outcomes["slow"]
    assert isinstance(found, Fetched)
    assert not found.complete
    assert len(found.snapshots) > 2


def test_the_run_s_deadline_ends_what_cannot_be_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A source that hangs where no timeout reaches is reported as unreachable all the same."""
    released = threading.Event()

    def stuck(wanted: FetchRequest, **_: Any) -> Fetched:
        if wanted.source.source_id == "stuck":
            released.wait(30)
        return fetched(wanted.source.base_url)

    monkeypatch.setattr(fleet, "fetch", stuck)
    with serving(answering(GOOD)) as server:
        wanted = [request(server.url, source_id=name) for name in ("stuck", "waiting", "free")]
        outcomes = run(wanted[:1] + wanted[2:], concurrency=2, deadline_seconds=2.0)
        alone = run(wanted[:2], concurrency=1, deadline_seconds=0.5)
        released.set()
    assert isinstance(outcomes["free"], Fetched)
    for outcome in (outcomes["stuck"], alone["stuck"], alone["waiting"]):
        assert isinstance(outcome, ExporterError)
        assert "not finished at the run's deadline of" in outcome.reason
        assert outcome.unreachable


def test_a_look_up_that_hangs_ends_with_the_source_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver knows no timeout, so it is left behind."""
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        released.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(ExporterError) as caught:
        fetched("https://jp-1.example", timeout_seconds=0.2)
    released.set()
    assert caught.value.reason == "no connection to jp-1.example:443 within 0.2 s"
    assert caught.value.unreachable


def test_an_address_that_does_not_answer_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's addresses are tried in turn, each with its share of the time."""
    with serving(answering(GOOD)) as server:
        family, kind, protocol = (socket.AF_INET, socket.SOCK_STREAM, 6)
        found = [
            (family, kind, protocol, "", ("127.0.0.1", 1)),
            (family, kind, protocol, "", ("127.0.0.1", server.port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        result = fetched("http://jp-1.example", allow_http=True)
    assert len(result.snapshots) == 3


def test_a_host_without_an_address_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer of the resolver is one, too."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(ExporterError, match="the host has no address") as caught:
        fetched("https://jp-1.example")
    assert caught.value.unreachable


def test_a_defect_of_ours_fails_one_source_without_a_word_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exception's type is named, its text might hold a secret."""

    def broken(wanted: FetchRequest, **_: Any) -> Fetched:
        if wanted.source.source_id == "broken":
            raise ZeroDivisionError(MARKER)
        return fetched(wanted.source.base_url)

    monkeypatch.setattr(fleet, "fetch", broken)
    with serving(answering(GOOD)) as server:
        outcomes = run([request(server.url, source_id=name) for name in ("broken", "good")])
    assert isinstance(outcomes["good"], Fetched)
    error = outcomes["broken"]
    assert isinstance(error, ExporterError)
    assert error.reason == "unexpected ZeroDivisionError while fetching"
    assert_bare(error)


def test_an_error_carries_nothing_but_its_reason() -> None:
    """What led to it is cut off: its frames hold headers and whole answers."""
    with serving(answering(GOOD.replace(b"jp-1", b""))) as server:
        outcomes = run([request("http://127.0.0.1:1"), request(server.url, source_id="us-2")])
    for outcome in outcomes.values():
        assert isinstance(outcome, ExporterError)
        assert_bare(outcome)


def test_a_run_that_is_given_up_asks_no_further_sources() -> None:
    """Leaving the iteration stops the workers at their next turn."""
    with serving(answering(GOOD)) as server:
        outcomes = fetch_all(
            [request(server.url, source_id=str(number)) for number in range(500)],
            now=NOW,
            concurrency=1,
            deadline_seconds=60.0,
            default_token=None,
        )
        next(outcomes)
        with contextlib.suppress(AttributeError):
            outcomes.close()  # type: ignore[attr-defined]
        for thread in threading.enumerate():
            if thread.name.startswith("exporter-"):
                thread.join(30)
                assert not thread.is_alive()
        assert len(server.heads) < 500


def test_a_hanging_source_does_not_keep_the_process_alive() -> None:
    """A run that ends early, by a signal say, leaves daemon threads only."""
    code = """
import sys
from tests.unit.exporter.answers import NOW, request
from billing_cli.exporter.fleet import fetch_all

outcomes = fetch_all(
    [request(sys.argv[1], source_id="hangs", timeout_seconds=300.0), request("http://127.0.0.1:1")],
    now=NOW, concurrency=2, deadline_seconds=300.0, default_token=None,
)
print(next(outcomes)[0])
"""
    with serving(lambda visit: visit.hang()) as server:
        done = subprocess.run(  # noqa: S603 - our own interpreter and our own script
            [sys.executable, "-c", code, server.url], capture_output=True, timeout=60, check=True
        )
    assert done.stdout == b"jp-1\n"


def test_no_secret_is_in_anything_that_comes_back(tmp_path: Any) -> None:
    """Not in reasons, notes or reprs, whatever goes wrong with a source that has one."""
    path = tmp_path / "token"
    path.write_text(f"{MARKER}\n")
    path.chmod(0o644)

    def echo(visit: Visit) -> None:
        token = visit.head.partition("Bearer ")[2].partition("\r\n")[0]
        visit.send(f"HTTP/1.1 200 {token}\r\nContent-Encoding: {token}\r\n\r\n".encode())

    def echo_location(visit: Visit) -> None:
        token = visit.head.partition("Bearer ")[2].partition("\r\n")[0]
        visit.send(f"HTTP/1.1 302 {token}\r\nLocation: http://{token}/\r\n\r\n".encode())

    def echo_garbage(visit: Visit) -> None:
        token = visit.head.partition("Bearer ")[2].partition("\r\n")[0]
        visit.send(f"{token}\r\n{token}: {token}\r\n\r\n".encode())

    with contextlib.ExitStack() as servers:
        urls = [
            servers.enter_context(serving(script)).url
            for script in (echo, echo_location, echo_garbage, answering(GOOD))
        ]
        urls += [
            "http://127.0.0.1:1",
            f"http://u:{MARKER}@127.0.0.1:1",
            f"http://127.0.0.1:1/?{MARKER}",
        ]
        outcomes = run(
            [
                request(url, source_id=f"{ref}-{number}", auth_mode="bearer", credential_ref=ref)
                for ref in (None, f"file:{path}", "env:TOKEN", "env:BROKEN", MARKER)
                for number, url in enumerate(urls)
            ],
            default_token=SecretToken(MARKER),
            environ={"TOKEN": MARKER, "BROKEN": f"{MARKER}\n{MARKER}"},
        )
    assert len(outcomes) == 35
    for outcome in outcomes.values():
        assert MARKER not in repr(outcome)
        assert MARKER not in str(outcome)


def assert_bare(error: ExporterError) -> None:
    """There is no way from the error to what caused it."""
    assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)


def run(requests: list[FetchRequest], **more: Any) -> dict[str, Fetched | ExporterError]:
    """Return every source's outcome; each source has exactly one."""
    arguments: dict[str, Any] = {
        "concurrency": 8,
        "deadline_seconds": 60.0,
        "default_token": None,
        "environ": {},
        "limits": QUICK,
    }
    outcomes: Iterator[Any] = fetch_all(requests, now=NOW, **arguments | more)
    pairs = list(outcomes)
    assert sorted(name for name, _ in pairs) == sorted(one.source.source_id for one in requests)
    return dict(pairs)
