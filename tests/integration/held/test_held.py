"""Held deltas on a real database: listed, released into the watermark's minute, rejected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from billing_cli.database.moving import move_progress
from billing_cli.database.sources import add_sources, try_lock_sources
from billing_cli.errors import BillingError, UsageError
from billing_cli.features.held import job
from billing_cli.features.held.job import list_held, reject_held, release_held
from billing_cli.features.held.result import HeldResult
from billing_cli.jobs.context import JobContext
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.invariants import compare_with_oracle
from billing_cli.simulator.oracle import Oracle
from tests.support.interruptions import interrupted_everywhere
from tests.support.story import MINUTE, START

if TYPE_CHECKING:
    from billing_cli.features.held.result import HeldDelta
    from billing_cli.simulator.traffic import Stream, User
    from tests.support.story import Story

JUMP = 1_000_000
WHY = "the line is faster than we thought"

Decision = Callable[[JobContext, Iterable[int], str], HeldResult]
DECISIONS = [release_held, reject_held]


class Jump:
    """A user whose counter jumped once, between two plain minutes."""

    def __init__(self, story: Story) -> None:
        self.user: User = story.add_user()
        self.stream: Stream = story.add_node("jp-1").add_stream(self.user.uuid, "xhttp")
        story.minute((self.stream, 0, 0))
        story.minute((self.stream, 10, 20))
        story.minute((self.stream, JUMP, 0))
        self.last_minute = story.minute((self.stream, 30, 40))
        self.result = story.collect()


@pytest.fixture
def jump(story: Story) -> Jump:
    """Return a story in which one delta is held."""
    return Jump(story)


def waiting(story: Story) -> list[HeldDelta]:
    """Return what waits for a decision."""
    return list(list_held(story.context()).deltas)


def release(story: Story, *held_ids: int, dry_run: bool = False) -> HeldResult:
    """Release deltas, or all that wait."""
    ids = held_ids or [one.held_id for one in waiting(story)]
    return release_held(story.context(), ids, WHY, dry_run=dry_run)


def test_a_jump_waits_with_its_figures(story: Story, jump: Jump) -> None:
    """Stamps, totals and the rate that they would mean tell what happened."""
    (held,) = waiting(story)
    assert jump.result.status == "partial"
    assert (held.source_id, held.stored_node_id) == ("jp-1", "prod:jp-1.svc.plus")
    assert (held.record.name, held.account_uuid) == (jump.stream.name, jump.user.uuid)
    assert (held.record.from_at, held.record.to_at) == (START + MINUTE, START + 2 * MINUTE)
    assert (held.record.start, held.record.end) == ((10, 20), (10 + JUMP, 20))
    assert (held.total_bytes, held.bits_per_second) == (JUMP, round(JUMP * 8 / 60))
    assert (held.state, held.decided_at, held.reason) == ("held", None, "")


def test_released_bytes_are_charged_in_the_minute_of_the_watermark(
    story: Story, jump: Jump
) -> None:
    """That minute is closed, and the nearest to the decision."""
    story.price = Decimal("0.003")
    result = release(story)
    assert (result.status, result.charged_bytes, result.corrections) == ("ok", JUMP, 1)
    assert result.amount == JUMP * story.price
    assert story.paid(jump.user) == 100 * Decimal("0.001") + JUMP * story.price
    assert story.rows(
        "SELECT bucket_start, from_at, to_at, uplink_start, uplink_end, account_uuid::text"
        "  FROM billing.usage_records WHERE kind = 'released'"
    ) == [(jump.last_minute, START + MINUTE, START + 2 * MINUTE, 10, 10 + JUMP, jump.user.uuid)]
    assert story.rows(
        "SELECT uplink_bytes, downlink_bytes, total_bytes FROM public.traffic_minute_buckets"
        " WHERE bucket_start = %s",
        jump.last_minute,
    ) == [(30 + JUMP, 40, 70 + JUMP)]


@pytest.mark.usefixtures("jump")
def test_a_release_says_why_in_the_evidence_and_in_the_held_row(story: Story) -> None:
    """Whoever asks later finds the reason at both ends."""
    (held,) = waiting(story)
    result = release(story)
    assert story.rows(
        "SELECT entry_type, reason, pricing_rule_version, run_id::text FROM billing.charges"
        " WHERE reason <> ''"
    ) == [("traffic_adjustment", f"held delta {held.held_id} released: {WHY}", "v1", result.run_id)]
    (decided,) = list_held(story.context(), is_decided_shown=True).deltas
    assert (decided.state, decided.reason) == ("released", WHY)
    assert decided.decided_at is not None
    assert result.held == (decided,)
    assert waiting(story) == []


def test_released_bytes_use_up_the_quota_first(story: Story) -> None:
    """They are rated like any others of today."""
    story.quota = JUMP // 2
    jump = Jump(story)
    result = release(story)
    assert (result.included_bytes, result.charged_bytes) == (JUMP // 2 - 100, JUMP // 2 + 100)
    assert story.funds(jump.user).quota == 0


def test_a_release_into_a_minute_without_traffic_makes_its_own_charge(story: Story) -> None:
    """The bucket is created, with the multiplier that it was charged with."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.connection.execute(
        "INSERT INTO public.account_billing_profiles VALUES"
        " (%s, 'double', 0, 0, 2, 1, 1, 1, '', now(), now())",
        [user.uuid],
    )
    story.minute()
    story.minute((stream, JUMP, 0))
    last = story.minute()
    story.collect()
    release(story)
    assert story.rows(
        "SELECT bucket_start, total_bytes, multiplier, source_revision"
        "  FROM public.traffic_minute_buckets"
    ) == [(last, JUMP, 2.0, "v1")]
    assert story.rows("SELECT entry_type FROM public.billing_ledger") == [("traffic_charge",)]
    assert story.paid(user) == JUMP * 2 * story.price


def test_deltas_of_one_bucket_are_charged_together(story: Story) -> None:
    """The entry names all of them."""
    user = story.add_user()
    node = story.add_node("jp-1")
    streams = [node.add_stream(uuid, "xhttp") for uuid in (user.uuid, user.proxy_uuid)]
    story.minute()
    story.minute((streams[0], JUMP, 0), (streams[1], 0, JUMP))
    story.minute((streams[0], 0, JUMP))
    story.collect()
    result = release(story)
    assert (len(result.held), result.written_minutes, result.charged_bytes) == (3, 1, 3 * JUMP)
    ids = ", ".join(str(one.held_id) for one in result.held)
    assert story.rows("SELECT reason FROM billing.charges") == [
        (f"held delta {ids} released: {WHY}",)
    ]
    assert story.rows("SELECT uplink_bytes, downlink_bytes FROM public.traffic_minute_buckets") == [
        (JUMP, 2 * JUMP)
    ]


def test_deltas_of_several_sources_are_released_at_once(story: Story) -> None:
    """Each is charged in the minute of its own source's watermark."""
    user = story.add_user()
    nodes = [story.add_node(source_id) for source_id in ("jp-1", "us-1")]
    streams = [node.add_stream(user.uuid, "xhttp") for node in nodes]
    story.minute()
    reached = story.minute((streams[0], JUMP, 0), (streams[1], JUMP, 0))
    story.collect()
    story.running["us-1"].down = True
    further = story.minute()
    story.collect()
    release(story)
    assert story.rows(
        "SELECT node_id, bucket_start FROM public.traffic_minute_buckets ORDER BY node_id"
    ) == [("prod:jp-1.svc.plus", further), ("prod:us-1.svc.plus", reached)]


def test_a_rejected_delta_is_never_charged(story: Story, jump: Jump) -> None:
    """Only the decision is written."""
    before = story.funds(jump.user)
    (held,) = waiting(story)
    result = reject_held(story.context(), [held.held_id], "a bug of the exporter")
    assert result.status == "ok"
    assert (result.charged_bytes, result.amount) == (0, Decimal(0))
    assert story.funds(jump.user) == before
    (decided,) = list_held(story.context(), is_decided_shown=True).deltas
    assert (decided.state, decided.reason) == ("rejected", "a bug of the exporter")


@pytest.mark.usefixtures("jump")
@pytest.mark.parametrize("first", DECISIONS)
@pytest.mark.parametrize("second", DECISIONS)
def test_a_decision_is_final(story: Story, first: Decision, second: Decision) -> None:
    """The second one is refused, tells the first one's reason, and changes nothing."""
    (held,) = waiting(story)
    first(story.context(), [held.held_id], WHY)
    before = story.facts()
    with pytest.raises(BillingError, match=f"already at .* \\({WHY}\\)"):
        second(story.context(), [held.held_id], "again")
    assert story.facts() == before


@pytest.mark.usefixtures("jump")
def test_an_id_that_does_not_exist_changes_nothing(story: Story) -> None:
    """One wrong id stops the right one beside it."""
    (held,) = waiting(story)
    before = story.facts()
    for decide in DECISIONS:
        with pytest.raises(UsageError, match="there is no held delta 4711"):
            decide(story.context(), [held.held_id, 4711], WHY)
    assert story.facts() == before


@pytest.mark.usefixtures("jump")
def test_a_stream_without_account_can_not_be_charged(story: Story) -> None:
    """Nothing changes, not even for a delta beside it that could be charged."""
    stranger = story.fleet.nodes["jp-1"].add_stream(story.fleet.new_uuid(), "xhttp")
    story.minute((stranger, JUMP, 0))
    story.collect()
    before = story.facts()
    with pytest.raises(BillingError, match=stranger.name.sample_uuid):
        release(story)
    assert story.facts() == before
    assert len(waiting(story)) == 2


def test_a_stream_whose_account_has_appeared_can_be_charged(story: Story) -> None:
    """The next collect finds the account, and then the delta can be released."""
    unknown = story.fleet.new_uuid()
    stream = story.add_node("jp-1").add_stream(unknown, "xhttp")
    story.minute()
    story.minute((stream, JUMP, 0))
    story.collect()
    user = story.fleet.add_user(unknown)
    save_users(story.connection, [user])
    story.minute((stream, 10, 0))
    story.collect()
    release(story)
    assert story.paid(user) == (JUMP + 10) * story.price


def test_an_account_that_is_gone_can_not_be_charged(story: Story, jump: Jump) -> None:
    """The delta stays held; an operator may reject it."""
    story.connection.execute("DELETE FROM public.users WHERE uuid = %s", [jump.user.uuid])
    before = story.facts()
    with pytest.raises(BillingError, match="does not exist any more"):
        release(story)
    assert story.facts() == before


@pytest.mark.usefixtures("jump")
def test_a_node_that_no_source_carries_any_more_has_no_minute_to_charge_in(story: Story) -> None:
    """Its watermark is not known, so a release would have to guess."""
    story.connection.execute("UPDATE billing.sources SET stored_node_id = 'prod:jp-2.svc.plus'")
    (held,) = waiting(story)
    assert held.source_id is None
    before = story.facts()
    with pytest.raises(BillingError, match=r"no source carries node 'prod:jp-1\.svc\.plus'"):
        release(story)
    assert story.facts() == before


def test_a_release_does_not_disturb_a_running_collect(story: Story, jump: Jump) -> None:
    """While another run holds the source, nothing is decided."""
    before = story.facts()
    with psycopg.connect(story.database_url) as other, other.transaction():
        assert try_lock_sources(other, ["jp-1"]) == {"jp-1"}
        result = release(story)
    assert (result.status, result.error) == ("busy", "another run holds the source jp-1")
    assert story.facts() == before
    assert release(story).charged_bytes == JUMP
    assert story.paid(jump.user) == (JUMP + 100) * story.price


@pytest.mark.parametrize("decide", DECISIONS)
@pytest.mark.usefixtures("jump")
def test_a_node_that_is_moved_meanwhile_is_busy(
    story: Story, monkeypatch: pytest.MonkeyPatch, decide: Decision
) -> None:
    """Its new source is not locked; the next try finds it."""
    (delta,) = waiting(story)

    def lock_after_a_move(connection: Any, source_ids: list[str]) -> set[str]:
        add_sources(story.connection, ["tokyo-1"])
        identity = story.fleet.nodes["jp-1"].identity
        move_progress(story.connection, "jp-1", "tokyo-1", identity)
        return try_lock_sources(connection, source_ids)

    with monkeypatch.context() as patched:
        patched.setattr(job, "try_lock_sources", lock_after_a_move)
        result = decide(story.context(), [delta.held_id], WHY)
    assert (result.status, result.held) == ("busy", ())
    assert result.error == "another run holds the source tokyo-1"
    assert decide(story.context(), [delta.held_id], WHY).status == "ok"


def test_two_releases_at_the_same_moment_charge_once(story: Story, jump: Jump) -> None:
    """One of them finds the source held, or the delta decided."""
    (held,) = waiting(story)
    contexts = [story.context(), story.context()]
    both_ready = threading.Barrier(2)
    outcomes: list[str] = []

    def decide(number: int) -> None:
        both_ready.wait()
        try:
            outcomes.append(release_held(contexts[number], [held.held_id], WHY).status)
        except BillingError:
            outcomes.append("refused")

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("ok") == 1
    assert story.paid(jump.user) == (JUMP + 100) * story.price


@pytest.mark.usefixtures("jump")
def test_a_dry_run_of_a_decision_writes_nothing(story: Story) -> None:
    """It tells what would be charged."""
    before = story.facts()
    runs = story.rows("SELECT count(*) FROM billing.runs")
    result = release(story, dry_run=True)
    assert (result.dry_run, result.charged_bytes) == (True, JUMP)
    assert reject_held(story.context(), [result.held[0].held_id], WHY, dry_run=True).dry_run
    assert story.facts() == before
    assert story.rows("SELECT count(*) FROM billing.runs") == runs


def test_a_release_that_is_interrupted_leaves_no_trace(story: Story, jump: Jump) -> None:
    """Whatever statement a signal comes before, all of it took place or nothing."""
    (held,) = waiting(story)
    before = story.facts()
    for _ in interrupted_everywhere(lambda: release(story, held.held_id)):
        assert story.facts() == before
    assert story.paid(jump.user) == (JUMP + 100) * story.price


def test_collecting_and_reconciling_go_on_after_a_release(story: Story, jump: Jump) -> None:
    """Released bytes are billed once, and count against the truth like all others."""
    release(story)
    story.minute((jump.stream, 5, 6))
    story.collect()
    result = reconcile(story.context())
    assert (result.status, result.corrections) == ("ok", 0)
    assert compare_with_oracle(story.connection, Oracle(story.fleet)) == []
    assert story.paid(jump.user) == (JUMP + 111) * story.price


def test_a_release_goes_to_the_region_that_is_on_record(story: Story, jump: Jump) -> None:
    """A region that was configured since makes no second bucket of the minute."""
    story.region = "asia"
    release(story)
    assert story.rows(
        "SELECT region, total_bytes FROM public.traffic_minute_buckets WHERE bucket_start = %s",
        jump.last_minute,
    ) == [("", 70 + JUMP)]


@pytest.mark.usefixtures("jump")
def test_a_decision_is_in_the_run_history(story: Story) -> None:
    """As every run: what was asked, what came of it, and failures as well."""
    result = release(story)
    with pytest.raises(BillingError):
        release(story, result.held[0].held_id)
    assert story.rows(
        "SELECT job, status, result ->> 'charged_bytes', result -> 'held' -> 0 ->> 'state'"
        "  FROM billing.runs WHERE job = 'held-release' ORDER BY status DESC"
    ) == [("held-release", "ok", str(JUMP), "released"), ("held-release", "error", "0", None)]


def test_the_list_can_be_narrowed_to_sources(story: Story, jump: Jump) -> None:
    """A source needs no entry in the configuration, as long as it was ever collected."""
    other = story.add_node("us-1").add_stream(jump.user.uuid, "xhttp")
    story.minute()
    story.minute((other, JUMP, 0))
    story.collect()
    unconfigured = replace(story.context(), sources=())
    assert [delta.source_id for delta in list_held(unconfigured).deltas] == ["jp-1", "us-1"]
    assert [delta.source_id for delta in list_held(unconfigured, ["us-1"]).deltas] == ["us-1"]
    with pytest.raises(UsageError, match="unknown source mars-1"):
        list_held(unconfigured, ["mars-1"])


@pytest.mark.usefixtures("jump")
def test_stamps_that_meet_give_no_endless_rate(story: Story) -> None:
    """The rate is that of a second where no time has passed."""
    (held,) = waiting(story)
    record = held.record._replace(from_at=held.record.to_at)
    assert replace(held, record=record).bits_per_second == JUMP * 8
    record = held.record._replace(from_at=held.record.to_at - timedelta(seconds=2))
    assert replace(held, record=record).bits_per_second == JUMP * 4


def test_a_delta_that_no_bucket_can_hold_is_refused(story: Story) -> None:
    """Both directions together exceed a bigint: the release says so, and changes nothing."""
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute((stream, 0, 0))
    story.minute((stream, 2**62, 2**62))
    story.minute((stream, 1, 1))
    story.collect()
    (held,) = waiting(story)
    before = story.facts()
    with pytest.raises(BillingError, match=rf"held delta {held.held_id}: .* which no bucket"):
        release(story)
    assert story.facts() == before
