"""Stands between a client and PostgreSQL, reads along, and cuts the line where a test says so."""

from __future__ import annotations

import selectors
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

Side = Literal["client", "server"]
"""Who sent a message."""

Severance = Literal["withheld", "delivered"] | None
"""Whether the line is severed at a message, and whether that still gets through."""


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
    about each before it is passed on, with its place in that list. A line that it cuts ends in
    good order: the server has let go of everything once the client hears of it.

    `kinds` are the types of the client's messages, in order: `startup`, or the protocol's letter.

    `messages` counts what either side has sent, startup included. `judge_message` is asked about
    each before it is passed on, with its sender and its number among that sender's, from 0. A
    line that it severs is gone for both sides at once; the client's is reset.
    """

    def __init__(self, database_url: str) -> None:
        self.statements: list[str] = []
        self.kinds: list[str] = []
        self.judge: Callable[[int, str], Verdict] = lambda _place, _statement: None
        self.messages: dict[Side, int] = {"client": 0, "server": 0}
        self.judge_message: Callable[[Side, int], Severance] = lambda _side, _number: None
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

    def passes(self, side: Side) -> Severance:
        """Count a message, and return what is to become of it."""
        with self._lock:
            number = self.messages[side]
            self.messages[side] += 1
        return self.judge_message(side, number)

    def states(self, statement: str) -> Verdict:
        """Note a statement, and return what is to become of it."""
        with self._lock:
            place = len(self.statements)
            self.statements.append(statement)
        return self.judge(place, statement)

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
            # Each message is a write of its own, and none is to wait for the one before.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), self._connect() as server:
            with self._lock:
                self._open |= {client, server}
            try:
                _Line(self, client, server).pass_everything()
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _connect(self) -> socket.socket:
        host, port = str(self._target.get("host") or "127.0.0.1"), self._target.get("port") or 5432
        if not host.startswith("/"):
            return socket.create_connection((host, int(port)))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f"{host}/.s.PGSQL.{port}")
        except OSError:
            server.close()
            raise
        return server


class _Line:
    """One connection, both ways."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self.relay = relay
        self.client = client
        self.server = server
        self.has_started = False
        self.answers_are_cut = False
        self.inboxes: dict[Side, bytearray] = {"client": bytearray(), "server": bytearray()}
        self.outboxes: dict[Side, bytearray] = {"client": bytearray(), "server": bytearray()}
        self.selector = selectors.DefaultSelector()

    def pass_everything(self) -> None:
        """Pass messages on until the server has hung up, or the line is severed."""
        self.client.setblocking(False)
        self.server.setblocking(False)
        with self.selector:
            self.selector.register(self.client, selectors.EVENT_READ, "client")
            self.selector.register(self.server, selectors.EVENT_READ, "server")
            with suppress(_SeveredError):
                while self._pass_some():
                    pass

    def _pass_some(self) -> bool:
        """Tell whether the server is still there."""
        for key, events in self.selector.select():
            side: Side = key.data
            if events & selectors.EVENT_WRITE:
                self._write(side)
            if events & selectors.EVENT_READ and not self._read(side):
                if side == "server":
                    # Once it has hung up, whatever it had locked is free again.
                    self._flush("client")
                    return False
                self._client_is_gone()
        return True

    def _read(self, side: Side) -> bool:
        """Pass on what has come in. Tells whether the sender is still there."""
        try:
            data = self._socket(side).recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        inbox = self.inboxes[side]
        inbox += data
        while (message := self._next_message(side, inbox)) is not None:
            if side == "server":
                self._answer(message)
            elif not self._request(message):
                return False
        return bool(data)

    def _request(self, message: bytes) -> bool:
        """Pass on a client's message. Tells whether there is to be another one."""
        is_startup = not self.has_started
        if is_startup:
            code = struct.unpack("!i", message[4:8])[0]
            if code in ENCRYPTION_REQUESTS:
                self._send("client", b"N")
                return True
            self.has_started = True
            if code == CANCEL_REQUEST:
                self._send("server", message)
                return False
        self.relay.kinds.append("startup" if is_startup else chr(message[0]))
        severance = self.relay.passes("client")
        if severance == "withheld":
            self._sever()
        verdict: Verdict = None
        if not is_startup and message[:1] in b"QP":
            # A prepared statement's name stands before its text.
            text = message[5:].split(b"\0")[0 if message[:1] == b"Q" else 1].decode()
            verdict = self.relay.states(text)
        if verdict == "cut":
            return False
        self.answers_are_cut = self.answers_are_cut or verdict == "cut answer"
        self._send("server", message)
        if severance == "delivered":
            self._flush("server")
            self._sever()
        if verdict == "cut after":
            self._flush("server")
            _shut(self.client)
            return False
        return True

    def _answer(self, message: bytes) -> None:
        severance = self.relay.passes("server")
        if severance == "withheld":
            self._flush("client")
            self._sever()
        if self.answers_are_cut:
            self._client_is_gone()
            return
        self._send("client", message)
        if severance == "delivered":
            self._flush("client")
            self._sever()

    def _client_is_gone(self) -> None:
        """Tell the server, and go on listening to it until it has understood."""
        if self.client in self.selector.get_map():
            self.selector.unregister(self.client)
        self._flush("server")
        _shut(self.server, socket.SHUT_WR)

    def _sever(self) -> None:
        with suppress(OSError):
            # Lingering for no time at all: the client is told by a reset.
            linger = struct.pack("ii", 1, 0)
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.client.close()
        self.server.close()
        raise _SeveredError

    def _next_message(self, side: Side, inbox: bytearray) -> bytes | None:
        # A client's first messages have no letter that tells their kind.
        start = 1 if side == "server" or self.has_started else 0
        if len(inbox) < start + 4:
            return None
        length = start + int.from_bytes(inbox[start : start + 4])
        if len(inbox) < length:
            return None
        message = bytes(inbox[:length])
        del inbox[:length]
        return message

    def _socket(self, side: Side) -> socket.socket:
        return self.client if side == "client" else self.server

    def _send(self, receiver: Side, message: bytes) -> None:
        self.outboxes[receiver] += message
        self._write(receiver)

    def _write(self, receiver: Side) -> None:
        """Write as much as goes, without waiting: both sides may be writing at once."""
        outbox, target = self.outboxes[receiver], self._socket(receiver)
        try:
            del outbox[: target.send(outbox)]
        except BlockingIOError:
            pass
        except OSError:
            # That it is gone is noticed where it is read from.
            outbox.clear()
        if target in self.selector.get_map():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if outbox else 0)
            self.selector.modify(target, events, receiver)

    def _flush(self, receiver: Side) -> None:
        """Write everything that is due, as the last that is written there."""
        with suppress(OSError):
            self._socket(receiver).setblocking(True)
            self._socket(receiver).sendall(self.outboxes[receiver])
        self.outboxes[receiver].clear()


class _SeveredError(Exception):
    """The line is cut, and there is nothing more to pass on."""


def _shut(one: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    with suppress(OSError):
        one.shutdown(how)
