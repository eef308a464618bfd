from __future__ import annotations

import gc
import http.client
import json
import ssl
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from billing_cli.core.model import NodeIdentity
from billing_cli.simulator.server import Endpoint, RunningFleet, serve
from billing_cli.simulator.stamps import format_stamp
from billing_cli.simulator.traffic import Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

MINUTE = timedelta(minutes=1)


@pytest.fixture
def running() -> Iterator[RunningFleet]:
    """Return two nodes with ten snapshots each, served over HTTP."""
    with serve(small_fleet()) as running_fleet:
        yield running_fleet


def test_a_window_holds_what_lies_between_its_ends(running: RunningFleet) -> None:
    """Both ends are inclusive, snapshots come oldest first, in the node's own name."""
    node = running.fleet.nodes["jp-1"]
    first, last = node.snapshots[2].stamp_nanoseconds, node.snapshots[5].stamp_nanoseconds
    status, page = get(running, "jp-1", {"since": format_stamp(first), "until": format_stamp(last)})
    assert status == 200
    assert (page["node_id"], page["env"]) == ("jp-1.svc.plus", "prod")
    stamps = [one["collected_at"] for one in page["snapshots"]]
    assert stamps == [format_stamp(snapshot.stamp_nanoseconds) for snapshot in node.snapshots[2:6]]
    assert page["has_more"] is False
    assert page["next_cursor"] == stamps[-1]


def test_a_snapshot_says_what_the_counters_showed(running: RunningFleet) -> None:
    """The samples carry uuid, tag and cumulative totals of the streams in it."""
    node = running.fleet.nodes["jp-1"]
    _, latest = get(running, "jp-1", latest=True)
    assert latest["collected_at"] == format_stamp(node.snapshots[-1].stamp_nanoseconds)
    assert (latest["node_id"], latest["env"]) == ("jp-1.svc.plus", "prod")
    assert latest["samples"] == [
        {
            "uuid": stream.name.sample_uuid,
            "email": stream.email,
            "inbound_tag": "xhttp",
            "uplink_bytes_total": node.snapshots[-1].totals[2 * stream.index],
            "downlink_bytes_total": node.snapshots[-1].totals[2 * stream.index + 1],
        }
        for stream in node.streams
    ]


def test_an_empty_window_has_no_name(running: RunningFleet) -> None:
    """Without snapshots the page is anonymous, as real exporters answer."""
    status, page = get(
        running, "jp-1", {"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}
    )
    assert status == 200
    assert page == {
        "node_id": "",
        "env": "",
        "snapshots": [],
        "has_more": False,
        "next_cursor": "",
    }


@pytest.mark.parametrize("seam", ["after", "next"])
@pytest.mark.parametrize("limit", [1, 3, 5, 10, 11])
def test_pages_add_up_to_the_window(running: RunningFleet, seam: Any, limit: int) -> None:
    """Following the cursor to the end tells each snapshot once, whatever the page size."""
    running["jp-1"].seam = seam
    assert follow(running, limit) == expected(running)


@pytest.mark.parametrize(
    "query",
    [{"since": ""}, {"until": "noon"}, {"limit": "0"}, {"limit": "many"}, {"cursor": "page-2"}],
)
def test_a_query_that_makes_no_sense_is_refused(
    running: RunningFleet, query: dict[str, str]
) -> None:
    """Real exporters answer 400 to these; a client that sends them must learn it here."""
    status, body = get(running, "jp-1", query)
    assert status == 400
    assert next(iter(query)) in body["error"]


def test_exporters_without_content_answer_404(running: RunningFleet) -> None:
    """No windowed API, no snapshot yet, no such node: 404 each."""
    running["us-1"].windowed = False
    running.fleet.nodes["jp-1"].forget_before(running.fleet.start + 60 * MINUTE)
    assert get(running, "us-1")[0] == 404
    assert get(running, "us-1", latest=True)[0] == 200
    assert get(running, "jp-1", latest=True)[0] == 404
    assert get(running, "jp-1")[1]["snapshots"] == []
    assert get(running, "jp-1", path="/v1/metrics")[0] == 404
    with pytest.raises(KeyError):
        running["nowhere"]
    connection = http.client.HTTPConnection(urlsplit(running.base_url("jp-1")).netloc)
    connection.request("GET", "/nowhere/v1/snapshots/latest")
    assert connection.getresponse().status == 404
    connection.close()


def test_the_present_hides_the_future(running: RunningFleet) -> None:
    """With a present set, an exporter offers what it has published, and is gone in an outage."""
    fleet = running.fleet
    fleet.present = fleet.start + 3.5 * MINUTE
    assert len(get(running, "jp-1")[1]["snapshots"]) == 4
    fleet.nodes["jp-1"].hide(fleet.start + 3 * MINUTE, fleet.start + 4 * MINUTE)
    with pytest.raises(http.client.RemoteDisconnected):
        get(running, "jp-1")
    assert get(running, "us-1")[0] == 200


def test_a_token_is_demanded_where_there_is_one(running: RunningFleet) -> None:
    """The exporter answers its own token only, and the source entry says where to find it."""
    running["jp-1"].token = "sesame"
    assert get(running, "jp-1")[0] == 401
    assert get(running, "jp-1", token="open")[0] == 401
    assert get(running, "jp-1", token="sesame")[0] == 200
    entry, other = running.sources()
    assert (entry["auth_mode"], entry["credential_ref"]) == ("bearer", "env:SIMULATOR_TOKEN_JP_1")
    assert running.credentials() == {"SIMULATOR_TOKEN_JP_1": "sesame"}
    assert "credential_ref" not in other
    assert "sesame" not in json.dumps(running.sources())


def test_faults_hit_one_node_and_no_other(running: RunningFleet) -> None:
    """Each switch breaks its own exporter; the neighbour goes on answering."""
    fault = running["jp-1"]
    fault.status = 503
    assert get(running, "jp-1")[0] == 503
    fault.status = None
    fault.down = True
    with pytest.raises(http.client.RemoteDisconnected):
        get(running, "jp-1")
    fault.down = False
    fault.refused = True
    with pytest.raises(ConnectionRefusedError):
        get(running, "jp-1")
    fault.refused = False
    fault.identity = NodeIdentity("prod", "impostor")
    _, page = get(running, "jp-1")
    assert {page["node_id"], *(one["node_id"] for one in page["snapshots"])} == {"impostor"}
    fault.identity = None
    fault.rewrite = lambda body: body.replace(b"snapshots", b"items")
    assert len(get(running, "jp-1")[1]["items"]) == 10
    fault.rewrite, fault.body = None, b'{"gar": "bage"}'
    assert get(running, "jp-1")[1] == {"gar": "bage"}
    fault.body, fault.answer = None, teapot
    assert get(running, "jp-1")[0] == 418
    fault.answer, fault.latency_seconds = None, 0.001
    assert get(running, "jp-1")[0] == 200
    assert get(running, "us-1")[1]["node_id"] == "us-1.svc.plus"
    assert len(fault.requests) == 7


def test_it_speaks_tls_with_the_context_it_is_given(tmp_path: Path) -> None:
    """A client that trusts the authority is served; one that does not harms nobody else."""
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with serve(small_fleet(), ssl_context=context, ca_bundle=str(bundle)) as running_fleet:
        url = urlsplit(running_fleet.base_url("jp-1"))
        assert url.scheme == "https"
        assert running_fleet.sources()[0]["ca_bundle"] == str(bundle)
        for trust, works in ((None, False), (str(bundle), True)):
            client_context = ssl.create_default_context(cafile=trust)
            connection = http.client.HTTPSConnection(url.netloc, context=client_context)
            if works:
                connection.request("GET", "/jp-1/v1/snapshots/latest")
                assert connection.getresponse().status == 200
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    connection.request("GET", "/jp-1/v1/snapshots/latest")
            connection.close()


def test_it_ends_while_clients_hold_their_connections() -> None:
    """Neither an idle keep-alive connection nor a slow answer keeps the block from ending."""
    before = fleets()
    with serve(small_fleet(), endpoints={"us-1": Endpoint(latency_seconds=3600)}) as running_fleet:
        netloc = urlsplit(running_fleet.base_url("jp-1")).netloc
        idle = http.client.HTTPConnection(netloc)
        idle.request("GET", "/jp-1/v1/snapshots/latest")
        idle.getresponse().read()
        waiting = http.client.HTTPConnection(netloc)
        waiting.request("GET", "/us-1/v1/snapshots/latest")
    idle.close()
    waiting.close()
    gc.collect()
    assert fleets() <= before


def fleets() -> set[threading.Thread]:
    """Return the threads that serve a fleet; tests of this process may share one."""
    return {thread for thread in threading.enumerate() if thread.name == "simulated-fleet"}


def get(
    running: RunningFleet,
    source_id: str,
    query: dict[str, str] | None = None,
    *,
    latest: bool = False,
    path: str = "",
    token: str = "",
) -> tuple[int, Any]:
    """Ask for a window over all of the fleet's time, or the latest; return status and JSON."""
    start = running.fleet.start
    window = {"since": stamp(start), "until": stamp(start + 60 * MINUTE)}
    url = urlsplit(running.base_url(source_id))
    if not path:
        asked = urlencode(window | (query or {}))
        path = "/v1/snapshots/latest" if latest else f"/v1/snapshots/window?{asked}"
    connection = http.client.HTTPConnection(url.netloc)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", url.path + path, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def follow(running: RunningFleet, limit: int) -> list[str]:
    """Return the stamps of all pages of jp-1, as a client collects them."""
    stamps: list[str] = []
    cursor: dict[str, str] = {}
    for _ in range(20):
        _, page = get(running, "jp-1", {"limit": str(limit)} | cursor)
        stamps += [one["collected_at"] for one in page["snapshots"]]
        if not page["has_more"]:
            return stamps
        cursor = {"cursor": page["next_cursor"]}
    raise AssertionError("the pages never end")


def expected(running: RunningFleet) -> list[str]:
    """Return the stamps of all snapshots of jp-1."""
    return [
        format_stamp(snapshot.stamp_nanoseconds)
        for snapshot in running.fleet.nodes["jp-1"].snapshots
    ]


def teapot(handler: BaseHTTPRequestHandler) -> None:
    """Answer something that no exporter would."""
    handler.send_response(418)
    handler.send_header("Content-Length", "2")
    handler.end_headers()
    handler.wfile.write(b"{}")


def small_fleet() -> Fleet:
    """Return two nodes with three users each, ten minutes of traffic, ten snapshots."""
    fleet = Fleet()
    users = [fleet.add_user() for _ in range(3)]
    for source_id in ("jp-1", "us-1"):
        node = fleet.add_node(source_id)
        for user in users:
            node.add_stream(user.uuid, "xhttp")
    fleet.run(fleet.start + 10 * MINUTE)
    return fleet


def stamp(moment: datetime) -> str:
    """Return the moment as RFC 3339."""
    return moment.isoformat()
