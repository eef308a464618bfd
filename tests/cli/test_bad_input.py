"""Bad input: the source fails alone, with one line that says why, and nothing of it is stored.

One run meets a whole fleet of bad exporters and a good one among them; each test looks at one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.core.model import NodeIdentity
from tests.cli.command import MINUTES, Site
from tests.cli.conftest import history_start
from tests.integration.jobs.world import serving_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler

    from billing_cli.simulator.server import Endpoint
    from tests.cli.command import Finished
    from tests.integration.jobs.world import World
    from tests.support.postgres import Databases

GOOD = "good"
MEGABYTE = 1024 * 1024

READ_STORED = """
SELECT (SELECT count(*) FROM billing.usage_records JOIN billing.streams USING (stream_id)
         WHERE stored_node_id = %(node)s),
       (SELECT count(*) FROM public.traffic_minute_buckets WHERE node_id = %(node)s),
       (SELECT count(*) FROM billing.charges WHERE stored_node_id = %(node)s),
       (SELECT max(xmin::text) FROM billing.streams WHERE stored_node_id = %(node)s)
"""
READ_SYNC_STATE = """
SELECT last_completed_until, last_error FROM public.billing_source_sync_state
 WHERE source_id = %(source)s
"""

Fault = Callable[["Endpoint"], None]


def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Fault:
    """Return the fault of an exporter that takes the answer into its own hands."""

    def set_up(endpoint: Endpoint) -> None:
        endpoint.answer = answer

    return set_up


def rewriting(change: Callable[[dict[str, Any]], None]) -> Fault:
    """Return the fault of an exporter whose pages are changed."""

    def rewrite(body: bytes) -> bytes:
        page = json.loads(body)
        change(page)
        return json.dumps(page).encode()

    def set_up(endpoint: Endpoint) -> None:
        endpoint.rewrite = rewrite

    return set_up


def sampling(**members: Any) -> Fault:
    """Return the fault of an exporter in whose last snapshot the first sample is different."""
    return rewriting(lambda page: page["snapshots"][-1]["samples"][0].update(members))


def stamping(stamp: Callable[[], str]) -> Fault:
    """Return the fault of an exporter whose last snapshot has another stamp."""
    return rewriting(lambda page: page["snapshots"][-1].update(collected_at=stamp()))


def with_status(status: int) -> Fault:
    """Return the fault of an exporter that answers with a status."""

    def set_up(endpoint: Endpoint) -> None:
        endpoint.status = status

    return set_up


def speaking_as(env: str, node_id: str) -> Fault:
    """Return the fault of an exporter that is another node's."""

    def set_up(endpoint: Endpoint) -> None:
        endpoint.identity = NodeIdentity(env, node_id)

    return set_up


def with_body(change: Callable[[bytes], bytes]) -> Fault:
    """Return the fault of an exporter whose bytes are changed."""

    def set_up(endpoint: Endpoint) -> None:
        endpoint.rewrite = change

    return set_up


def redirect(handler: BaseHTTPRequestHandler) -> None:
    """Send the client elsewhere."""
    handler.send_response(302)
    handler.send_header("Location", f"/{GOOD}{handler.path}")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def cut_short(handler: BaseHTTPRequestHandler) -> None:
    """Promise more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"node_id":"x"')
    handler.close_connection = True


def repeat_a_stream(page: dict[str, Any]) -> None:
    """Tell the same stream twice."""
    samples = page["snapshots"][-1]["samples"]
    samples.append(samples[0])


def an_hour_ahead() -> str:
    """Return a stamp of the future."""
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


FAULTS: dict[str, tuple[Fault, str]] = {
    "not-200": (with_status(500), "HTTP 500"),
    "not-quite-200": (with_status(204), "HTTP 204"),
    "not-found": (with_status(404), "HTTP 404: the exporter had snapshots before"),
    "web-page": (with_body(lambda _: b"<html>"), "set EXPORTER_NODE_ID, ACCOUNTS_BASE_URL"),
    "redirect": (answering(redirect), "HTTP 302: redirects are not followed"),
    "not-json": (with_body(lambda _: b"<html>"), "not JSON"),
    "truncated": (answering(cut_short), "cut short"),
    "truncated-json": (with_body(lambda body: body[:-9]), "not JSON"),
    "over-long": (with_body(lambda body: body + b" " * 116 * MEGABYTE), "longer than"),
    "wrong-node": (speaking_as("prod", "jp-9"), "is of node_id 'jp-9', expected"),
    "wrong-env": (speaking_as("stage", "wrong-env.svc.plus"), "is of env 'stage', expected 'prod'"),
    "negative": (sampling(uplink_bytes_total=-1), "uplink_bytes_total: expected int >= 0"),
    "too-large": (sampling(downlink_bytes_total=2**63), "expected int <= 9223372036854775807"),
    "fraction": (sampling(uplink_bytes_total=1.5), "expected int, got float"),
    "float": (sampling(uplink_bytes_total=1.0), "expected int, got float"),
    "text-number": (sampling(uplink_bytes_total="1"), "expected int, got str"),
    "boolean": (sampling(uplink_bytes_total=True), "expected int, got bool"),
    "no-zone": (stamping(lambda: "2026-04-08T12:00:00"), "is not an RFC 3339 time with a zone"),
    "future": (stamping(an_hour_ahead), "lies more than 5 minutes ahead"),
    "nul": (sampling(inbound_tag="a\0b"), "a NUL"),
    "stream-twice": (rewriting(repeat_a_stream), "appears twice"),
    "no-cursor": (
        rewriting(lambda page: page.update(has_more=True, next_cursor="")),
        "has_more without a next_cursor",
    ),
    "cursor-loop": (
        rewriting(lambda page: page.update(has_more=True, next_cursor="2099-01-01T00:00:00Z")),
        "the exporter repeats a cursor",
    ),
    "backwards": (
        rewriting(lambda page: page["snapshots"].reverse()),
        "snapshots out of order",
    ),
}


@dataclass(frozen=True)
class Met:
    """What one run made of all the bad exporters, and what the database held before it."""

    world: World
    finished: Finished
    stored: dict[str, tuple[Any, ...]]
    watermarks: dict[str, datetime]


@pytest.fixture(scope="module")
def met(databases: Databases) -> Iterator[Met]:
    """Collect once from good exporters, and once more when all but one of them have gone bad."""
    with (
        databases.database(migrated=True) as url,
        serving_world(url, databases.job_url(url), history_start()) as world,
    ):
        users = world.add_users(2)
        for source_id in (*FAULTS, GOOD):
            world.add_node(source_id, users)
        world.flow_until(MINUTES)
        # The longest answer takes its time, and no other source is to pay for it.
        world.overrides["over-long"] = {"timeout_seconds": 45}
        site = Site(world, {"BILLING_RUN_DEADLINE_SECONDS": "50"}, present=world.at(4))
        assert site.billing("collect").code == 0
        world.check()
        stored = {source_id: stored_of(world, source_id) for source_id in FAULTS}
        before = dict(world.watermarks)
        for source_id, (fault, _) in FAULTS.items():
            fault(world.running[source_id])
        site.present = None
        finished = site.billing("collect", "--json")
        yield Met(world, finished, stored, before)


@pytest.mark.parametrize("source_id", FAULTS)
def test_a_bad_answer_fails_its_source(met: Met, source_id: str) -> None:
    """With one line that says why, which is also what the shared tables show."""
    result = met.finished.source(source_id)
    assert result["status"] == "error"
    assert FAULTS[source_id][1] in result["error"]
    assert "\n" not in result["error"]
    row = met.world.connection.execute(READ_SYNC_STATE, {"source": source_id}).fetchone()
    assert row == (met.watermarks[source_id], result["error"])


@pytest.mark.parametrize("source_id", FAULTS)
def test_nothing_of_a_bad_answer_is_stored(met: Met, source_id: str) -> None:
    """Not even what came before the bad part; the watermark stays."""
    assert stored_of(met.world, source_id) == met.stored[source_id]
    (watermark,) = met.world.rows(
        "SELECT watermark FROM billing.sources WHERE source_id = %s", source_id
    )
    assert watermark == (met.watermarks[source_id],)


def test_the_good_source_is_stored_beside_all_the_bad_ones(met: Met) -> None:
    """Whole, and the run is partial."""
    assert met.finished.code == 3
    assert met.finished.result["status"] == "partial"
    good = met.finished.source(GOOD)
    assert (good["status"], good["error"]) == ("ok", None)
    last = met.world.fleet.nodes[GOOD].snapshots[-1].collected_at
    assert met.world.rows("SELECT max(watermark) FROM billing.sources") == [(last,)]
    met.world.check()
    assert "Traceback" not in met.finished.stderr


def test_a_sample_whose_uuid_is_none_is_rejected_alone(site: Site) -> None:
    """Counted and shown; the rest is stored, and the run is partial."""
    node = site.world.add_node("jp-1", site.world.add_users(2))
    bad = node.add_stream("nobody", "xhttp")
    site.world.flow_until(MINUTES)
    finished = site.billing("collect", "--json")
    assert (finished.code, finished.result["status"]) == (3, "partial")
    assert finished.source("jp-1")["rejected_samples"] == MINUTES + 1
    assert "'nobody' is not a UUID" in finished.stderr
    site.world.assert_all_is_billed(apart_from=bad.uplink_total + bad.downlink_total)


def stored_of(world: World, source_id: str) -> tuple[Any, ...]:
    """Return how many facts a source's node has, and which version of its streams is the last."""
    node = world.fleet.nodes[source_id].identity.stored
    (row,) = world.connection.execute(READ_STORED, {"node": node}).fetchall()
    return tuple(row)
