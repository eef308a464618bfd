"""A server that does to its clients whatever a script says, byte by byte."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    Script = Callable[["Visit"], None]


class Visit:
    """One connection, with the head of the request that it brought."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self.head = ""

    def send(self, *pieces: bytes) -> None:
        """Send the pieces one after the other."""
        for piece in pieces:
            self.connection.sendall(piece)

    def drip(self, data: bytes, seconds: float = 0.05) -> None:
        """Send one byte at a time, until the client or the test has had enough."""
        for position in range(len(data)):
            if self.server.closing.wait(seconds):
                return
            self.connection.sendall(data[position : position + 1])

    def repeat(self, data: bytes, times: int = 1_000_000) -> None:
        """Send the same over and over, until the client or the test has had enough."""
        for _ in range(times):
            if self.server.closing.is_set():
                return
            self.connection.sendall(data)

    def hang(self) -> None:
        """Do nothing until the test ends."""
        self.server.closing.wait()

    def carry(self, port: int) -> None:
        """Carry bytes between the client and a local port, until either hangs up."""
        with socket.create_connection(("127.0.0.1", port)) as other:
            ends = {self.connection: other, other: self.connection}
            while not self.server.closing.is_set():
                for ready in select.select(list(ends), [], [], 0.1)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    ends[ready].sendall(data)

    def read_head(self) -> bool:
        """Read a request's head; false where the client hung up instead."""
        received = b""
        while b"\r\n\r\n" not in received:
            piece = self.connection.recv(4096)
            if not piece:
                return False
            received += piece
        self.head = received.decode("latin-1")
        self.server.heads.append(self.head)
        return True


class Server:
    """A listening server at `url`. `heads` holds the requests seen so far, each as it came."""

    def __init__(self, script: Script, context: ssl.SSLContext | None, *, greets: bool) -> None:
        self.heads: list[str] = []
        self.closing = threading.Event()
        self._script = script
        self._context = context
        self._greets = greets
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._accepting = threading.Thread(target=self._accept, name="scripted-server")
        self._accepting.start()

    def close(self) -> None:
        """Hang up on everybody; afterwards no socket and no thread is left."""
        self.closing.set()
        # Wakes the accepting thread, which a mere close would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="visit")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        raw = connection
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._connections.discard(raw)
                    self._connections.add(connection)
                    if self.closing.is_set():
                        return
            visit = Visit(self, connection)
            if self._greets:
                self._script(visit)
                return
            while not self.closing.is_set() and visit.read_head():
                self._script(visit)
        except OSError:
            pass  # The client hung up, which is what these tests make it do.
        finally:
            with self._lock:
                self._connections.discard(raw)
                self._connections.discard(connection)
                connection.close()
                raw.close()


@contextlib.contextmanager
def serving(
    script: Script, context: ssl.SSLContext | None = None, *, greets: bool = False
) -> Iterator[Server]:
    """Run a script for every request, or with `greets` for every connection before it asks."""
    server = Server(script, context, greets=greets)
    try:
        yield server
    finally:
        server.close()


def answering(*bodies: bytes, headers: Mapping[str, str] | None = None) -> Script:
    """Return a script that answers with each body in turn, and then with the last one again."""
    waiting = list(bodies)
    lock = threading.Lock()

    def script(visit: Visit) -> None:
        with lock:
            body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        visit.send(http(body, headers=headers))

    return script


def http(
    body: bytes = b"", *, status: str = "200 OK", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a whole response; a header that is given replaces the one that would be sent."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name}: {value}" for name, value in (fields | dict(headers or {})).items() if value]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
