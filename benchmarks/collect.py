"""`collect` against the floor: the same facts by bare SQL in one transaction, foreign keys on.

    python benchmarks/collect.py [--streams 10000] [--rounds 3]

The floor writes a minute's buckets, ledger entries, checkpoints and quota states of N accounts by
COPY, INSERT ... SELECT and UPDATE ... FROM. `collect` fetches the same minute over HTTP, decodes,
computes, rates, and writes the same facts and its evidence; once with every stream moving, once
with all of them idle, once with nothing new. In turns within one run: only ratios count.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.model import DeltaPolicy
from billing_cli.core.times import format_rfc3339
from billing_cli.exporter.source import Source
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import JobContext, Tariff
from billing_cli.jobs.migrate import migrate
from billing_cli.simulator.postgres import running_postgres
from billing_cli.store.connection import Database

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection as Pipe

START = datetime(2026, 4, 8, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NODE = "prod:bench"

FLOOR = (
    "CREATE TEMP TABLE given (account uuid, id uuid, up bigint, down bigint) ON COMMIT DROP",
    "COPY given FROM STDIN",
    (
        "INSERT INTO traffic_minute_buckets (bucket_start, node_id, account_uuid, line_code,"
        " uplink_bytes, downlink_bytes, total_bytes, rating_status)"
        " SELECT %(minute)s, 'floor', account, 'x', up, down, up + down, 'rated' FROM given"
    ),
    (
        "INSERT INTO billing_ledger (id, account_uuid, bucket_start, bucket_end, entry_type,"
        " rated_bytes, amount_delta, balance_after)"
        " SELECT id, account, %(minute)s, %(minute)s + interval '1 minute', 'traffic_charge',"
        " up + down, -0.003, 1 FROM given"
    ),
    (
        "INSERT INTO traffic_stat_checkpoints AS c (node_id, account_uuid, last_uplink_total,"
        " last_downlink_total, last_seen_at)"
        " SELECT 'floor', account, up, down, %(minute)s FROM given"
        " ON CONFLICT (node_id, account_uuid) DO UPDATE SET last_seen_at = excluded.last_seen_at,"
        " last_uplink_total = excluded.last_uplink_total,"
        " last_downlink_total = excluded.last_downlink_total, updated_at = now()"
    ),
    (
        "UPDATE account_quota_states AS q SET current_balance = q.current_balance - 0.003,"
        " last_rated_bucket_at = %(minute)s, updated_at = now() FROM given"
        " WHERE q.account_uuid = given.account"
    ),
)


def main() -> int:
    """Measure in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    accounts = [str(uuid.UUID(int=number * 2**64 + 1)) for number in range(options.streams)]
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        # The server of a root run is someone else's process, who must be let in.
        Path(directory).chmod(0o755)
        server = stack.enter_context(running_postgres(Path(directory) / "postgres"))
        url = server.url()
        migrate(url)
        _add_users(url, accounts)
        pipe, there = multiprocessing.Pipe()
        exporter = multiprocessing.Process(target=_serve, args=(there, accounts), daemon=True)
        exporter.start()
        context = _context(url, pipe.recv())
        times = _measure(context, url, pipe, accounts, options.rounds)
        exporter.terminate()
    _report(options.streams, times)
    return 0


def _measure(
    context: JobContext, url: str, pipe: Pipe, accounts: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    def run(minute: int, *, moving: bool, expected: int) -> float:
        pipe.send((minute, moving))
        pipe.recv()
        now = START + minute * MINUTE + timedelta(seconds=65)
        started = time.perf_counter()
        result = collect(replace(context, run_id=str(uuid.uuid4()), clock=lambda: now))
        seconds = time.perf_counter() - started
        assert (result.status, result.written_minutes) == ("ok", expected)
        return seconds

    run(0, moving=True, expected=0)
    run(1, moving=True, expected=len(accounts))
    times: dict[str, list[float]] = {"floor": [], "active": [], "idle": [], "nothing": []}
    for round_number in range(rounds):
        minute = 2 + 2 * round_number
        times["floor"].append(_floor(url, accounts, START + minute * MINUTE))
        times["active"].append(run(minute, moving=True, expected=len(accounts)))
        times["idle"].append(run(minute + 1, moving=False, expected=0))
        times["nothing"].append(run(minute + 1, moving=False, expected=0))
    return times


def _floor(url: str, accounts: Sequence[str], minute: datetime) -> float:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        started = time.perf_counter()
        for statement in FLOOR:
            if statement.startswith("COPY"):
                with cursor.copy(statement) as copy:
                    copy.write("".join(f"{one}\t{uuid.uuid4()}\t1000\t2000\n" for one in accounts))
            else:
                cursor.execute(statement.encode(), {"minute": minute})
        connection.commit()
        return time.perf_counter() - started


def _add_users(url: str, accounts: Sequence[str]) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY users (uuid, proxy_uuid, username, password) FROM STDIN") as copy:
            copy.write("".join(f"{one}\t{one}\tu\tp\n" for one in accounts))
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")


def _context(url: str, port: int) -> JobContext:
    return JobContext(
        run_id="",
        clock=lambda: START,
        database=Database(url, statement_timeout_seconds=600),
        sources=(Source("bench", f"http://127.0.0.1:{port}", mode="window"),),
        tariff=Tariff(Decimal("0.000001"), 0, Decimal(10**5), "v1", "", None),
        deltas=DeltaPolicy(),
    )


def _serve(pipe: Pipe, accounts: Sequence[str]) -> None:
    """Answer each window with the snapshot before and the one of the minute that was named."""
    state = {"body": b"", "last": b"", "total": 0}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(state["body"])))
            self.end_headers()
            self.wfile.write(state["body"])

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.timeout = 0.02
    pipe.send(server.server_address[1])
    snapshots: list[str] = []
    while True:
        if pipe.poll():
            minute, moving = pipe.recv()
            state["total"] += 1000 if moving else 0
            stamp = format_rfc3339(START + minute * MINUTE)
            if not snapshots or stamp not in snapshots[-1][:60]:
                snapshots = [*snapshots[-1:], _snapshot(stamp, accounts, state["total"])]
            page = f'{{"snapshots": [{",".join(snapshots)}], "has_more": false}}'
            state["body"] = page.encode()
            pipe.send("ready")
        server.handle_request()


def _snapshot(stamp: str, accounts: Sequence[str], total: int) -> str:
    head = {"collected_at": stamp, "node_id": "bench", "env": "prod"}
    samples = ",".join(
        f'{{"uuid": "{one}", "inbound_tag": "x", "uplink_bytes_total": {total},'
        f' "downlink_bytes_total": {2 * total}}}'
        for one in accounts
    )
    return f'{json.dumps(head)[:-1]}, "samples": [{samples}]}}'


def _report(streams: int, times: dict[str, list[float]]) -> None:
    floor = statistics.median(times["floor"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{streams} streams, median of {len(times['floor'])} rounds, peak {peak:.0f} MB")
    print(f"{'what':10} {'seconds':>9} {'x floor':>9}")
    for what, values in times.items():
        seconds = statistics.median(values)
        print(f"{what:10} {seconds:9.2f} {seconds / floor:9.2f}")


if __name__ == "__main__":
    sys.exit(main())
