"""Stands between a client and PostgreSQL, reads along, and cuts the line where a test says so."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What a client may send in place of a startup message.
CANCEL_REQUEST = 80877102
ENCRYPTION_REQUESTS = (80877103, 80877104)

Verdict = Literal["cut", "cut after", "cut answer"] | None
"""When the line is cut: before the statement is sent, while it runs, once its answer is there."""


@contextmanager
def relayed(database_url: str) -> Iterator[Relay]:
    """Relay connections to the database as long as the block lasts."""
    relay = Relay(database_url)
    try:
        yield relay
    finally:
        relay.close()


class Relay:
    """A TCP port that leads to the database at `url`.

    `statements` holds what was sent, in order, COMMIT and SAVEPOINT included. `judge` is asked
    about each before it is passed on, with its place in that list.
    """

    def __init__(self, database_url: str) -> None:
        self.statements: list[str] = []
        self.judge: Callable[[int, str], Verdict] = lambda _place, _statement: None
        self._target = conninfo_to_dict(database_url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def url(self) -> str:
        """Return the URI of the database behind the relay."""
        user = quote(str(self._target.get("user") or ""), safe="")
        secret = quote(str(self._target.get("password") or ""), safe="")
        port = self._listener.getsockname()[1]
        name = quote(str(self._target["dbname"]), safe="")
        return f"postgresql://{user}:{secret}@127.0.0.1:{port}/{name}?sslmode=disable"

    def close(self) -> None:
        """Hang up on everyone; then every socket and thread is gone."""
        _shut(self._listener)
        self._listener.close()
        with self._lock:
            for one in self._open:
                _shut(one)
        for thread in list(self._threads):
            thread.join()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="relay")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        server = self._connect()
        with client, server:
            with self._lock:
                self._open |= {client, server}
            line = _Line(client, server)
            self._start(line.return_answers)
            with suppress(OSError, EOFError):
                line.pass_startup()
                while True:
                    self._pass_message(line)
            # Once the server has hung up as well, whatever it had locked is free again.
            _shut(server, socket.SHUT_WR)
            line.ended.wait()
            with self._lock:
                self._open -= {client, server}

    def _pass_message(self, line: _Line) -> None:
        kind, body = line.next_message()
        verdict: Verdict = None
        if kind in b"QP":
            # A prepared statement's name stands before its text.
            text = body.split(b"\0")[0 if kind == b"Q" else 1].decode()
            with self._lock:
                place = len(self.statements)
                self.statements.append(text)
            verdict = self.judge(place, text)
            if verdict == "cut":
                raise EOFError
            line.answer_is_cut = verdict == "cut answer"
        line.send(kind, body)
        if verdict == "cut after":
            _shut(line.client)
            raise EOFError

    def _connect(self) -> socket.socket:
        host, port = str(self._target.get("host") or "127.0.0.1"), self._target.get("port") or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server


class _Line:
    """One connection, both ways."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.answer_is_cut = False
        self.ended = threading.Event()

    def pass_startup(self) -> None:
        while True:
            body = self._read(struct.unpack("!i", self._read(4))[0] - 4)
            code = struct.unpack("!i", body[:4])[0]
            if code not in ENCRYPTION_REQUESTS:
                self.server.sendall(struct.pack("!i", len(body) + 4) + body)
                if code == CANCEL_REQUEST:
                    raise EOFError
                return
            self.client.sendall(b"N")

    def next_message(self) -> tuple[bytes, bytes]:
        kind = self._read(1)
        return kind, self._read(struct.unpack("!i", self._read(4))[0] - 4)

    def send(self, kind: bytes, body: bytes) -> None:
        self.server.sendall(kind + struct.pack("!i", len(body) + 4) + body)

    def return_answers(self) -> None:
        with suppress(OSError):
            while answer := self.server.recv(65536):
                if self.answer_is_cut:
                    _shut(self.server, socket.SHUT_WR)
                else:
                    self.client.sendall(answer)
        _shut(self.client)
        self.ended.set()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.client.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


def _shut(one: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with suppress(OSError):
        one.shutdown(how)
