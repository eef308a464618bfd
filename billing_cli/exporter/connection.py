"""The adapter that requests sends with: one TLS context, one deadline, nothing from outside.

requests and urllib3 would add CA bundles of their own and wait for single reads only; what is
overridden here is what it takes to keep them from both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from billing_cli.exporter.sockets import Deadline, TimedTlsSocket, connect

if TYPE_CHECKING:
    import socket
    import ssl

    from requests import PreparedRequest


class DeadlineAdapter(HTTPAdapter):
    """Sends requests through one TLS context, against one deadline, to one verified name."""

    def __init__(
        self, *, context: ssl.SSLContext | None, server_name: str | None, deadline: Deadline
    ) -> None:
        self._tls: dict[str, Any] = {
            "cert_reqs": "CERT_REQUIRED",
            "ssl_context": context,
            "server_hostname": server_name,
        }
        self._deadline = deadline
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **_: Any
    ) -> None:
        """Make the pools of direct connections."""
        self.poolmanager = _Pools(num_pools=connections, maxsize=maxsize, block=block, **self._tls)
        self.poolmanager.deadline = self._deadline

    def proxy_manager_for(self, proxy: str, **_: Any) -> ProxyManager:
        """Return the pools of connections through a proxy."""
        pools = self.proxy_manager.get(proxy) or _ProxyPools(
            proxy, num_pools=1, maxsize=1, **self._tls
        )
        pools.deadline = self._deadline
        self.proxy_manager[proxy] = pools
        return pools

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Return whom to connect to, and our own TLS settings whatever the request says."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, dict(self._tls)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the context alone: requests would add its own CA bundle to it here."""


class _Connection(HTTPConnection):
    deadline: Deadline

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port, self.deadline)


class _TlsConnection(HTTPSConnection):
    deadline: Deadline

    def _new_conn(self) -> socket.socket:
        return connect(self._dns_host, self.port, self.deadline)

    def connect(self) -> None:
        super().connect()
        if isinstance(self.sock, TimedTlsSocket):
            self.sock.deadline = self.deadline


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection
    deadline: Deadline

    def _new_conn(self) -> Any:
        connection: Any = super()._new_conn()
        connection.deadline = self.deadline
        return connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection
    deadline: Deadline

    def _new_conn(self) -> Any:
        connection: Any = super()._new_conn()
        connection.deadline = self.deadline
        return connection


class _Pools(PoolManager):
    deadline: Deadline

    def _new_pool(self, scheme: str, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        self.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        pool: Any = super()._new_pool(scheme, *args, **kwargs)
        pool.deadline = self.deadline
        return pool  # type: ignore[no-any-return]


class _ProxyPools(_Pools, ProxyManager):
    """The same, through a proxy."""
