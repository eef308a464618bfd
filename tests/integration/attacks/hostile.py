"""An exporter that says whatever an attacker wants, and the jobs that read from it."""

from __future__ import annotations

import json
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import psycopg

from billing_cli.config.source import Source
from billing_cli.core.model import DeltaPolicy
from billing_cli.core.times import format_rfc3339
from billing_cli.database.connecting import Database
from billing_cli.features.audit.job import audit
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.context import FetchPolicy, JobContext, Tariff
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.traffic import DEFAULT_START, User

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from billing_cli.core.result import RunResult, SourceResult

START = DEFAULT_START
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BITS = 8
# Per byte: 1 for a GB.
PRICE = Decimal("1e-9")

READ_CHARGED = """
SELECT coalesce(sum(included_bytes + rated_bytes), 0)::bigint, coalesce(-sum(amount_delta), 0)
  FROM billing.charges
"""

Sample = tuple[str, str, int]
"""A uuid, an inbound tag, and the downlink bytes so far."""


def maximum_bytes(elapsed: timedelta, policy: DeltaPolicy | None = None) -> int:
    """Return what one node can charge at most, all its users together.

    Its line rate for the burst period once, plus its line rate for the time that passes.
    """
    limits = policy or DeltaPolicy()
    seconds = limits.burst_hours * 3600 + elapsed.total_seconds()
    return int(limits.line_rate_bits_per_second * seconds) // BITS


@dataclass
class Node:
    """What one hostile exporter publishes: samples by stamp, under any node id."""

    source_id: str
    url: str
    node_id: str
    snapshots: dict[datetime, Sequence[Sample]] = field(default_factory=dict)
    expected_node_id: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        """Answer a request for a window; the cursor is the first stamp of the next page."""
        begin = datetime.fromisoformat(query.get("cursor") or query["since"])
        until = datetime.fromisoformat(query["until"])
        stamps = [at for at in sorted(self.snapshots) if begin <= at <= until]
        shown, rest = stamps[: (limit := int(query["limit"]))], stamps[limit:]
        return {
            **self.identity(is_empty=not shown),
            "snapshots": [self.snapshot(at) for at in shown],
            "has_more": bool(rest),
            "next_cursor": rest[0].isoformat() if rest else "",
        }

    def identity(self, *, is_empty: bool = False) -> dict[str, str]:
        """Return the node and environment of an answer."""
        return {"node_id": "" if is_empty else self.node_id, "env": "" if is_empty else "prod"}

    def snapshot(self, at: datetime) -> dict[str, Any]:
        """Return a snapshot as JSON."""
        return {
            **self.identity(),
            "collected_at": at.isoformat(),
            "samples": [
                {
                    "uuid": sample_uuid,
                    "inbound_tag": tag,
                    "uplink_bytes_total": 0,
                    "downlink_bytes_total": total,
                }
                for sample_uuid, tag, total in self.snapshots[at]
            ],
        }


class Attack:
    """Hostile nodes, an honest database, and the jobs between them, under the default limits."""

    def __init__(
        self, database_url: str, job_url: str, base_url: str, nodes: dict[str, Node]
    ) -> None:
        self.job_url = job_url
        self.base_url = base_url
        self.nodes = nodes
        self.policy = DeltaPolicy()
        self.fetching = FetchPolicy(page_limit=1000)
        self.tariff: dict[str, Any] = {}
        self.connection = psycopg.connect(database_url, autocommit=True)

    def node(self, source_id: str = "jp-1", node_id: str | None = None) -> Node:
        """Return a new node."""
        name = node_id or f"{source_id}.svc.plus"
        self.nodes[source_id] = Node(source_id, f"{self.base_url}/{source_id}", name)
        return self.nodes[source_id]

    def users(self, count: int = 1) -> list[str]:
        """Return the uuids of new accounts."""
        users = [
            User(str(uuid.uuid4()), str(uuid.uuid4()), f"{index}@example.com")
            for index in range(count)
        ]
        save_users(self.connection, users)
        return [user.uuid for user in users]

    def context(self, now: datetime) -> JobContext:
        """Return what a job gets at that time."""
        return JobContext(
            run_id=str(uuid.uuid4()),
            clock=lambda: now,
            database=Database(self.job_url),
            sources=tuple(
                Source(
                    node.source_id, node.url, expected_node_id=node.expected_node_id, **node.limits
                )
                for node in self.nodes.values()
            ),
            tariff=Tariff(PRICE, 0, Decimal(0), "v1", "", None, **self.tariff),
            deltas=self.policy,
            fetching=self.fetching,
            job="collect",
        )

    def run(self, now: datetime, job: Any = catch_up, **options: Any) -> RunResult:
        """Run a job a little after `now`; the audit must find nothing wrong afterwards."""
        result: RunResult = job(self.context(now + 2 * MINUTE), **options)
        report = audit(self.context(now + 2 * MINUTE))
        assert report.violations == 0, report.findings
        return result

    def charged(self) -> tuple[int, Decimal]:
        """Return the bytes and the money that were charged so far."""
        size_bytes, amount = self.connection.execute(READ_CHARGED).fetchone() or (0, Decimal(0))
        return size_bytes, amount

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        row = self.connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608
        return row[0] if row else 0

    def held_bytes(self) -> int:
        """Return the bytes that wait for a decision."""
        row = self.connection.execute(
            "SELECT coalesce(sum(downlink_end - downlink_start), 0)::numeric"
            "  FROM billing.held_deltas WHERE state = 'held'"
        ).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def attacking(database_url: str, job_url: str) -> Iterator[Attack]:
    """Serve hostile nodes as long as the block lasts."""
    nodes: dict[str, Node] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            node, query = nodes[parts.path.split("/")[1]], dict(parse_qsl(parts.query))
            is_window = parts.path.endswith("window")
            answer = node.page(query) if is_window else node.snapshot(max(node.snapshots))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    attack = Attack(database_url, job_url, f"http://127.0.0.1:{server.server_port}", nodes)
    try:
        yield attack
    finally:
        attack.connection.close()
        server.shutdown()
        server.server_close()
        thread.join()


def only(result: RunResult) -> SourceResult:
    """Return the one source of a run."""
    (source,) = result.sources
    return source


def shown(moment: datetime) -> str:
    """Return a stamp as the program writes it."""
    return format_rfc3339(moment)
