"""HTTP with one source: a GET that ends in a body, or in one line that says why not."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from billing_cli import __version__
from billing_cli.exporter.api import ExporterError
from billing_cli.exporter.body import Body, receive
from billing_cli.exporter.failures import (
    Circumstances,
    TransientError,
    exchange_failure,
    status_failure,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import ProxyManager

    from billing_cli.exporter.address import Endpoint
    from billing_cli.exporter.credentials import SecretToken
    from billing_cli.exporter.limits import Limits

# Its warnings quote what servers sent, and what a server sends may be the token that it was sent.
logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)

_OK = 200


class Head(NamedTuple):
    """What an answer began with.

    `date` is the header as it came, `arrived_at` the monotonic second.
    """

    status: int
    date: str
    arrived_at: float


class Transport:
    """Sends one source's requests, over one kept connection where the exporter allows it.

    `timeout_seconds` bounds each request as a whole, from looking up the name to the last byte of
    the body and with all its retries; `run_deadline` (monotonic seconds) bounds them all.
    `last_head` is what the last answer began with, however it ended.
    """

    last_head: Head | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        context: ssl.SSLContext | None,
        server_name: str | None,
        proxy_url: str | None,
        token: SecretToken | None,
        timeout_seconds: float,
        run_deadline: float,
        limits: Limits,
        pins: tuple[str, ...] = (),
    ) -> None:
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._run_deadline = run_deadline
        self._limits = limits
        self._peer = endpoint.label if proxy_url is None else f"the proxy {proxy_url}"
        self._proxies = {} if proxy_url is None else {"http": proxy_url, "https": proxy_url}
        self._adapter = _Adapter(context, server_name, pins)
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, identity",
            "User-Agent": f"billing/{__version__}",
        }
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token.reveal()}"

    @property
    def handshake(self) -> tuple[str | None, bytes | None]:
        """TLS version and certificate (DER) of the last connection; None without TLS."""
        return self._adapter.handshake

    def close(self) -> None:
        """Close the connection."""
        self._adapter.close()

    @contextlib.contextmanager
    def get(self, path: str, parameters: Mapping[str, str]) -> Iterator[Body]:
        """Yield the body of a 200 answer.

        Raises NotFoundError for 404 and ExporterError for everything else that is not a complete
        answer within the time. Connect errors and 502, 503, 504 are tried again a few times.
        """
        deadline = min(time.monotonic() + self._timeout_seconds, self._run_deadline)
        for attempt in range(self._limits.retries + 1):
            try:
                body = self._get_by(deadline, path, parameters)
                break
            except TransientError:
                pause = self._limits.backoff_seconds * 2**attempt
                if attempt == self._limits.retries or time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
        with body:
            yield body

    def _get_by(self, deadline: float, path: str, parameters: Mapping[str, str]) -> Body:
        """Return the body, or abandon the exchange at the deadline and shut its socket down.

        A read timeout bounds single reads, and nothing bounds looking up a name: an exporter that
        sends a header byte by byte, or `100 Continue` for ever, would never run into it. So the
        exchange has a thread of its own, which ends once its socket is shut down.
        """
        exchange = _Exchange()
        is_connected = True
        left = max(0.001, deadline - time.monotonic())
        threading.Thread(
            target=self._run, args=(exchange, path, parameters, left), name="exchange", daemon=True
        ).start()
        try:
            result = exchange.outcome.get(timeout=left)
        except queue.Empty:
            result = TimeoutError()
            is_connected = self._adapter.is_connected
            self._adapter.hang_up()
        if isinstance(result, Body):
            return result
        limit = f"within {self._timeout_seconds:g} s"
        if deadline >= self._run_deadline:
            limit = "before the run's deadline"
        place = Circumstances(
            self._endpoint.label, self._peer, limit, is_connected, exchange.answered
        )
        try:
            if isinstance(result, ExporterError):
                raise result
            raise exchange_failure(result, place) from None
        finally:
            del result  # Its traceback leads here: a cycle, which would keep the socket open.

    def _run(
        self, exchange: _Exchange, path: str, parameters: Mapping[str, str], seconds: float
    ) -> None:
        """Put the body into the exchange's outcome, or what was raised instead."""
        body = Body(self._limits.spool_bytes)
        try:
            self._receive(body, exchange, path, parameters, seconds)
        except BaseException as error:  # noqa: BLE001 - raised again where the outcome is read
            body.close()
            exchange.outcome.put(error)
        else:
            exchange.outcome.put(body)

    def _receive(
        self,
        body: Body,
        exchange: _Exchange,
        path: str,
        parameters: Mapping[str, str],
        seconds: float,
    ) -> None:
        url = self._endpoint.url(path)
        request = requests.Request("GET", url, self._headers, params=parameters).prepare()
        # The adapter alone, without a session: it follows no redirect, keeps no cookie and reads
        # no environment. A host may have a second address, which needs its share of the time.
        response = self._adapter.send(
            request, stream=True, timeout=(seconds / 2, seconds), proxies=self._proxies
        )
        with contextlib.closing(response):
            self.last_head = Head(
                response.status_code,
                response.headers.get("Date", ""),
                time.monotonic(),
            )
            if response.status_code != _OK:
                raise status_failure(response.status_code)
            exchange.answered = True
            encoding = response.headers.get("Content-Encoding", "")
            receive(body, response.raw, encoding, self._limits)


class _Exchange:
    """One request in progress: its outcome, and how far it got."""

    def __init__(self) -> None:
        self.outcome: queue.SimpleQueue[Body | BaseException] = queue.SimpleQueue()
        self.answered = False


class _Adapter(HTTPAdapter):
    """Connects through one TLS context to one verified name, and can be made to hang up."""

    def __init__(
        self, context: ssl.SSLContext | None, server_name: str | None, pins: tuple[str, ...]
    ) -> None:
        self._pins = pins
        self._tls: dict[str, Any] = {"ssl_context": context, "server_hostname": server_name}
        self._pool: Any = None
        self._connections: list[HTTPConnection] = []
        super().__init__(pool_connections=1, pool_maxsize=1)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return any(connection.sock is not None for connection in self._connections)

    @property
    def handshake(self) -> tuple[str | None, bytes | None]:
        """TLS version and certificate (DER) of the last connection; None without TLS."""
        last = self._connections[-1] if self._connections else None
        return last.handshake if isinstance(last, _TlsConnection) else (None, None)

    def hang_up(self) -> None:
        """Shut all sockets down: whoever reads from them reads the end."""
        for connection in self._connections:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **_: Any
    ) -> None:
        """Make the pools of direct connections."""
        super().init_poolmanager(connections, maxsize, block, **self._tls)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        """Return the pools of connections through a proxy."""
        manager: ProxyManager = super().proxy_manager_for(proxy, **kwargs, **self._tls)
        return manager

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a request; its connections are remembered, to be hung up."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if pool is not self._pool:
            self._pool = pool
            is_tls = issubclass(pool.ConnectionCls, HTTPSConnection)
            pool.ConnectionCls = partial(
                self._connection, _TlsConnection if is_tls else HTTPConnection
            )
        return pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the context alone: requests would add its own CA bundle to it here."""

    def _connection(self, kind: type[HTTPConnection], **kwargs: Any) -> HTTPConnection:
        connection = kind(**kwargs)
        if isinstance(connection, _TlsConnection):
            connection.pins = self._pins
        self._connections.append(connection)
        return connection


class _TlsConnection(HTTPSConnection):
    """Keeps what its handshake showed, which is gone once the server closes the connection.

    With `pins`, a server with another key is hung up on before anything is sent to it.
    """

    pins: tuple[str, ...] = ()
    handshake: tuple[str | None, bytes | None] = (None, None)

    def connect(self) -> None:
        super().connect()
        if isinstance(self.sock, ssl.SSLSocket):
            self.handshake = self.sock.version(), self.sock.getpeercert(binary_form=True)
        if self.pins:
            self._require_pinned_key()

    def _require_pinned_key(self) -> None:
        from billing_cli.exporter.pins import key_digest  # noqa: PLC0415 - slow to import

        _, certificate = self.handshake
        try:
            found = key_digest(certificate or b"")
        except ValueError:
            found = "unreadable"
        if found not in self.pins:
            self.close()
            raise ExporterError(
                f"the key of the exporter is not pinned: its sha256 is {found}",
                code="tls",
                unreachable=True,
            )
