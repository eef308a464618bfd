"""Sockets that cannot outlive their deadline.

A read timeout alone bounds nothing: a server that drips one byte a second never runs into it.
Here every single read waits only for what is left of one total deadline, and so do the connect
and the TLS handshake. Looking up a name cannot be interrupted at all, so it happens on a thread
of its own that is left behind when it takes too long.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from typing import Any


class Deadline:
    """The monotonic second at which everything that shares this object has to be over."""

    def __init__(self, at: float) -> None:
        self.at = at

    def remaining(self) -> float:
        """Return the seconds left, always above zero; raises TimeoutError where none are."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


class ConnectError(Exception):
    """No connection came about. Not an OSError, so that no layer between wraps it in another."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class TimedSocket(socket.socket):
    """A TCP socket whose every read ends at the deadline."""

    deadline: Deadline | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read into a buffer, as the base class does."""
        if self.deadline is not None:
            self.settimeout(self.deadline.remaining())
        return super().recv_into(*args, **kwargs)


class TimedTlsSocket(ssl.SSLSocket):
    """A TLS socket whose every read ends at the deadline, whatever arrives on the wire."""

    deadline: Deadline | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read into a buffer, as the base class does."""
        if self.deadline is not None:
            self.settimeout(self.deadline.remaining())
        return super().recv_into(*args, **kwargs)


def connect(host: str, port: int, deadline: Deadline) -> TimedSocket:
    """Return a connected socket whose timeout is what is left of the deadline.

    A host's addresses are tried in turn, each for an even share of the time that is left, so that
    one that swallows packets does not hide another that answers. Raises ConnectError.
    """
    failure: OSError = OSError("the host has no address")
    try:
        addresses = _resolve(host, port, deadline)
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            share = deadline.remaining() / (len(addresses) - position)
            try:
                return _connect_to(family, kind, protocol, address, share, deadline)
            except OSError as error:
                failure = error
    except OSError as error:
        failure = error
    raise ConnectError(failure)


def _connect_to(
    family: int, kind: int, protocol: int, address: Any, share: float, deadline: Deadline
) -> TimedSocket:
    connection = TimedSocket(family, kind, protocol)
    try:
        connection.settimeout(share)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(deadline.remaining())
    except BaseException:
        connection.close()
        raise
    connection.deadline = deadline
    return connection


def _resolve(host: str, port: int, deadline: Deadline) -> list[Any]:
    """Return the host's addresses as `socket.getaddrinfo` does, within the deadline."""
    answers: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)
        except UnicodeError:
            answers.put(OSError("the host name is not valid"))

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.remaining())
    except queue.Empty:
        raise TimeoutError("looking up the address took too long") from None
    if isinstance(answer, OSError):
        raise answer
    return answer
