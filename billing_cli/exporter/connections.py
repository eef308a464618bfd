"""The connections to one source, which can be hung up on at any time."""

from __future__ import annotations

import contextlib
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from urllib3 import ProxyManager


class Adapter(HTTPAdapter):
    """Connects through one TLS context to one verified name, and can be made to hang up."""

    def __init__(
        self, context: ssl.SSLContext | None, server_name: str | None, pins: tuple[str, ...]
    ) -> None:
        self._pins = pins
        self._tls: dict[str, Any] = {"ssl_context": context, "server_hostname": server_name}
        self._pool: Any = None
        self._connections: list[_PlainConnection | _TlsConnection] = []
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
            for sock in (connection.sock, connection.connected_socket):
                if sock is not None:
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)

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
            kind = _TlsConnection if is_tls else _PlainConnection
            pool.ConnectionCls = partial(self._connection, kind)
        return pool

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the context alone: requests would add its own CA bundle to it here."""

    def _connection(
        self, kind: type[_PlainConnection | _TlsConnection], **kwargs: Any
    ) -> _PlainConnection | _TlsConnection:
        connection = kind(**kwargs)
        if isinstance(connection, _TlsConnection):
            connection.pins = self._pins
        self._connections.append(connection)
        return connection


class _PlainConnection(HTTPConnection):
    """Keeps its socket: `sock` is None once a response that closes the connection has it."""

    connected_socket: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self.connected_socket = self.sock


class _TlsConnection(HTTPSConnection):
    """Keeps its socket as well, and what its handshake showed, which a close would delete.

    With `pins`, a server with another key is hung up on before anything is sent to it.
    """

    pins: tuple[str, ...] = ()
    handshake: tuple[str | None, bytes | None] = (None, None)
    connected_socket: socket.socket | None = None

    def connect(self) -> None:
        super().connect()
        self.connected_socket = self.sock
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
