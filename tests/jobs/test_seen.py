"""The snapshot at the watermark comes again in every window; it is decoded only if it changed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from billing_cli.exporter import decode as decode_module
from billing_cli.exporter.fleet import fetch_all
from billing_cli.exporter.samples import streams_of
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.invariants import violations
from billing_cli.simulator.wire import encode_snapshot
from tests.jobs.world import only_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from billing_cli.simulator.traffic import Node, Snapshot
    from tests.jobs.world import Job, World

JOBS = pytest.mark.parametrize("job", [collect, catch_up], ids=lambda job: job.__name__)

USERS = 3


@pytest.fixture
def decoded() -> Iterator[list[int]]:
    """Count the samples of each snapshot that is decoded, from the start of the test."""
    counts: list[int] = []

    def counted(samples: list[Any], *more: Any) -> Any:
        totals, rejected = streams_of(samples, *more)
        counts.append(len(totals) + len(rejected))
        return totals, rejected

    with patch.object(decode_module, "streams_of", counted):
        yield counts


@pytest.fixture
def node(world: World) -> Node:
    """Let a few users use a node for some minutes."""
    made = world.add_node("jp-1", world.add_users(USERS))
    world.flow_until(20)
    return made


@JOBS
def test_a_run_decodes_what_is_new_alone(
    world: World, node: Node, decoded: list[int], job: Job
) -> None:
    """One snapshot a minute, although each window holds two."""
    world.run(world.at(4), job)
    for minute in range(5, 9):
        decoded.clear()
        result = world.run(world.at(minute), job)
        assert decoded == [USERS]
        assert (only_source(result).snapshots, result.status) == (1, "ok")
    assert len(node.snapshots) > 8
    world.run(world.at(23), job)
    world.assert_all_is_billed()


def test_a_run_with_nothing_new_decodes_nothing(
    world: World, node: Node, decoded: list[int]
) -> None:
    """What is known of the watermark stays with it."""
    world.run(world.at(4))
    before = known(world)
    decoded.clear()
    for _ in range(2):
        result = world.run(world.at(4))
        assert (result.status, only_source(result).gaps) == ("ok", 0)
    assert decoded == []
    assert known(world) == before
    assert before == digest_at_watermark(world, node)


def test_an_idle_minute_is_not_taken_for_the_watermark(world: World, decoded: list[int]) -> None:
    """Its samples are the same to the byte, and it has to become the watermark."""
    node = world.add_node("jp-1", world.add_users(USERS))
    world.flow_until(3)
    for minute in range(4, 9):
        node.snapshot(world.at(minute))
    world.run(world.at(5))
    decoded.clear()
    assert only_source(world.run(world.at(8))).snapshots == 3
    assert decoded == [USERS] * 3
    world.assert_all_is_billed()


def test_a_change_at_the_watermark_is_decoded_and_told(
    world: World, node: Node, decoded: list[int]
) -> None:
    """Of the same length, so that nothing but the digest gives it away."""
    world.run(world.at(4))
    met = at_watermark(world, node)
    length = len(samples_text(node, met))
    met.totals[0] ^= 1
    met.encoded = None
    assert len(samples_text(node, met)) == length
    decoded.clear()
    result = world.run_unchecked(world.at(6))
    assert decoded == [USERS] * 3
    assert result.status == "partial"
    assert only_source(result).notes == (
        "1 streams at the watermark are not what was seen there before",
    )


def test_a_row_of_an_older_version_has_nothing_to_go_by(
    world: World, node: Node, decoded: list[int]
) -> None:
    """One run decodes all, and leaves what the next one needs."""
    world.run(world.at(4))
    world.connection.execute(
        "UPDATE billing.sources SET samples_bytes = NULL, samples_digest = NULL"
    )
    counts = []
    for minute in (5, 6):
        decoded.clear()
        world.run(world.at(minute))
        counts.append(len(decoded))
    assert counts == [2, 1]
    assert len(node.snapshots) > 6


def test_history_that_is_lost_is_told_as_ever(world: World, node: Node, decoded: list[int]) -> None:
    """An exporter that was restarted does not know the snapshot any more."""
    world.run(world.at(4))
    node.forget_before(world.at(6))
    world.unknown_buckets = True
    decoded.clear()
    assert only_source(world.run_unchecked(world.at(9))).gaps == 1
    assert decoded == [USERS] * 2
    assert world.rows("SELECT kind FROM billing.gaps") == [("history_lost",)]
    decoded.clear()
    assert only_source(world.run_unchecked(world.at(10))).gaps == 0
    assert decoded == [USERS]


def test_counters_that_restart_are_told_as_ever(world: World, decoded: list[int]) -> None:
    """The restart shows between two snapshots of which only the second is decoded."""
    node = world.add_node("jp-1", world.add_users(USERS))
    world.flow_until(4)
    world.run(world.at(6))
    node.restart_xray(world.at(4.5))
    world.flow_until(8)
    decoded.clear()
    assert only_source(world.run(world.at(7))).resets > 0
    assert decoded == [USERS]
    world.run(world.at(11))
    assert world.rows("SELECT DISTINCT kind FROM billing.gaps") == [("reset",)]


def test_another_node_with_the_same_samples_begins_anew(world: World, decoded: list[int]) -> None:
    """Its first snapshot has the stamp and the bytes of the other's watermark: a baseline."""
    world.add_node("old", world.add_users(USERS))
    world.flow_until(8)
    world.run(world.at(4))
    world.running["old"].identity = world.fleet.nodes["old"].identity._replace(node_id="new")
    world.overrides["old"] = {"expected_node_id": "new"}
    result = world.run_unchecked(world.at(5))
    assert (result.status, only_source(result).snapshots) == ("ok", 2)
    sights = world.rows(
        "SELECT stored_node_id, origin, count(*) FROM billing.streams GROUP BY 1, 2"
    )
    assert sorted(sights) == [("prod:new", "baseline", 3), ("prod:old.svc.plus", "baseline", 3)]
    assert violations(world.connection, world.opening()) == []
    decoded.clear()
    world.run_unchecked(world.at(6))
    assert decoded == [USERS]


def test_an_exporter_without_windows_leaves_nothing_to_go_by(
    world: World, node: Node, decoded: list[int]
) -> None:
    """Nor does what was known of an older watermark stay with a newer one."""
    world.run(world.at(4))
    assert known(world) != (None, None)
    world.running["jp-1"].windowed = False
    world.run_unchecked(world.at(6))
    assert known(world) == (None, None)
    world.running["jp-1"].windowed = True
    decoded.clear()
    world.run_unchecked(world.at(9))
    assert decoded == [USERS] * 3
    assert known(world) == digest_at_watermark(world, node)


def test_samples_of_another_layout_leave_nothing_to_go_by(
    world: World, node: Node, decoded: list[int]
) -> None:
    """They are decoded in each run, as they always were."""
    node.add_stream("no-uuid")
    world.flow_until(30)
    for minute in (24, 25):
        world.run_unchecked(world.at(minute))
        assert known(world) == (None, None)
    assert decoded[-2:] == [USERS + 1] * 2


@pytest.mark.parametrize("seam", ["after", "next", "repeat"])
@pytest.mark.parametrize("order", ["rising", "twice"])
def test_an_exporter_may_page_as_it_likes(world: World, node: Node, seam: Any, order: Any) -> None:
    """Snapshots one by one, some of them twice: everything is billed once."""
    world.running["jp-1"].seam, world.running["jp-1"].order = seam, order
    world.running["jp-1"].max_page = 1
    world.collect_every_minute(4, 12)
    assert world.rows("SELECT count(*) FROM billing.gaps") == [(0,)]
    world.run(world.at(23))
    assert len(node.snapshots) > 12
    world.assert_all_is_billed()


def test_another_run_in_between_leaves_only_old_news(
    world: World, node: Node, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has moved the watermark on from what this one knew when it asked."""
    world.run(world.at(4))
    for ours, theirs in ((7, 6), (8, 9)):
        decoded.clear()
        with monkeypatch.context() as patched:
            after_fetching(patched, lambda at=theirs: world.run_unchecked(world.at(at)))
            result = world.run_unchecked(world.at(ours))
        source = only_source(result)
        assert (result.status, source.gaps, source.notes) == ("ok", 0, ())
        assert source.snapshots == max(0, ours - theirs)
        assert known(world) == digest_at_watermark(world, node)
        world.check()
    decoded.clear()
    world.run(world.at(10))
    assert decoded == [USERS]
    world.run(world.at(23))
    world.assert_all_is_billed()


def test_a_source_that_is_forgotten_meanwhile_begins_anew(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen has no totals to begin with, so its first snapshot is the one after it."""
    world.run(world.at(4))

    def forget() -> None:
        world.connection.execute("TRUNCATE billing.sources, billing.streams CASCADE")
        world.connection.execute("DELETE FROM public.billing_source_sync_state")
        world.connection.execute("DELETE FROM public.traffic_stat_checkpoints")

    after_fetching(monkeypatch, forget)
    result = world.run_unchecked(world.at(6))
    assert (result.status, only_source(result).snapshots) == ("ok", 2)
    first = node.snapshots[3].collected_at
    assert world.rows("SELECT DISTINCT origin, first_seen_at FROM billing.streams") == [
        ("baseline", first)
    ]


def test_a_catch_up_in_small_steps_knows_what_its_last_page_ended_with(
    world: World, node: Node, decoded: list[int]
) -> None:
    """A step that is cut before the end of its page goes by nothing; the result is the same."""
    world.fetching = replace(world.fetching, step_max_samples=2 * USERS, page_limit=3)
    result = world.run(world.at(23), catch_up)
    assert result.steps > 3
    assert known(world) == digest_at_watermark(world, node)
    world.assert_all_is_billed()
    decoded.clear()
    world.run(world.at(23), catch_up)
    assert decoded == []


def test_a_run_that_is_rolled_back_leaves_what_was_known(world: World, node: Node) -> None:
    """The digest is stored with the watermark, or not at all."""
    world.run(world.at(4))
    before = known(world)
    world.run(world.at(7), dry_run=True)
    assert known(world) == before == digest_at_watermark(world, node)
    world.run(world.at(7))
    assert known(world) == digest_at_watermark(world, node)


def test_reconcile_decodes_everything(world: World, node: Node, decoded: list[int]) -> None:
    """It compares what is stored with what the exporter says now, the watermark's included."""
    world.run(world.at(8))
    decoded.clear()
    world.run(world.at(9), reconcile)
    assert decoded == [USERS] * 7
    assert len(node.snapshots) > 8


def after_fetching(patched: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Do something once, between what a run fetches and its transaction."""
    waiting = [work]

    def fetched_before(*arguments: Any, **options: Any) -> Any:
        answers = list(fetch_all(*arguments, **options))
        if waiting:
            waiting.pop()()
        return answers

    patched.setattr("billing_cli.exporter.fleet.fetch_all", fetched_before)


def known(world: World) -> tuple[int | None, bytes | None]:
    """Return what is stored of the samples at the watermark."""
    return world.rows("SELECT samples_bytes, samples_digest FROM billing.sources")[0]  # type: ignore[return-value]


def digest_at_watermark(world: World, node: Node) -> tuple[int, bytes]:
    """Return what should be stored of the samples there."""
    text = samples_text(node, at_watermark(world, node))
    return len(text), sha256(text).digest()


def at_watermark(world: World, node: Node) -> Snapshot:
    """Return the snapshot that was applied last."""
    ((watermark,),) = world.rows("SELECT watermark FROM billing.sources")
    return next(one for one in node.snapshots if one.collected_at == watermark)


def samples_text(node: Node, snapshot: Snapshot) -> bytes:
    """Return the samples of a snapshot as the exporter spells them."""
    return encode_snapshot(node, snapshot).partition(b'"samples":[')[2][:-2]
