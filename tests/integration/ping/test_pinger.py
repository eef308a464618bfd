"""What the dead-man switch is told, by real servers that answer well, badly or never."""

from __future__ import annotations

import signal
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
import trustme

from billing_cli.errors import InterruptedBySignalError
from billing_cli.jobs.ping import MAX_WAIT_SECONDS, Pinger
from tests.unit.exporter.servers import Server, Visit, answering, http, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Long enough for any answer that comes at all; no test waits for it to pass.
PATIENCE_SECONDS = 60.0
KEY = "0b5f4e8a-key"


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server that answers everything with 200."""
    with serving(answering(b"OK")) as running:
        yield running


def pinged(url: str, status: int | None, context: ssl.SSLContext | None = None) -> tuple[str, ...]:
    """Ping at the begin and at the end; return the problems."""
    pinger = Pinger(url, max_wait_seconds=PATIENCE_SECONDS, tls_context=context)
    pinger.begin()
    pinger.end(status)
    return pinger.wait()


def paths(server: Server) -> list[str]:
    """Return what was asked for, in order."""
    return [head.split(" ")[1] for head in server.heads]


@pytest.mark.parametrize("status", [0, 3, 69, 143])
def test_begin_and_exit_status_are_told_in_that_order(server: Server, status: int) -> None:
    """The service knows 0 as success and anything else as failure."""
    assert pinged(f"{server.url}/{KEY}", status) == ()
    assert paths(server) == [f"/{KEY}/start", f"/{KEY}/{status}"]


def test_nothing_is_sent_but_the_address(server: Server) -> None:
    """A GET without a body, and without a header that tells of the machine or the run."""
    assert pinged(f"{server.url}/{KEY}", 0) == ()
    assert len(server.heads) == 2
    for head in server.heads:
        method, *_ = head.split(" ")
        names = {line.split(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert method == "GET"
        assert names == {"host", "accept-encoding", "user-agent", "connection"}


def test_an_end_that_is_nobodys_business_is_not_told(server: Server) -> None:
    """The begin stays without an end, until the next run's."""
    assert pinged(f"{server.url}/{KEY}", None) == ()
    assert paths(server) == [f"/{KEY}/start"]


def test_a_url_may_have_a_longer_path_or_none(server: Server) -> None:
    """Such services can live anywhere on a host."""
    assert pinged(f"{server.url}/a/b", 0) == pinged(server.url, 0) == ()
    assert paths(server) == ["/a/b/start", "/a/b/0", "/start", "/0"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (http(status="404 Not Found"), "HTTP status 404"),
        (http(status="302 Found", headers={"Location": "http://127.0.0.1:1/"}), "HTTP status 302"),
        (b"nonsense\r\n\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_a_bad_answer_is_a_problem_told_in_one_line(answer: bytes, problem: str) -> None:
    """No redirect is followed, nothing is tried again, and no address is in the text."""

    def script(visit: Visit) -> None:
        visit.send(answer)
        raise OSError

    with serving(script) as server:
        found = pinged(f"{server.url}/{KEY}", 0)
    assert len(server.heads) == 2
    assert found == (f"start: {problem}", f"0: {problem}")


def test_nobody_there_is_a_problem() -> None:
    """It names neither the host nor the key."""
    problem = "Connection refused"
    assert pinged(f"http://127.0.0.1:1/{KEY}", 0) == (f"start: {problem}", f"0: {problem}")


def drip(visit: Visit) -> None:
    """Send a header without end, one byte at a time."""
    visit.drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000)


@pytest.mark.parametrize("script", [Visit.hang, drip], ids=["hangs", "drips"])
def test_a_server_that_never_answers_is_left_behind(script: Callable[[Visit], None]) -> None:
    """The run ends while the server still keeps the line open."""
    with serving(script) as server:
        pinger = Pinger(f"{server.url}/{KEY}", max_wait_seconds=0.05)
        pinger.begin()
        pinger.end(0)
        assert pinger.wait()[-1].endswith("no answer in time")
    # No other test is to meet the rest of it.
    pinger._thread.join()


def test_a_name_that_is_looked_up_for_ever_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolvers can't be interrupted, and may take minutes."""
    end_of_time = threading.Event()

    def look_up(*_: object, **__: object) -> None:
        end_of_time.wait()
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    pinger = Pinger(f"http://localhost/{KEY}", max_wait_seconds=0.05)
    pinger.begin()
    pinger.end(0)
    assert pinger.wait() == ("no answer in time",)
    end_of_time.set()
    pinger._thread.join()


def test_a_run_waits_for_less_than_two_seconds() -> None:
    """For both pings together, whatever the server does."""
    assert MAX_WAIT_SECONDS < 2


def test_the_begin_waits_for_nothing() -> None:
    """The run goes on while the server has not even taken the call."""
    called, asked = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        called.set()
        asked.wait()
        visit.send(http())

    with serving(script) as server:
        pinger = Pinger(f"{server.url}/{KEY}", max_wait_seconds=PATIENCE_SECONDS)
        pinger.begin()
        assert called.wait(60)
        asked.set()
        pinger.end(0)
        pinger.wait()


def test_signals_are_left_to_the_run(server: Server) -> None:
    """While the main thread holds them back, as it does when it commits, none gets through."""

    def interrupt(signal_number: int, _frame: object) -> None:
        raise InterruptedBySignalError(signal_number)

    before = signal.signal(signal.SIGTERM, interrupt)
    pinger = Pinger(f"{server.url}/{KEY}", max_wait_seconds=PATIENCE_SECONDS)
    try:
        pinger.begin()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.raise_signal(signal.SIGTERM)
        pinger.end(0)
        assert pinger.wait() == ()
        assert signal.SIGTERM in signal.sigpending()
        with pytest.raises(InterruptedBySignalError):
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a CA that no system knows."""
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """Return what a server with a certificate for the name needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_a_server_that_is_who_it_says_is_called(authority: trustme.CA) -> None:
    """Over TLS, to the name in the URL."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with serving(answering(b"OK"), server_context(authority, "127.0.0.1")) as server:
        assert pinged(f"{server.url}/{KEY}", 0, trusting) == ()
        assert paths(server) == [f"/{KEY}/start", f"/{KEY}/0"]


@pytest.mark.parametrize("fault", ["unknown CA", "other name"])
def test_a_server_that_can_not_prove_who_it_is_learns_nothing(
    authority: trustme.CA, fault: str
) -> None:
    """Not even the address that it was to be asked for."""
    context = None
    name = "127.0.0.1"
    if fault == "other name":
        context = ssl.create_default_context()
        authority.configure_trust(context)
        name = "elsewhere.example"
    with serving(answering(b"OK"), server_context(authority, name)) as server:
        found = pinged(f"{server.url}/{KEY}", 0, context)
    assert server.heads == []
    assert len(found) == 2
    assert all("certificate verify failed" in one.lower() for one in found)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "HTTP_PROXY"])
def test_proxies_of_the_environment_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The key would be told to whoever set the variable."""
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert pinged(f"{server.url}/{KEY}", 0) == ()
    assert len(server.heads) == 2
