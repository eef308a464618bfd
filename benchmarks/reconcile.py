"""`billing reconcile` over a day of history: seconds and peak memory, which must stay bounded.

    python benchmarks/reconcile.py [--hours 24] [--streams 2000] [--limit-mb 300]

The evidence is written by SQL, the history served over HTTP by this process, and the command runs
as a child whose peak memory the kernel reports. Every stream moves every minute.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from billing_cli.core.times import format_rfc3339, minute_of, parse_rfc3339
from billing_cli.jobs.migrate import migrate
from billing_cli.simulator.postgres import running_postgres

NODE = "prod:bench"
MINUTE = timedelta(minutes=1)

WRITE_EVIDENCE = """
INSERT INTO billing.usage_records
       (stream_id, bucket_start, from_at, to_at, reset_epoch,
        uplink_start, uplink_end, downlink_start, downlink_end, account_uuid)
SELECT stream_id, %(first)s + minute * interval '1 minute',
       %(first)s + (minute - 1) * interval '1 minute' + interval '30 seconds',
       %(first)s + minute * interval '1 minute' + interval '30 seconds', 0,
       (minute - 1) * 1000, minute * 1000, (minute - 1) * 9000, minute * 9000, account_uuid
  FROM billing.streams, generate_series(1, %(minutes)s) AS minute
"""


def main() -> int:
    """Measure, print, and fail where memory is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--limit-mb", type=float, default=300.0)
    options = parser.parse_args()
    minutes = options.hours * 60
    first = minute_of(datetime.now(UTC)) - (minutes + 2) * MINUTE
    names = [str(uuid.UUID(int=number + 1)) for number in range(options.streams)]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        # The server of a root run is someone else's process, who must be let in.
        Path(directory).chmod(0o755)
        server = stack.enter_context(running_postgres(Path(directory) / "postgres", durable=False))
        migrate(server.url())
        _write(server.url(), names, first, minutes)
        exporter = _exporter(names, first, minutes)
        environment = {
            **os.environ,
            "DATABASE_URL": server.url(),
            "EXPORTER_BASE_URL": f"http://127.0.0.1:{exporter.server_address[1]}",
            "BILLING_RUN_DEADLINE_SECONDS": "600",
        }
        since = format_rfc3339(first + MINUTE)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "billing_cli", "reconcile", "--json", "--since", since],
            env=environment,
            capture_output=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        exporter.shutdown()
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    result = json.loads(done.stdout)
    records = minutes * options.streams
    print(
        f"reconcile {options.hours} h x {options.streams} streams: {result['status']}, "
        f"{result['processed_samples']} samples against {records} records, "
        f"{result['corrections']} corrections, {seconds:.1f} s, peak {megabytes:.0f} MB "
        f"(limit {options.limit_mb:.0f} MB)"
    )
    return int(result["status"] != "ok" or megabytes > options.limit_mb)


def _write(url: str, names: list[str], first: datetime, minutes: int) -> None:
    last = first + minutes * MINUTE + timedelta(seconds=30)
    with psycopg.connect(url) as connection:
        for name in names:
            connection.execute(
                "INSERT INTO billing.streams (stored_node_id, inbound_tag, sample_uuid,"
                " account_uuid, first_sight, first_seen_at, first_uplink_total,"
                " first_downlink_total, seen_at, uplink_total, downlink_total)"
                " VALUES (%s, 'x', %s, %s, 'baseline', %s, 0, 0, %s, %s, %s)",
                (NODE, name, name, first, last, minutes * 1000, minutes * 9000),
            )
        connection.execute(WRITE_EVIDENCE, {"first": first, "minutes": minutes})
        connection.execute(
            "INSERT INTO billing.sources (source_id, env, node_id, stored_node_id, contract,"
            " first_snapshot_at, watermark) VALUES ('default', 'prod', 'bench', %s, 'window',"
            " %s, %s)",
            (NODE, first, last),
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE")


def _exporter(names: list[str], first: datetime, minutes: int) -> ThreadingHTTPServer:
    """Serve a history in which every stream moves every minute, as JSON made on demand."""
    stamps = [first + timedelta(minutes=number, seconds=30) for number in range(minutes + 1)]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            query = {key: value[0] for key, value in parse_qs(urlsplit(self.path).query).items()}
            start = parse_rfc3339(query.get("cursor") or query["since"])
            until, limit = parse_rfc3339(query["until"]), int(query["limit"])
            wanted = [one for one in stamps if start <= one <= until]
            page = wanted[:limit]
            has_more = len(wanted) > limit
            body = json.dumps(
                {
                    "node_id": "bench",
                    "env": "prod",
                    "snapshots": [_snapshot(names, first, one) for one in page],
                    "has_more": has_more,
                    "next_cursor": format_rfc3339(wanted[limit]) if has_more else None,
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _snapshot(names: list[str], first: datetime, at: datetime) -> dict[str, object]:
    number = int((at - first).total_seconds() // 60)
    return {
        "collected_at": format_rfc3339(at),
        "node_id": "bench",
        "env": "prod",
        "samples": [
            {
                "uuid": name,
                "inbound_tag": "x",
                "uplink_bytes_total": number * 1000,
                "downlink_bytes_total": number * 9000,
            }
            for name in names
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
