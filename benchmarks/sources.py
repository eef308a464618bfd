"""200 sources of which 20 hang: the whole may take little longer than the slowest one's deadline.

One process serves all of them on loopback. Those that are down accept the connection and never
answer, which is worse than a refusal; they stand last in the list, where they end last.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from benchmarks.measure import Cost
from billing_cli.config.source import Source
from billing_cli.core.times import format_rfc3339
from billing_cli.exporter.api import ExporterError, FetchRequest
from billing_cli.exporter.fleet import fetch_all
from billing_cli.jobs.context import FetchPolicy

if TYPE_CHECKING:
    from benchmarks.results import Results
    from benchmarks.sizes import Sizes
    from billing_cli.simulator.postgres import EmbeddedPostgres

SOURCES, DOWN = 200, 20


def run(_server: EmbeddedPostgres, sizes: Sizes, results: Results) -> None:
    """Measure one round of fetching."""
    now = datetime.now(UTC)
    over = threading.Event()
    server = _serve(now, over)
    port = server.server_address[1]
    requests = [
        FetchRequest(
            Source(
                f"source-{number}",
                f"http://127.0.0.1:{port}/{'up' if number < SOURCES - DOWN else 'down'}/{number}",
                mode="window",
                timeout_seconds=sizes.hanging_seconds,
            ),
            now - timedelta(hours=1),
            now,
            max_samples=1000,
            page_limit=60,
        )
        for number in range(SOURCES)
    ]
    started = time.perf_counter()
    outcomes = dict(
        fetch_all(
            requests,
            now=now,
            concurrency=FetchPolicy().concurrency,
            deadline_seconds=45,
            default_token=None,
        )
    )
    seconds = time.perf_counter() - started
    over.set()
    server.shutdown()
    server.server_close()
    assert sum(isinstance(outcome, ExporterError) for outcome in outcomes.values()) == DOWN
    what = f"fetching from {SOURCES} sources, {DOWN} of them hanging"
    results.run(what, Cost(seconds))
    results.figure(what, seconds / sizes.hanging_seconds, "x one source's deadline", "hanging")


def _serve(now: datetime, over: threading.Event) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            kind, number = self.path.split("/")[1:3]
            if kind == "down":
                over.wait()
                return
            stamp = format_rfc3339(now - timedelta(minutes=1))
            node = f'"node_id": "n{number}", "env": "bench"'
            body = (
                f'{{{node}, "snapshots": [{{"collected_at": "{stamp}", {node}, "samples": []}}],'
                ' "has_more": false}'
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
