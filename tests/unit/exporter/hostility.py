"""What a hostile exporter can try: each behaviour as a script, with the reason it earns."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.unit.exporter.answers import NOW, START, encoded, minutes, page, sample, snapshot
from tests.unit.exporter.servers import http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.unit.exporter.servers import Script, Visit

GOOD = encoded(page(minutes(3)))
MEGABYTE = 1_000_000
CHUNKED = {"Content-Length": "", "Transfer-Encoding": "chunked"}


class Hostility(NamedTuple):
    """A behaviour and what is said about it. `greets` acts before any request is there."""

    name: str
    script: Script
    why: str
    unreachable: bool = False
    greets: bool = False

    @property
    def timeout_seconds(self) -> float:
        """Little time for those that would take for ever, and plenty for all others."""
        return 0.5 if "0.5 s" in self.why else 30.0


HOSTILITIES: list[Hostility] = []


def hostile(
    why: str, *, unreachable: bool = False, greets: bool = False
) -> Callable[[Script], Script]:
    """Register a script under the name of its function."""

    def register(script: Callable[[Visit], None]) -> Script:
        name = script.__name__.replace("_", " ").strip()
        HOSTILITIES.append(Hostility(name, script, why, unreachable, greets))
        return script

    return register


@hostile("within 0.5 s", unreachable=True)
def _accepts_and_says_nothing(visit: Visit) -> None:
    visit.hang()


@hostile("within 0.5 s", unreachable=True)
def _drips_the_status_line(visit: Visit) -> None:
    visit.drip(b"HTTP/1.1 200 O" + b"K" * 1000)


@hostile("within 0.5 s", unreachable=True)
def _drips_the_header(visit: Visit) -> None:
    visit.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Drip: 1\r\n" * 90)


@hostile("within 0.5 s", unreachable=True)
def _drips_the_body(visit: Visit) -> None:
    visit.send(http(headers={"Content-Length": str(len(GOOD))}))
    visit.drip(GOOD)


@hostile("within 0.5 s", unreachable=True)
def _drips_the_body_of_a_closing_connection(visit: Visit) -> None:
    visit.send(http(headers={"Content-Length": str(len(GOOD)), "Connection": "close"}))
    visit.drip(GOOD)


@hostile("within 0.5 s", unreachable=True)
def _drips_chunks(visit: Visit) -> None:
    visit.send(http(headers=CHUNKED))
    visit.drip(b"1\r\n \r\n" * 1000)


@hostile("within 0.5 s", unreachable=True)
def _drips_compressed_data(visit: Visit) -> None:
    body = gzip.compress(GOOD)
    visit.send(http(headers={"Content-Length": str(len(body)), "Content-Encoding": "gzip"}))
    visit.drip(body)


@hostile("within 0.5 s", unreachable=True)
def _stops_in_the_middle(visit: Visit) -> None:
    visit.send(http(GOOD[:200], headers={"Content-Length": str(len(GOOD))}))
    visit.hang()


@hostile("within 0.5 s", unreachable=True)
def _says_100_continue_for_ever(visit: Visit) -> None:
    visit.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


@hostile("closed the connection without an answer", unreachable=True)
def _hangs_up_without_an_answer(visit: Visit) -> None:
    visit.connection.shutdown(socket.SHUT_RDWR)


@hostile("closed the connection without an answer", unreachable=True)
def _resets_the_connection(visit: Visit) -> None:
    reset(visit)


@hostile("the answer is cut short")
def _announces_more_than_it_sends(visit: Visit) -> None:
    visit.send(http(GOOD, headers={"Content-Length": str(len(GOOD) + 1)}))
    visit.connection.shutdown(socket.SHUT_RDWR)


@hostile("not JSON")
def _announces_less_than_it_sends(visit: Visit) -> None:
    visit.send(http(GOOD, headers={"Content-Length": str(len(GOOD) - 1)}))


@hostile("no usable answer")
def _announces_two_lengths(visit: Visit) -> None:
    visit.send(http(GOOD, headers={"Content-Length": f"{len(GOOD)}, 5"}))


@hostile("the answer is cut short")
def _ends_its_chunks_early(visit: Visit) -> None:
    visit.send(http(headers=CHUNKED), b"5\r\n{}   \r\n")
    visit.connection.shutdown(socket.SHUT_RDWR)


@hostile("the answer is cut short")
def _sends_chunks_without_a_size(visit: Visit) -> None:
    visit.send(http(headers=CHUNKED), b"five\r\n{}   \r\n0\r\n\r\n")
    visit.connection.shutdown(socket.SHUT_RDWR)


@hostile("does not speak HTTP")
def _sends_a_chunk_size_without_an_end(visit: Visit) -> None:
    visit.send(http(headers=CHUNKED))
    visit.repeat(b"0" * 65536)


@hostile("longer than 4000000 bytes")
def _sends_chunks_for_ever(visit: Visit) -> None:
    visit.send(http(headers=CHUNKED))
    visit.repeat(b"10000\r\n" + b" " * 65536 + b"\r\n")


@hostile("longer than 4000000 bytes")
def _sends_a_body_for_ever(visit: Visit) -> None:
    visit.send(http(headers={"Content-Length": ""}))
    visit.repeat(b" " * 65536)


@hostile("longer than 4000000 bytes")
def _announces_ten_gigabytes(visit: Visit) -> None:
    visit.send(http(headers={"Content-Length": str(10**10)}))
    visit.repeat(b" " * 65536)


@hostile("longer than 4000000 bytes")
def _sends_a_gzip_bomb_of_ten_gigabytes(visit: Visit) -> None:
    visit.send(http(headers=CHUNKED | {"Content-Encoding": "gzip"}))
    for piece in bomb(10_000):
        visit.send(b"%x\r\n%b\r\n" % (len(piece), piece))


@hostile("longer than 4000000 bytes")
def _sends_compressed_data_that_holds_nothing(visit: Visit) -> None:
    visit.send(http(headers={"Content-Length": "", "Content-Encoding": "gzip"}))
    packer = zlib.compressobj(wbits=31)
    visit.send(packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH))
    visit.repeat(b"\x00\x00\x00\xff\xff" * 10_000)


@hostile("cut short")
def _ends_its_compressed_data_early(visit: Visit) -> None:
    visit.send(http(gzip.compress(GOOD)[:-9], headers={"Content-Encoding": "gzip"}))


@hostile("gzip data is broken")
def _sends_noise_as_compressed_data(visit: Visit) -> None:
    visit.send(http(b"\x1f\x8b\x08\x00" + b"noise" * 50, headers={"Content-Encoding": "gzip"}))


@hostile("neither gzip nor identity")
def _packs_with_something_else(visit: Visit) -> None:
    visit.send(http(GOOD, headers={"Content-Encoding": "zstd"}))


@hostile("does not speak HTTP")
def _speaks_another_protocol(visit: Visit) -> None:
    visit.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    visit.connection.shutdown(socket.SHUT_RDWR)


@hostile("does not speak HTTP")
def _sends_an_endless_header_line(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
    visit.repeat(b"a" * 65536)


@hostile("does not speak HTTP")
def _sends_endless_header_lines(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\n")
    visit.repeat(b"X-Many: 1\r\n" * 1000)


@hostile("redirects are not followed")
def _redirects_to_another_host(visit: Visit) -> None:
    visit.send(http(status="302 Found", headers={"Location": "https://evil.example/"}))


@hostile("redirects are not followed")
def _redirects_with_an_endless_body(visit: Visit) -> None:
    visit.send(http(status="307 R", headers={"Location": "/v1", "Content-Length": ""}))
    visit.repeat(b" " * 65536)


@hostile("HTTP 500")
def _fails_with_an_endless_body(visit: Visit) -> None:
    visit.send(http(status="500 Oh", headers={"Content-Length": ""}))
    visit.repeat(b" " * 65536)


@hostile("HTTP 503", unreachable=True)
def _is_always_unavailable(visit: Visit) -> None:
    visit.send(http(status="503 Later", headers={"Retry-After": "86400"}))


@hostile("two pages in a row without a later snapshot")
def _promises_more_for_ever(visit: Visit) -> None:
    answer(visit, page([], has_more=True, next_cursor=str(len(visit.server.heads))))


@hostile("two pages in a row without a later snapshot")
def _repeats_one_snapshot_for_ever(visit: Visit) -> None:
    answer(visit, page(minutes(1), has_more=True, next_cursor=str(len(visit.server.heads))))


@hostile("two pages in a row without a later snapshot")
def _repeats_one_snapshot_after_empty_pages(visit: Visit) -> None:
    number = len(visit.server.heads)
    answer(visit, page(minutes(number % 2), has_more=True, next_cursor=str(number)))


@hostile("more than 40 pages")
def _sends_pages_for_ever(visit: Visit) -> None:
    number = len(visit.server.heads)
    shots = minutes(1, start=START + timedelta(milliseconds=number))
    answer(visit, page(shots, has_more=True, next_cursor=str(number)))


@hostile("repeats a cursor")
def _goes_round_in_circles(visit: Visit) -> None:
    number = len(visit.server.heads)
    shots = minutes(1, start=START + timedelta(seconds=number))
    answer(visit, page(shots, has_more=True, next_cursor=str(number % 3)))


@hostile("repeats the token")
def _sends_the_token_back(visit: Visit) -> None:
    token = visit.head.partition("Bearer ")[2].partition("\r\n")[0]
    answer(visit, page([snapshot(node_id=token)]))


def script_that(name: str) -> Script:
    """Return a registered script by its name."""
    return next(hostility.script for hostility in HOSTILITIES if hostility.name == name)


def says(name: str, why: str, *bodies: bytes) -> None:
    """Register answers that are good HTTP and nothing else."""

    def script(visit: Visit) -> None:
        visit.send(http(bodies[min(len(visit.server.heads), len(bodies)) - 1]))

    HOSTILITIES.append(Hostility(name, script, why))


says(
    "a web page",
    "the answer is a web page, not JSON",
    b"<!doctype html><title>Welcome</title>" + b"<p>" * 1000,
)
says("nothing", "not JSON", b"")
says("half a page", "not JSON", GOOD[:-1])
says("two pages", "not JSON", GOOD + GOOD)
says("a byte order mark", "not JSON", b"\xef\xbb\xbf" + GOOD)
says("invalid UTF-8", "not UTF-8", GOOD.replace(b"jp-1", b"jp\xff1"))
says("a NUL", "a NUL", GOOD.replace(b"user@", rb"\u0000@"))
says("half a surrogate pair", "not JSON", GOOD.replace(b"user@", rb"\ud800@"))
says("NaN", "not JSON", GOOD.replace(b'_total":0', b'_total":NaN', 1))
says(
    "a huge integer",
    "<= 9223372036854775807",
    GOOD.replace(b'_total":0', b'_total":1' + b"0" * 400, 1),
)
says("an endless integer", "out of range", b"9" * MEGABYTE)
says("a negative total", "expected int >= 0", GOOD.replace(b'_total":0', b'_total":-1', 1))
says(
    "a total with a fraction",
    "expected int, got float",
    GOOD.replace(b'_total":0', b'_total":0.0', 1),
)
says("deep lists", "nested too deeply", b'{"a":' + b"[" * 50_000)
says("deep objects", "nested too deeply", b'{"a":' * 19_000)
says("a great many lists", "expected object, got array", b"[" + b"[]," * MEGABYTE + b"[]]")
says("a great many numbers", "got int", b'{"snapshots":[' + b"1," * MEGABYTE + b"0]}")
says("a great many objects", "more than 20000 objects", b'{"items":[' + b"{}," * MEGABYTE + b"{}]}")
says(
    "a great many samples",
    "more than 3000 samples",
    encoded(page([snapshot(samples=minutes(1, size=3001)[0]["samples"])])),
)
says("one stream twice", "appears twice", encoded(page([snapshot(samples=[sample()] * 2)])))
says("another node", "expected 'jp-1'", encoded(page([snapshot(node_id="us-2")], node_id="us-2")))
says("another environment", "expected 'prod'", encoded(page([snapshot(env="test")], env="test")))
says("a time without a zone", "with a zone", encoded(page([snapshot("2026-04-08T12:00:00")])))
says("the future", "5 minutes ahead", encoded(page([snapshot(NOW + timedelta(hours=1))])))
says("time running backwards", "out of order", encoded(page(minutes(3)[::-1])))
says("more without a cursor", "without a next_cursor", encoded(page(minutes(3), has_more=True)))
says(
    "pages out of order",
    "out of order",
    encoded(page(minutes(3), has_more=True, next_cursor="a")),
    encoded(page(minutes(3, start=START - timedelta(hours=1)))),
)
says(
    "an instant with two sets of figures",
    "two different snapshots",
    encoded(page(minutes(3), has_more=True, next_cursor="a")),
    encoded(page([snapshot(START + timedelta(minutes=2), [sample(up=5)])])),
)
says(
    "a node that changes between pages",
    "expected 'jp-1'",
    encoded(page(minutes(3), has_more=True, next_cursor="a")),
    encoded(page([snapshot(START + timedelta(minutes=3), node_id="x")], node_id="x")),
)
says(
    "an overlong tag",
    "characters",
    encoded(page([snapshot(samples=[sample(inbound_tag="t" * 9999)])])),
)
says("an overlong cursor", "characters", encoded(page(has_more=True, next_cursor="c" * 9999)))
says(
    "a tag that reorders text",
    "control or format character",
    encoded(page([snapshot(samples=[sample(inbound_tag="vip\u202e")])])),
)
says("an error as success", "neither snapshots nor items", json.dumps({"error": "x"}).encode())


@hostile("within 0.5 s", unreachable=True, greets=True)
def _never_shakes_hands(visit: Visit) -> None:
    visit.hang()


@hostile("within 0.5 s", unreachable=True, greets=True)
def _drips_the_handshake(visit: Visit) -> None:
    visit.drip(b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc\x03\x03" + b"a" * 1000)


@hostile("TLS with", unreachable=True, greets=True)
def _speaks_no_tls(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    visit.hang()


def answer(visit: Visit, value: Any) -> None:
    """Send a page."""
    visit.send(http(encoded(value)))


def bomb(megabytes: int) -> Iterable[bytes]:
    """Yield pieces of gzip data, a kilobyte each, that unpack to a megabyte each."""
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(MEGABYTE)
    yield packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(megabytes):
        yield again


def reset(visit: Visit) -> None:
    """Close a connection as a crash does."""
    with contextlib.suppress(OSError):
        visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visit.connection.close()
