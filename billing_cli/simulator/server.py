"""Serves a fleet as exporters do, over HTTP or HTTPS on the loopback, with faults on demand.

Every node stands under its own path: `http://127.0.0.1:<port>/<source_id>/v1/snapshots/window`.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from billing_cli.simulator.wire import (
    BadRequestError,
    Order,
    Seam,
    WindowQuery,
    encode_snapshot,
    window_page,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from billing_cli.core.model import NodeIdentity
    from billing_cli.simulator.traffic import Fleet, Node, Snapshot

_HTTP_OK = 200
_HTTP_BAD_REQUEST = 400
_HTTP_UNAUTHORIZED = 401
_HTTP_NOT_FOUND = 404


@dataclass(slots=True)
class Endpoint:
    """How one node's exporter behaves; every field may be changed while it serves.

    What it is: `token` (a Bearer token that it demands), `windowed` (false: it has the latest
    snapshot only), `max_page` (snapshots a page at most), `seam` (how pages join).
    What is wrong with it: `refused` (nothing listens; read by `sources()`), `down` (connections
    are closed unanswered), `status` (answered instead of content), `latency_seconds`, `body`
    (sent in place of the right one), `rewrite` (changes the right one), `identity` (another
    node's name), `order` (snapshots of a page repeat, or go backwards), `answer` (takes over the
    whole response, for everything else).
    What it has seen: `requests`, each as path and query.
    """

    token: str | None = None
    windowed: bool = True
    max_page: int = 1000
    seam: Seam = "after"
    refused: bool = False
    down: bool = False
    status: int | None = None
    latency_seconds: float = 0.0
    body: bytes | None = None
    rewrite: Callable[[bytes], bytes] | None = None
    identity: NodeIdentity | None = None
    order: Order = "rising"
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    requests: list[str] = field(default_factory=list)


class ListenError(Exception):
    """Nobody can be served at the address. The text says why."""


@contextmanager
def serve(
    fleet: Fleet,
    *,
    ssl_context: ssl.SSLContext | None = None,
    ca_bundle: str | None = None,
    endpoints: Mapping[str, Endpoint] | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
) -> Iterator[RunningFleet]:
    """Serve the fleet until the block ends; then every socket and thread is gone.

    Port 0 of the address is any that is free. With `ssl_context` it speaks HTTPS; `ca_bundle` is
    then configured in the sources. `endpoints` says how the exporters behave, by source id; those
    it leaves out are without fault. Raises ListenError where the address can't be had.
    """
    try:
        server = _Server(fleet, ssl_context, dict(endpoints or {}), address)
    except OSError as error:
        host, port = address
        raise ListenError(f"can't listen on {host}, port {port}: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="simulated-fleet")
    thread.start()
    try:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # Bound but not listening: connections are refused.
            yield RunningFleet(server, unused.getsockname()[1], ca_bundle)
    finally:
        server.closing.set()
        server.shutdown()
        server.hang_up()
        server.server_close()
        thread.join()


class RunningFleet:
    """A fleet that answers requests. Made by `serve`."""

    def __init__(self, server: _Server, refusing_port: int, ca_bundle: str | None) -> None:
        self.fleet = server.fleet
        self._server = server
        self._refusing_port = refusing_port
        self._ca_bundle = ca_bundle

    def __getitem__(self, source_id: str) -> Endpoint:
        """Return how the node's exporter behaves, to be changed at will."""
        if source_id not in self.fleet.nodes:
            raise KeyError(source_id)
        return self._server.endpoints.setdefault(source_id, Endpoint())

    def base_url(self, source_id: str) -> str:
        """Return the `base_url` of a node's source."""
        scheme = "https" if self._server.ssl_context else "http"
        refused = self[source_id].refused
        port = self._refusing_port if refused else self._server.server_address[1]
        return f"{scheme}://127.0.0.1:{port}/{source_id}"

    def sources(self, **extra: Any) -> list[dict[str, Any]]:
        """Return the fleet as EXPORTER_SOURCES_JSON lists it, with `extra` keys in each entry."""
        return [self._source(node) | extra for node in self.fleet.nodes.values()]

    def credentials(self) -> dict[str, str]:
        """Return the environment that the sources' `credential_ref` entries speak of."""
        tokens = ((source_id, self[source_id].token) for source_id in self.fleet.nodes)
        return {_token_variable(source_id): token for source_id, token in tokens if token}

    def _source(self, node: Node) -> dict[str, Any]:
        source: dict[str, Any] = {
            "source_id": node.source_id,
            "base_url": self.base_url(node.source_id),
            "expected_node_id": node.identity.node_id,
            "expected_env": node.identity.env,
        }
        if self[node.source_id].token:
            reference = f"env:{_token_variable(node.source_id)}"
            source |= {"auth_mode": "bearer", "credential_ref": reference}
        if self._ca_bundle:
            source["ca_bundle"] = self._ca_bundle
        return source


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = False
    block_on_close = True

    def __init__(
        self,
        fleet: Fleet,
        ssl_context: ssl.SSLContext | None,
        endpoints: dict[str, Endpoint],
        address: tuple[str, int],
    ) -> None:
        super().__init__(address, _Handler)
        self.fleet = fleet
        self.ssl_context = ssl_context
        self.endpoints = endpoints
        self.closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept without a handshake: that is left to the request's own thread."""
        connection, address = super().get_request()
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Wake the threads that wait for a client's next request on an open connection."""
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away, and TLS that they refuse, are part of the game."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are written apart: without this each answer waits for a delayed ACK.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        source_id, _, path = urlsplit(self.path).path.removeprefix("/").partition("/")
        node = self.server.fleet.nodes.get(source_id)
        if node is None:
            self._send(_HTTP_NOT_FOUND, b'{"error":"no such exporter"}')
            return
        endpoint = self.server.endpoints.setdefault(source_id, Endpoint())
        endpoint.requests.append(self.path)
        present = self.server.fleet.present
        if endpoint.latency_seconds:
            self.server.closing.wait(endpoint.latency_seconds)
        if endpoint.down or (present is not None and node.is_down(present)):
            self.close_connection = True
        elif endpoint.answer is not None:
            endpoint.answer(self)
        elif endpoint.status is not None:
            self._send(endpoint.status, b'{"error":"simulated"}')
        elif endpoint.token and self.headers["Authorization"] != f"Bearer {endpoint.token}":
            self._send(_HTTP_UNAUTHORIZED, b'{"error":"unauthorized"}')
        else:
            self._send(*_content(node, endpoint, path, node.published(present), self.path))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base's name
        """Stay silent: tests and the demo own the terminal."""

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _content(
    node: Node, endpoint: Endpoint, path: str, offered: list[Snapshot], url: str
) -> tuple[int, bytes]:
    """Return the status and the body of an exporter's answer, faults of content included."""
    if path == "v1/snapshots/latest":
        if not offered:
            return _HTTP_NOT_FOUND, b'{"error":"no snapshot yet"}'
        body = encode_snapshot(node, offered[-1], endpoint.identity)
    elif path == "v1/snapshots/window" and endpoint.windowed:
        parameters = dict(parse_qsl(urlsplit(url).query))
        try:
            query = WindowQuery.parse(parameters, endpoint.max_page)
            body = window_page(
                node, offered, query, endpoint.seam, endpoint.identity, endpoint.order
            )
        except BadRequestError as error:
            return _HTTP_BAD_REQUEST, f'{{"error":"{error}"}}'.encode()
    else:
        return _HTTP_NOT_FOUND, b'{"error":"not found"}'
    if endpoint.body is not None:
        body = endpoint.body
    if endpoint.rewrite is not None:
        body = endpoint.rewrite(body)
    return _HTTP_OK, body


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # The client was faster.
        return


def _token_variable(source_id: str) -> str:
    return "SIMULATOR_TOKEN_" + re.sub(r"\W", "_", source_id).upper()
