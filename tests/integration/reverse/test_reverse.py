"""What a source charged is given back exactly once, and can be charged again from history."""

from __future__ import annotations

import gc
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from billing_cli.cli.printing import text_of
from billing_cli.core.model import Charge
from billing_cli.core.objects import plain
from billing_cli.database.sources import try_lock_sources
from billing_cli.errors import UsageError
from billing_cli.features.audit.job import audit
from billing_cli.features.reverse import job
from billing_cli.features.reverse.job import Order, reverse
from billing_cli.features.reverse.report import reverse_parts
from billing_cli.features.sources.job import move_source
from billing_cli.jobs.reconcile import reconcile
from billing_cli.jobs.run_history import record_run
from billing_cli.simulator import read_service
from tests.integration.attacks.hostile import HOUR, START, Attack
from tests.support.story import MINUTE

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.features.reverse.report import ReverseResult
    from billing_cli.simulator.traffic import User
    from tests.support.story import Story

WHY = "the node was compromised"


def billed(story: Story) -> list[User]:
    """Let two users use two nodes for three minutes, partly within a quota, and collect that."""
    story.quota = 1500
    story.line_rate = 0
    users = [story.add_user(), story.add_user()]
    nodes = [story.add_node("jp-1"), story.add_node("us-1")]
    streams = [node.add_stream(user.uuid, "tcp") for node in nodes for user in users]
    story.minute()
    for _ in range(3):
        story.minute(*((stream, 100, 300) for stream in streams))
    story.collect()
    return users


def take_back(
    story: Story, since: datetime = START, until: datetime | None = None, **options: object
) -> ReverseResult:
    """Reverse jp-1."""
    account = options.pop("account", None)
    order = Order("jp-1", since, until, str(account) if account else None, WHY)
    return reverse(story.context(), order, dry_run=bool(options.get("dry_run")))


def test_bytes_money_and_quota_go_back_once(story: Story) -> None:
    """The quota covers the other source's bytes instead; a second run changes nothing."""
    users = billed(story)
    assert [story.funds(user).quota for user in users] == [0, 0]
    result = take_back(story)
    assert (result.status, result.written_minutes) == ("ok", 10)
    for user in users:
        (left,) = story.rows(
            "SELECT sum(included_bytes), sum(rated_bytes) FROM billing.charges"
            " WHERE account_uuid = %s",
            user.uuid,
        )
        assert left == (1200, 0)
        assert story.funds(user).quota == 300
    buckets = "SELECT node_id, sum(total_bytes) FROM public.traffic_minute_buckets GROUP BY 1"
    assert dict(story.rows(buckets)) == {"prod:jp-1.svc.plus": 0, "prod:us-1.svc.plus": 2400}
    assert audit(story.context()).violations == 0
    before = story.facts()
    again = take_back(story)
    assert (again.status, again.corrections, again.amount) == ("ok", 0, Decimal(0))
    assert story.facts() == before


def test_the_result_is_the_sum_of_all_steps(story: Story) -> None:
    """What the entries of the run say, together and by account."""
    users = billed_for_long(story)
    result = take_back(story)
    entries = story.rows(
        "SELECT account_uuid::text, count(*), sum(amount_delta)"
        "  FROM billing.charges WHERE run_id = %s GROUP BY 1 ORDER BY 1",
        result.run_id,
    )
    assert [(one.account_uuid, one.corrections, one.amount) for one in result.accounts] == entries
    assert len(entries) == len(users)
    (sums,) = story.rows(
        "SELECT count(*), -sum(amount_delta), sum(included_bytes), sum(rated_bytes)"
        "  FROM billing.charges WHERE run_id = %s",
        result.run_id,
    )
    found = (result.corrections, result.amount, result.included_bytes, result.charged_bytes)
    assert found == sums
    assert (result.steps, result.status) == (3, "ok")


def test_the_entries_of_earlier_steps_are_not_kept(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of 2,000 streams is millions of entries, of about a kilobyte each in memory."""
    billed_for_long(story)
    kept = []

    def entries() -> int:
        return sum(isinstance(one, Charge) for one in gc.get_objects())

    def count_entries(*arguments: object) -> None:
        kept.append(entries())
        record_run(*arguments)  # type: ignore[arg-type]

    gc.collect()
    others = entries()
    monkeypatch.setattr(job, "record_run", count_entries)
    take_back(story)
    assert [count - others for count in kept] == [0, 0, 0]


def billed_for_long(story: Story) -> list[User]:
    """Let two users use a node for 25 minutes, partly within a quota, and collect that."""
    story.quota = 1500
    story.line_rate = 0
    users = [story.add_user(), story.add_user()]
    node = story.add_node("jp-1")
    streams = [node.add_stream(user.uuid, "tcp") for user in users]
    story.minute()
    for _ in range(25):
        story.minute(*((stream, 100, 300) for stream in streams))
    story.collect()
    return users


def test_a_source_that_is_taken_between_two_steps_makes_the_run_partial(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result and the run history say what was given back; the same call gives back the rest."""
    billed_for_long(story)
    would = take_back(story, dry_run=True)
    with psycopg.connect(story.database_url) as other:
        tries = 0

        def try_late(connection: psycopg.Connection, source_ids: list[str]) -> set[str]:
            nonlocal tries
            tries += 1
            if tries == 2:
                assert try_lock_sources(other, source_ids)
            return try_lock_sources(connection, source_ids)

        monkeypatch.setattr(job, "try_lock_sources", try_late)
        first = take_back(story)
        refused = take_back(story)
    note = (
        "stopped at 2026-04-08T12:11:00Z: another run holds the source jp-1; the same call goes on"
        " from there"
    )
    assert (first.status, first.error, first.steps, first.notes) == ("partial", None, 1, (note,))
    assert first.amount < 0
    assert text_of(reverse_parts(first)).endswith(f"\nnote: {note}")
    recorded = story.rows(
        "SELECT status, result->'notes', result->>'amount' FROM billing.runs WHERE run_id = %s",
        first.run_id,
    )
    assert recorded == [("partial", [note], plain(first.amount))]
    assert (refused.status, refused.steps) == ("busy", 0)
    rest = take_back(story)
    assert rest.status == "ok"
    assert first.amount + rest.amount == would.amount
    assert first.corrections + rest.corrections == would.corrections
    assert audit(story.context()).violations == 0


def test_only_the_range_and_the_account_are_reversed(story: Story) -> None:
    """Minutes that begin in [since, until); the counters go on from where they stand."""
    users = billed(story)
    result = take_back(story, START + 2 * MINUTE, START + 3 * MINUTE, account=users[0].uuid)
    assert [account.account_uuid for account in result.accounts] == [users[0].uuid]
    assert -(result.included_bytes + result.charged_bytes) == 400
    stream = story.fleet.nodes["jp-1"].streams[0]
    story.minute((stream, 5, 0))
    collected = story.collect()
    assert collected.included_bytes + collected.charged_bytes == 5


def test_a_former_account_is_given_nothing_back(story: Story) -> None:
    """What was charged went with it; created again, it gets no money for that."""
    users = billed(story)
    read_service.delete_account(story.connection, users[0].uuid)
    read_service.add_account(story.connection, users[0])
    result = take_back(story)
    assert [account.account_uuid for account in result.accounts] == [users[1].uuid]
    assert (result.status, result.written_minutes) == ("ok", 5)
    assert audit(story.context()).violations == 0
    # The check of the invariants at the end knows accounts that are gone, but no former ones.
    read_service.delete_account(story.connection, users[0].uuid)


def test_a_dry_run_says_what_it_would_do(story: Story) -> None:
    """And changes nothing."""
    billed(story)
    before = story.facts()
    would = take_back(story, dry_run=True)
    assert story.facts() == before
    did = take_back(story)
    assert (would.corrections, would.included_bytes + would.charged_bytes) == (
        did.corrections,
        did.included_bytes + did.charged_bytes,
    )


def test_reconcile_charges_again_from_the_history_where_a_time_is_named(story: Story) -> None:
    """A reconcile of the last hour, as programs start it, leaves alone what was reversed."""
    users = billed(story)
    paid = [story.paid(user) for user in users]
    take_back(story)
    assert reconcile(story.context(), ["jp-1"]).corrections == 0
    assert reconcile(story.context(), ["jp-1"], since=START).corrections == 6
    assert [story.paid(user) for user in users] == paid
    assert reconcile(story.context(), ["jp-1"], since=START).corrections == 0
    assert audit(story.context()).violations == 0


def test_a_clean_history_is_charged_in_place_of_an_invented_one(attack: Attack) -> None:
    """Totals at the very same stamps are others; invented users are not in it."""
    node, users = attack.node(), attack.users(3)
    honest, invented = users[:2], users[2]
    clean = {}
    for minute in range(31):
        at = START + minute * MINUTE
        clean[at] = [(user, "tcp", minute * 1000) for user in honest]
        node.snapshots[at] = [(user, "tcp", minute * 10**9) for user in (*honest, invented)]
    attack.run(START + HOUR)
    assert attack.charged()[0] == 90 * 10**9
    order = Order("jp-1", START, None, None, WHY)
    reverse(attack.context(START + HOUR), order)
    assert attack.charged() == (0, Decimal(0))
    node.snapshots = dict(clean)
    attack.run(START + HOUR, reconcile, since=START)
    assert attack.charged()[0] == 2 * 30 * 1000
    assert attack.run(START + HOUR, reconcile, since=START).corrections == 0


@pytest.mark.parametrize(
    ("since", "until"), [(13, None), (0, 13)], ids=["the later minute", "the earlier minute"]
)
def test_a_record_that_was_taken_back_in_part_is_left_alone(
    attack: Attack, since: int, until: int | None
) -> None:
    """A reconcile had moved some of its bytes to another minute, which stays charged."""
    node, (user,) = attack.node(), attack.users()
    for minute, total in ((0, 0), (10, 100), (16, 700)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    attack.run(START + HOUR)
    node.snapshots[START + 12 * MINUTE] = [(user, "tcp", 400)]
    attack.run(START + HOUR, reconcile)
    end = until and START + until * MINUTE
    order = Order("jp-1", START + since * MINUTE, end or None, None, WHY)
    assert reverse(attack.context(START + HOUR), order).written_minutes == (2 if until else 1)
    before = attack.charged()
    assert before[0] == (300 if until else 400)
    node.snapshots[START + 14 * MINUTE] = [(user, "tcp", 500)]
    assert attack.run(START + HOUR, reconcile).corrections == 0
    assert attack.charged() == before
    attack.run(START + HOUR, reconcile, since=START)
    assert attack.charged()[0] == 700
    del node.snapshots[START + 14 * MINUTE]
    node.snapshots[START + 15 * MINUTE] = [(user, "tcp", 500)]
    node.snapshots[START + 14 * MINUTE] = [(user, "tcp", 500)]
    node.snapshots[START + 13 * MINUTE] = [(user, "tcp", 450)]
    assert attack.run(START + HOUR, reconcile).corrections == 2
    assert attack.charged()[0] == 700


def test_what_was_taken_over_is_not_charged_again(attack: Attack) -> None:
    """An upgrade merged two counters; then a restart that was none, read from after it."""
    node, (user,) = attack.node(), attack.users()
    totals = [(100, 50), (110, 50), (170,), (180,), (9,), (15,), (250,), (260,)]
    for minute, counted in enumerate(totals):
        tags = zip(("tcp", "xhttp"), counted, strict=False)
        node.snapshots[START + minute * MINUTE] = [(user, tag, total) for tag, total in tags]
    attack.run(START + HOUR)
    before = attack.charged()
    assert before[0] == 10 + 10 + 10 + 9 + 6 + 55 + 10
    reverse(attack.context(START + HOUR), Order("jp-1", START, None, None, WHY))
    assert attack.charged() == (0, Decimal(0))
    attack.run(START + HOUR, reconcile, since=START + 6 * MINUTE)
    assert attack.charged()[0] == 55 + 10
    attack.run(START + HOUR, reconcile, since=START)
    assert attack.charged() == before


def test_a_total_that_history_corrects_moves_its_bytes_to_the_later_minute(
    attack: Attack,
) -> None:
    """The stored total of minute 1 was too high: nothing of it was taken over."""
    node, (user,) = attack.node(), attack.users()
    for minute, total in enumerate((100, 5_000, 5_100)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    attack.run(START + HOUR)
    reverse(attack.context(START + HOUR), Order("jp-1", START, None, None, WHY))
    assert attack.charged() == (0, Decimal(0))
    node.snapshots[START + MINUTE] = [(user, "tcp", 500)]
    attack.run(START + HOUR, reconcile, since=START)
    assert attack.charged()[0] == 400 + 4_600
    assert attack.run(START + HOUR, reconcile, since=START).corrections == 0


def test_totals_of_a_former_node_id_are_not_taken_over_twice(attack: Attack) -> None:
    """The node is given another id right where two of its counters were merged."""
    node, (user,) = attack.node(), attack.users()
    for minute, counted in enumerate([(100, 50), (110, 50), (170,)]):
        tags = zip(("tcp", "xhttp"), counted, strict=False)
        node.snapshots[START + minute * MINUTE] = [(user, tag, total) for tag, total in tags]
    attack.run(START + HOUR)
    move_source(attack.context(START + HOUR), "jp-1", "prod:b", is_same_counters=True)
    node.node_id = "b"
    for minute, total in ((3, 180), (4, 190)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    attack.run(START + HOUR)
    before = attack.charged()
    assert before[0] == 10 + 10 + 20
    since = START + 3 * MINUTE
    reverse(attack.context(START + HOUR), Order("jp-1", since, None, None, WHY))
    attack.run(START + HOUR, reconcile, since=since)
    assert attack.charged() == before


DAMAGES = {
    "deleted": "DELETE FROM public.traffic_minute_buckets",
    "moved to a region before": "UPDATE public.traffic_minute_buckets SET region = 'aa'",
    "moved to a region after": "UPDATE public.traffic_minute_buckets SET region = 'zz'",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_buckets_that_others_damaged_hinder_no_reversal(attack: Attack, damage: str) -> None:
    """Our own charges say what goes back, and in which region."""
    node, (user,) = attack.node(), attack.users()
    node.limits["region"] = "jp"
    for minute, total in enumerate((0, 100, 300)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    attack.run(START + HOUR)
    assert attack.charged()[0] == 300
    attack.connection.execute(damage.encode())
    result = reverse(attack.context(START + HOUR), Order("jp-1", START, None, None, WHY))
    assert (result.corrections, result.notes) == (2, ())
    assert attack.charged() == (0, Decimal(0))
    again = reverse(attack.context(START + HOUR), Order("jp-1", START, None, None, WHY))
    assert (again.corrections, again.notes) == (0, ())


def test_reconcile_moves_bytes_out_of_a_minute_whose_bucket_others_deleted(attack: Attack) -> None:
    """The legacy writer charged nothing there: the charge is ours."""
    node, (user,) = attack.node(), attack.users()
    for minute, total in ((0, 0), (10, 100), (16, 700)):
        node.snapshots[START + minute * MINUTE] = [(user, "tcp", total)]
    attack.run(START + HOUR)
    attack.connection.execute("DELETE FROM public.traffic_minute_buckets")
    node.snapshots[START + 12 * MINUTE] = [(user, "tcp", 400)]
    result = reconcile(attack.context(START + HOUR))
    assert (result.corrections, attack.charged()[0]) == (2, 700)


def test_the_command_prints_one_object(story: Story) -> None:
    """With what each account got back; an account's explanation shows the reason."""
    users = billed(story)
    arguments = ("reverse", "--source", "jp-1", "--since", "2026-04-08T00:00:00Z", "--reason", WHY)
    printed = story.billing(*arguments, "--json")
    assert (printed.exit_code, printed.json["status"]) == (0, "ok")
    assert {one["account_uuid"] for one in printed.json["accounts"]} == {
        user.uuid for user in users
    }
    explained = story.billing("explain", users[0].uuid, "--minute", "2026-04-08T12:01:00Z")
    assert WHY in explained.stdout
    unknown = story.billing("reverse", "--source", "x", "--since", "1h", "--reason", WHY)
    assert unknown.exit_code == 2


def test_a_source_without_anything_collected_is_refused(story: Story) -> None:
    """A usage error; nothing is done."""
    story.add_node("jp-1")
    with pytest.raises(UsageError, match="nothing has been collected from source 'jp-1'"):
        take_back(story)
