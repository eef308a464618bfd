from __future__ import annotations

import json
from datetime import timedelta

from billing_cli.core.model import NodeIdentity, StreamName, Totals
from billing_cli.simulator.oracle import Bytes, Oracle
from billing_cli.simulator.publication import (
    Naming,
    as_counted,
    both,
    in_turn,
    merged,
    retagged,
    with_uuids,
)
from billing_cli.simulator.traffic import Fleet, Snapshot
from billing_cli.simulator.wire import encode_snapshot

MINUTE = timedelta(minutes=1)
ALICE, PROXY = "a" * 8, "p" * 8


def test_namings_say_under_which_names_a_counter_is_published() -> None:
    """One name, a shared one, another tag or uuid, or several; and one naming after another."""
    name = StreamName("tcp", PROXY)
    to_account = with_uuids({PROXY: ALICE})
    published: list[tuple[Naming, list[StreamName]]] = [
        (as_counted, [name]),
        (merged, [StreamName("", PROXY)]),
        (retagged({"tcp": "stream"}), [StreamName("stream", PROXY)]),
        (retagged({"grpc": "stream"}), [name]),
        (to_account, [StreamName("tcp", ALICE)]),
        (both(as_counted, to_account), [name, StreamName("tcp", ALICE)]),
        (both(as_counted, as_counted), [name]),
        (in_turn(to_account, merged), [StreamName("", ALICE)]),
    ]
    for naming, names in published:
        assert list(naming(name)) == names


def test_counters_that_get_one_name_are_added_up() -> None:
    """The upgrade changes names and nothing else: the sums are those of the process."""
    fleet, before, after = upgraded(merged)
    alice, bob = (user.uuid for user in fleet.users)
    assert before == {
        StreamName("xhttp", alice): Totals(10, 100),
        StreamName("tcp", alice): Totals(20, 200),
        StreamName("xhttp", bob): Totals(30, 300),
    }
    assert after == {
        StreamName("", alice): Totals(30 + 2, 300 + 4),
        StreamName("", bob): Totals(30 + 1, 300 + 2),
    }


def test_the_truth_follows_the_process_through_an_upgrade() -> None:
    """Bytes belong to the published tag of the snapshot that carries them, and are counted once."""
    for naming, tags in ((merged, {""}), (both(as_counted, merged), {"xhttp", "tcp"})):
        fleet, *_ = upgraded(naming)
        oracle = Oracle(fleet)
        assert {bucket.line_code for bucket in oracle.bytes_by_bucket()} == tags
        assert sorted(oracle.bytes_by_account().values()) == [Bytes(1, 2), Bytes(2, 4)]


def test_a_renamed_node_keeps_its_earlier_snapshots_under_the_old_name() -> None:
    """The process goes on; its bytes are those of the new name from there on."""
    fleet, *_ = upgraded(as_counted)
    node = fleet.nodes["jp-1"]
    node.rename("tokyo-1")
    node.flow(node.streams[0], 5, 5)
    taken = node.snapshot(fleet.start + 2 * MINUTE)
    assert taken.identity == NodeIdentity("prod", "tokyo-1")
    assert node.snapshots[0].identity == NodeIdentity("prod", "jp-1.svc.plus")
    assert json.loads(encode_snapshot(node, taken))["node_id"] == "tokyo-1"
    assert Oracle(fleet).bytes_by_node() == {
        "prod:jp-1.svc.plus": Bytes(3, 6),
        "prod:tokyo-1": Bytes(5, 5),
    }


def upgraded(
    naming: Naming,
) -> tuple[Fleet, dict[StreamName, Totals], dict[StreamName, Totals]]:
    """Return a fleet whose exporter was upgraded between its two snapshots, and what they say."""
    fleet = Fleet()
    node = fleet.add_node("jp-1")
    alice, bob = fleet.add_user().uuid, fleet.add_user().uuid
    streams = [
        node.add_stream(alice, "xhttp"),
        node.add_stream(alice, "tcp"),
        node.add_stream(bob, "xhttp"),
    ]
    for count, stream in enumerate(streams, start=1):
        node.flow(stream, 10 * count, 100 * count)
    before = node.snapshot(fleet.start)
    node.naming = naming
    for stream in streams:
        node.flow(stream, 1, 2)
    after = node.snapshot(fleet.start + MINUTE)
    return fleet, published(before), published(after)


def published(snapshot: Snapshot) -> dict[StreamName, Totals]:
    """Return the totals by name, as the core gets them."""
    return dict(snapshot.decoded().totals)
