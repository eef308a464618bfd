"""Exporters in a process of their own, whose snapshots are ready before anyone is timed.

Each source has streams that all carry one account; in minute `m` every `period`-th of them moves,
another set each time. What is asked for in order costs next to nothing to serve.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from billing_cli.core.times import format_rfc3339, parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection as Pipe

ENV = "prod"
INBOUND_TAG = "xhttp-premium"
MINUTE = timedelta(minutes=1)
# Where in its minute a snapshot is taken.
OFFSET = timedelta(seconds=30)
FIRST_TOTAL = 10**9
UPLINK_STEP, DOWNLINK_STEP = 1_000, 9_000
SEED = 20260408
KEPT_SNAPSHOTS = 4
# As real exporters do, pages are bounded by the number of snapshots only.
MOST_PAGE_SNAPSHOTS = 1000


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is on offer: the snapshot of minute 0 is taken half a minute after `start`."""

    start: datetime
    streams: int
    sources: int = 1
    period: int = 1

    def accounts(self) -> list[str]:
        """Return the accounts' uuids, source by source: random ones, and the same every time."""
        chance = random.Random(SEED)
        return [
            str(uuid.UUID(int=chance.getrandbits(128), version=4))
            for _ in range(self.sources * self.streams)
        ]

    def stamp(self, minute: int) -> datetime:
        """Return when the snapshot of a minute is taken."""
        return self.start + minute * MINUTE + OFFSET


@dataclass(frozen=True, slots=True)
class Exporter:
    """The process, seen from outside."""

    fleet: Fleet
    port: int
    pipe: Pipe

    def offer(self, minute: int, *, moving: bool = True) -> None:
        """Put the snapshots up to a minute on offer; where not `moving`, nothing grew in it."""
        self.pipe.send((minute, moving))
        self.pipe.recv()

    def sources(self) -> list[dict[str, str]]:
        """Return the sources as the configuration takes them."""
        return [
            {
                "source_id": f"n{number}",
                "base_url": f"http://127.0.0.1:{self.port}/{number}",
                "mode": "window",
            }
            for number in range(self.fleet.sources)
        ]


@contextmanager
def running_exporter(fleet: Fleet) -> Iterator[Exporter]:
    """Run the exporters of a fleet as long as the block lasts."""
    # A fresh process instead of a fork: it must not count what the parent holds in memory.
    start = multiprocessing.get_context("spawn")
    pipe, there = start.Pipe()
    process = start.Process(target=_serve, args=(fleet, there), daemon=True)
    process.start()
    # Ours alone is the other end: should the process die, whoever waits for it learns that.
    there.close()
    try:
        yield Exporter(fleet, pipe.recv(), pipe)
    finally:
        process.terminate()
        process.join()


class _Node:
    """One source's snapshots as JSON, the latest few kept."""

    def __init__(self, fleet: Fleet, number: int, accounts: list[str], idle: set[int]) -> None:
        self.fleet = fleet
        self.head = f'"node_id":"n{number}","env":"{ENV}"'.encode()
        self.names = [
            b'{"uuid":"%b","email":"user@example.com","inbound_tag":"%b","uplink_bytes_total":'
            % (account.encode(), INBOUND_TAG.encode())
            for account in accounts
        ]
        self.idle = idle
        self.samples: list[bytes] = []
        self.at_minute = -1
        self.kept: dict[int, bytes] = {}
        self.lock = threading.Lock()

    def snapshot(self, minute: int) -> bytes:
        with self.lock:
            if minute not in self.kept:
                self._move_to(minute)
                stamp = format_rfc3339(self.fleet.stamp(minute)).encode()
                self.kept[minute] = b'{"collected_at":"%b",%b,"samples":[%b]}' % (
                    stamp,
                    self.head,
                    b",".join(self.samples),
                )
                for old in list(self.kept)[:-KEPT_SNAPSHOTS]:
                    del self.kept[old]
            return self.kept[minute]

    def _move_to(self, minute: int) -> None:
        """Bring the samples to a minute: from the one before only what moves is made anew."""
        period, moves = self.fleet.period, self._moves(minute)
        if self.samples and minute == self.at_minute + 1:
            changed = [] if minute in self.idle else range(-moves % period, len(self.names), period)
        else:
            self.samples = [b""] * len(self.names)
            changed = range(len(self.names))
        for number in changed:
            count = (moves + number) // period
            self.samples[number] = b'%b%d,"downlink_bytes_total":%d}' % (
                self.names[number],
                FIRST_TOTAL + count * UPLINK_STEP,
                FIRST_TOTAL + count * DOWNLINK_STEP,
            )
        self.at_minute = minute

    def _moves(self, minute: int) -> int:
        return minute - sum(1 for one in self.idle if one <= minute)


def _serve(fleet: Fleet, pipe: Pipe) -> None:
    accounts, idle = fleet.accounts(), set[int]()
    nodes = [
        _Node(fleet, number, accounts[number * fleet.streams :][: fleet.streams], idle)
        for number in range(fleet.sources)
    ]
    newest = 0

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            node = nodes[int(url.path.split("/")[1])]
            since, until = (
                (parse_rfc3339(query[name]) - fleet.start - OFFSET) / MINUTE
                for name in ("since", "until")
            )
            first = max(int(query.get("cursor", 0)), -int(-since // 1), 0)
            last = min(int(until // 1), newest)
            size = min(int(query["limit"]), MOST_PAGE_SNAPSHOTS)
            minutes = range(first, last + 1)[:size]
            rest = minutes.stop <= last and bool(minutes)
            parts = [b'{%b,"snapshots":[' % node.head]
            for number, minute in enumerate(minutes):
                parts += [b"," if number else b"", node.snapshot(minute)]
            parts.append(
                b'],"has_more":%b,"next_cursor":%b}'
                % (json.dumps(rest).encode(), b'"%d"' % minutes.stop if rest else b"null")
            )
            self.send_response(200)
            self.send_header("Content-Length", str(sum(map(len, parts))))
            self.end_headers()
            self.wfile.writelines(parts)

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_address[1])
    while True:
        minute, moving = pipe.recv()
        if not moving:
            idle.add(minute)
        for node in nodes:
            node.snapshot(max(minute - 1, 0))
            node.snapshot(minute)
        newest = minute
        pipe.send("ready")


def minutes_ago(minutes: int) -> datetime:
    """Return the begin of the minute that was so many minutes ago."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - minutes * MINUTE
