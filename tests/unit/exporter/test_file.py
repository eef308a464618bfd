"""Snapshots from a file: the same results as over HTTP."""

from __future__ import annotations

import codecs
import gzip
import io
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from billing_cli.config.source import Source
from billing_cli.core.model import NodeIdentity
from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.exporter.claims import claimed_nodes
from billing_cli.exporter.file import SnapshotFile, fetched_from_file, read_file
from billing_cli.exporter.limits import Limits
from tests.unit.exporter.answers import (
    NOW,
    START,
    encoded,
    fetched,
    minutes,
    page,
    request,
    sample,
    snapshot,
)
from tests.unit.exporter.servers import answering, serving

if TYPE_CHECKING:
    from pathlib import Path

JP_1, US_2 = NodeIdentity("prod", "jp-1"), NodeIdentity("prod", "us-2")
MINUTE = timedelta(minutes=1)


def lines(snapshots: list[Any]) -> bytes:
    """Return one snapshot a line, as log shippers write them."""
    return b"".join(encoded(one) + b"\n" for one in snapshots)


@pytest.mark.parametrize(("max_samples", "size"), [(1, 1), (7, 3), (50, 10), (100, 10)])
def test_a_step_from_a_file_ends_at_the_same_minute(
    tmp_path: Path, max_samples: int, size: int
) -> None:
    """Bounds of the window and of the step are those of HTTP."""
    shots = minutes(20, start=START - 3 * MINUTE, size=size)
    bounds: dict[str, Any] = {"until": START + 12 * MINUTE, "max_samples": max_samples}
    window = [shot for shot in shots if START.isoformat() <= shot["collected_at"]]
    pages = [
        encoded(page([one], has_more=number < len(window) - 1, next_cursor=str(number)))
        for number, one in enumerate(window)
    ]
    with serving(answering(*pages)) as server:
        over_http = fetched(server.url, **bounds)
    step = from_file(tmp_path, lines(shots), **bounds)
    assert (step.snapshots, step.complete) == (over_http.snapshots, over_http.complete)


def test_stdin_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is `-`."""
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(lines(minutes(3))))))
    monkeypatch.setattr(sys, "stdin", stdin)
    with read_file("-", now=NOW) as file:
        assert len(file.fetch(request("http://127.0.0.1"), [JP_1]).snapshots) == 3


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    """Editors and shells of some systems put one before UTF-8."""
    assert len(from_file(tmp_path, codecs.BOM_UTF8 + lines(minutes(3))).snapshots) == 3


def test_of_two_snapshots_of_one_stamp_the_later_one_counts(tmp_path: Path) -> None:
    """Exporters replace the earlier one, too."""
    content = lines([*minutes(3), snapshot(START + MINUTE, [sample(up=77)])])
    step = from_file(tmp_path, content)
    assert len(step.snapshots) == 3
    assert [totals.uplink for totals in step.snapshots[1].totals.values()] == [77]


def test_each_node_of_a_file_goes_to_its_source(tmp_path: Path) -> None:
    """By the node that the source expects, or by the one that it carried so far."""
    shots = [minute | {"node_id": node} for minute in minutes(4) for node in ("us-2", "jp-1")]
    outcomes = fetched_by(
        tmp_path,
        lines(shots),
        {"source_id": "tokyo", "expected_node_id": "jp-1"},
        {"source_id": "oregon"},
        {"source_id": "idle", "expected_node_id": "de-9"},
        carried={"oregon": US_2, "tokyo": NodeIdentity("prod", "former")},
    )
    found = {name: one.identity for name, one in outcomes.items() if isinstance(one, Fetched)}
    assert found == {"tokyo": JP_1, "oregon": US_2, "idle": None}
    idle = outcomes["idle"]
    assert isinstance(idle, Fetched)
    assert (idle.snapshots, idle.complete) == ((), True)
    assert idle.notes == ("the file has no snapshot of this source",)


def test_a_source_that_claims_two_nodes_fails_alone(tmp_path: Path) -> None:
    """The same node id in two environments: the source has to say which."""
    shots = [*minutes(2), *(minute | {"env": "test"} for minute in minutes(2))]
    outcomes = fetched_by(
        tmp_path,
        lines([*shots, *(minute | {"node_id": "us-2"} for minute in minutes(2))]),
        {"source_id": "tokyo", "expected_node_id": "jp-1"},
        {"source_id": "oregon", "expected_node_id": "us-2", "expected_env": "prod"},
        carried={},
    )
    assert isinstance(outcomes["oregon"], Fetched)
    error = outcomes["tokyo"]
    assert isinstance(error, ExporterError)
    assert "'prod:jp-1', 'test:jp-1'" in error.reason


@pytest.mark.parametrize(
    ("why", "bad"),
    [
        ("value 3: samples[0].uplink_bytes_total: expected int >= 0", {"samples": [sample(up=-1)]}),
        ("value 3: collected_at", {"collected_at": "2026-04-08T13:00:00Z"}),
        ("value 3: the stream", {"samples": [sample(), sample()]}),
        ("value 3: a string holds a NUL", {"samples": [sample(email="a\0")]}),
        ("value 3: object missing required field samples", {"samples": ...}),
        ("value 3.collected_at: expected str, got int", {"collected_at": 5}),
        ("value 3.snapshots[0]: ", {"node_id": None, "snapshots": [{"node_id": "us-2"}]}),
    ],
)
def test_a_node_with_a_bad_snapshot_fails_alone(
    tmp_path: Path, why: str, bad: dict[str, Any]
) -> None:
    """As over HTTP, the other nodes go on."""
    changed = snapshot(START + MINUTE, node_id="us-2") | bad
    shot = {key: value for key, value in changed.items() if value is not ...}
    shots = [*minutes(2), shot, *minutes(3)[2:]]
    outcomes = fetched_by(
        tmp_path,
        lines(shots),
        {"source_id": "tokyo", "expected_node_id": "jp-1"},
        {"source_id": "oregon", "expected_node_id": "us-2"},
        carried={},
    )
    assert isinstance(outcomes["tokyo"], Fetched)
    error = outcomes["oregon"]
    assert isinstance(error, ExporterError)
    assert why in error.reason


@pytest.mark.parametrize(
    ("named", "failed"),
    [
        ({"node_id": "jp-1"}, {"us-2"}),
        ({"env": "test"}, {"jp-1", "us-2"}),
        ({"env": "prod"}, set()),
    ],
)
@pytest.mark.parametrize("is_broken", [False, True])
def test_snapshots_of_another_node_than_their_page_fail_their_node(
    tmp_path: Path, named: dict[str, str], failed: set[str], *, is_broken: bool
) -> None:
    """Also where one of its snapshots can't be read."""
    shots = [*minutes(2), snapshot(START, node_id="us-2")]
    if is_broken:
        shots.append(snapshot(START, node_id="br-3") | {"collected_at": 5})
    outcomes = fetched_by(
        tmp_path,
        lines([{**named, "snapshots": shots}]),
        {"source_id": "jp-1", "expected_node_id": "jp-1"},
        {"source_id": "us-2", "expected_node_id": "us-2"},
        {"source_id": "br-3", "expected_node_id": "br-3"},
        carried={},
    )
    errors = {name: one for name, one in outcomes.items() if isinstance(one, ExporterError)}
    assert errors.keys() - {"br-3"} == failed
    assert ("br-3" in errors) == is_broken
    assert all("the page is of node" in errors[name].reason for name in failed)


@pytest.mark.parametrize("key", ["snapshots", "items"])
@pytest.mark.parametrize(
    ("bad", "why", "failed"),
    [
        ({"collected_at": 5}, "[2].collected_at: expected str, got int", {"us-2"}),
        ({"samples": [sample(email="a\0")]}, "[2]: a string holds a NUL", {"us-2"}),
        ({"node_id": None, "collected_at": 5}, "[2].collected_at", {"jp-1"}),
    ],
)
def test_a_bad_snapshot_of_a_page_with_several_nodes_fails_its_node_alone(
    tmp_path: Path, key: str, bad: dict[str, Any], why: str, failed: set[str]
) -> None:
    """One that names no node fails all nodes that its page names."""
    shots = [*minutes(2), snapshot(START, node_id="us-2") | bad, *minutes(3)[2:]]
    other = snapshot(START, node_id="us-2")
    outcomes = fetched_by(
        tmp_path,
        lines([other, {"node_id": "", key: shots}]),
        {"source_id": "jp-1", "expected_node_id": "jp-1"},
        {"source_id": "us-2", "expected_node_id": "us-2"},
        carried={},
    )
    errors = {name: one for name, one in outcomes.items() if isinstance(one, ExporterError)}
    assert errors.keys() == failed
    assert all(f"value 2.{key}{why}" in error.reason for error in errors.values())
    answer = outcomes["jp-1"]
    assert isinstance(answer, ExporterError) or len(answer.snapshots) == 3


@pytest.mark.parametrize(
    ("why", "content"),
    [
        ("value 2 is not JSON", b'{"samples":[],"collected_at":"x","node_id":"n"}\n{"a":tru}'),
        ("value 1 has no node_id", b'{"samples":[],"collected_at":"2026-04-08T12:00:00Z"}'),
        ("value 1: object missing required field", b'{"error": "not found"}'),
        ("value 1: a string holds a NUL", lines([snapshot(node_id="a\0")])),
        ("value 1.node_id: expected str | null, got int", lines([snapshot(node_id=5)])),
        ("ends within value 2", lines(minutes(2))[:-30]),
        ("line 2: invalid JSON", lines(minutes(1)) + b"{garbage\n" + lines(minutes(1))),
        ("the content is no JSON object", b"<html>"),
        ("is empty: it holds no snapshot", b""),
        ("is empty: it holds no snapshot", b" \n"),
        ("is empty: it holds no snapshot", gzip.compress(b"", mtime=0)),
        ("gzip data is broken or cut short", gzip.compress(lines(minutes(9)))[:-20]),
        ("gzip data is broken or cut short", b"\x1f\x8b" + b"noise" * 9),
        ("longer than 5000 bytes", lines(minutes(100))),
        ("longer than 5000 bytes", gzip.compress(lines(minutes(100)))),
        ("more than 20 snapshots", lines([snapshot(samples=[])] * 21)),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_place(
    tmp_path: Path, why: str, content: bytes
) -> None:
    """Nothing of it is used."""
    (tmp_path / "file").write_bytes(content)
    limits = Limits(file_bytes=5000, file_snapshots=20)
    with pytest.raises(ExporterError) as caught:
        read_file(str(tmp_path / "file"), now=NOW, limits=limits)
    assert caught.value.code == "file"
    assert caught.value.reason.startswith(f"{tmp_path}/file: ")
    assert why in caught.value.reason


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    """A file may take a while."""
    content = lines(minutes(3))
    (tmp_path / "file").write_bytes(content)
    read: list[int] = []
    read_file(str(tmp_path / "file"), now=NOW, on_progress=read.append).close()
    assert read == [len(content)]


def from_file(tmp_path: Path, content: bytes, **more: Any) -> Fetched:
    """Return what the one node of a file has for a step; `more` as in `request`."""
    with opened(tmp_path, content) as file:
        return file.fetch(request("http://127.0.0.1", **more), sorted(file.nodes))


def fetched_by(
    tmp_path: Path, content: bytes, *sources: dict[str, Any], carried: dict[str, NodeIdentity]
) -> dict[str, Fetched | ExporterError]:
    """Return what each of the sources has in a file."""
    known = [
        Source(**{"source_id": "a", "base_url": "http://127.0.0.1"} | source) for source in sources
    ]
    requests = [request("http://127.0.0.1", **source) for source in sources]
    with opened(tmp_path, content) as file:
        selected = [source.source_id for source in known]
        claims = claimed_nodes(file.nodes, known, carried, selected)
        return fetched_from_file(file, requests, claims.nodes)


def opened(tmp_path: Path, content: bytes) -> SnapshotFile:
    """Return a file of this content, read."""
    (tmp_path / "file").write_bytes(content)
    return read_file(str(tmp_path / "file"), now=NOW)
