"""The story of charges: from what counters said to what became of the balance."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_cli.cli.printing import text_of
from billing_cli.core.model import MAX_TOTAL, Totals
from billing_cli.features.explain.job import explain
from billing_cli.features.explain.objects import explanation_object
from billing_cli.features.explain.text import explain_parts
from billing_cli.features.held.job import release_held
from billing_cli.features.rerate.job import Order, rerate
from billing_cli.jobs.reconcile import reconcile
from billing_cli.simulator.accounts import save_users
from billing_cli.simulator.books import read_books
from billing_cli.simulator.publication import merged
from tests.support.story import MINUTE, SHORTLY_AFTER, START

if TYPE_CHECKING:
    from datetime import datetime

    from billing_cli.features.explain.explanation import Explanation, LineExplanation
    from billing_cli.simulator.traffic import User
    from tests.support.story import Story

NODE = "prod:jp-1.svc.plus"
JUMP = 1_000_000


def told(story: Story, user: User, **options: Any) -> Explanation:
    """Return the story of a user's charges."""
    return explain(story.context(), user.uuid, **options)


def only_line(explanation: Explanation, minute: datetime) -> LineExplanation:
    """Return the one line of a minute."""
    (story,) = (one for one in explanation.minutes if one.minute == minute)
    (line,) = story.lines
    return line


def test_a_minute_is_told_from_the_snapshots_to_the_balance(story: Story) -> None:
    """Stamps and totals, bytes, quota, price, ledger entry, balance."""
    story.quota = 25
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute((stream, 100, 200))
    minute = story.minute((stream, 10, 30))
    story.collect()

    explanation = told(story, user)
    line = only_line(explanation, minute)

    assert (line.stored_node_id, line.line_code) == (NODE, "xhttp")
    (movement,) = line.movements
    assert (movement.from_at, movement.to_at) == (START, minute)
    assert (movement.start, movement.end) == (Totals(100, 200), Totals(110, 230))
    assert movement.first_sight == "baseline"
    (bucket,) = line.buckets
    assert (bucket.uplink_bytes, bucket.downlink_bytes, bucket.total_bytes) == (10, 30, 40)
    (entry,) = line.entries
    assert (entry.included_bytes, entry.rated_bytes) == (25, 15)
    assert (entry.price_per_byte, entry.product) == (Decimal("0.001"), Decimal("0.015"))
    assert (entry.quota_before, entry.quota_after) == (25, 0)
    assert (entry.balance_before, entry.balance_after) == (Decimal(5), Decimal("4.985"))
    assert entry.is_in_ledger

    text = text_of(explain_parts(explanation))
    steps = [
        f"account {user.uuid}",
        "2026-04-08T12:01:00Z",
        f"node {NODE}, inbound tag xhttp",
        f"stream {user.uuid}: snapshots 2026-04-08T12:00:00Z to 2026-04-08T12:01:00Z",
        "totals: up 100 -> 110, down 200 -> 230 (+10 up, +30 down)",
        "bucket: 10 up + 30 down = 40 bytes",
        f"charge {entry.ledger_id}",
        "40 bytes: 25 included in the quota of 25, 15 rated",
        "15 x 0.001 x 1 = 0.015",
        "amount -0.015000000 by pricing rule v1",
        "balance 5.000000000 -> 4.985000000, quota 25 -> 0",
    ]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


def test_a_restart_is_told_with_what_the_counters_had_come_to(story: Story) -> None:
    """The record begins at zero, and says at which totals the one before ended."""
    user = story.add_user()
    node = story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 20))
    node.restart_xray(story.now)
    minute = story.minute((stream, 1, 2))
    story.minute()
    story.collect()

    explanation = told(story, user)

    (movement,) = only_line(explanation, minute).movements
    assert movement.before == Totals(10, 20)
    assert (movement.start, movement.end) == (Totals(0, 0), Totals(1, 2))
    assert "had come to 10 up and 20 down, and began again at 0" in text_of(
        explain_parts(explanation)
    )
    assert [gap.kind for gap in explanation.gaps] == ["reset"]
    story.connection.execute(
        "UPDATE billing.sources SET former_nodes = ARRAY[stored_node_id], stored_node_id = 'new'"
    )
    assert told(story, user).gaps == explanation.gaps


def test_a_succession_is_told_with_what_is_taken_over(story: Story) -> None:
    """The counters that it continues, and the totals that are not charged again."""
    user, node = story.add_user(), story.add_node("jp-1")
    streams = [node.add_stream(user.uuid, tag) for tag in ("tcp", "xhttp")]
    story.minute()
    story.minute((streams[0], 100, 400), (streams[1], 23, 56))
    node.naming = merged
    minute = story.minute((streams[0], 1, 2))
    story.collect()

    explanation = told(story, user)

    (movement,) = only_line(explanation, minute).movements
    (taken,) = movement.taken_over
    assert (taken.kind, taken.totals, movement.start) == ("renamed", (123, 456), (123, 456))
    names = f"tcp {user.uuid}, xhttp {user.uuid}"
    text = text_of(explain_parts(explanation))
    assert f"continues {names}: 123 bytes up / 456 down taken over" in text
    told_object = explanation_object(explanation)["minutes"][-1]["lines"][0]["movements"][0]
    assert told_object["taken_over"][0]["uplink_total"] == 123


def test_usage_that_waited_for_its_account_is_told_in_its_own_minute(story: Story) -> None:
    """It is charged once the account is known, as if it had been known then."""
    node = story.add_node("jp-1")
    stranger = story.fleet.new_uuid()
    stream = node.add_stream(stranger, "xhttp")
    story.minute()
    waited = story.minute((stream, 5, 5))
    story.collect()
    user = story.fleet.add_user(stranger)
    save_users(story.connection, [user])
    minute = story.minute((stream, 1, 0))
    story.collect()

    explanation = told(story, user)

    (pending,) = only_line(explanation, waited).movements
    assert (pending.kind, pending.to_at, pending.end) == ("pending", waited, Totals(5, 5))
    (delta,) = only_line(explanation, minute).movements
    assert (delta.kind, delta.start, delta.end) == ("delta", Totals(5, 5), Totals(6, 5))
    assert "it waited until it could be charged" in text_of(explain_parts(explanation))


def test_more_than_a_bigint_may_wait(story: Story) -> None:
    """Both directions of what a hostile exporter publishes."""
    stranger = story.fleet.new_uuid()
    stream = story.add_node("jp-1").add_stream(stranger, "xhttp")
    story.minute()
    story.minute((stream, 5, 5))
    story.collect()
    for end in (MAX_TOTAL, 5):
        story.connection.execute(
            "UPDATE billing.pending_usage SET uplink_end = %(end)s, downlink_end = %(end)s",
            {"end": end},
        )
        (waiting,) = explain(story.context(), stranger).waiting
        assert waiting.total_bytes == 2 * end


def test_what_is_held_is_told_as_not_charged_and_then_as_released(story: Story) -> None:
    """The reason of the operator is part of the story."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    minute = story.minute((stream, JUMP, 0))
    story.collect()
    ((held_id,),) = story.rows("SELECT held_id FROM billing.held_deltas")

    held = told(story, user)
    release_held(story.context(), [held_id], "the line was upgraded")
    released = told(story, user)

    (one,) = only_line(held, minute).held
    assert (one.state, one.movement.uplink_bytes) == ("held", JUMP)
    text = text_of(explain_parts(held))
    assert "above the plausible rate of the account, not charged, held" in text
    line = only_line(released, minute)
    assert line.held == ()
    assert [movement.kind for movement in line.movements] == ["released"]
    text = text_of(explain_parts(released))
    cause = "above the plausible rate of the account"
    assert f"it was held ({cause}) and released: the line was upgraded" in text
    assert f"reason: held delta {held_id} released: the line was upgraded" in text


def test_a_correction_is_told_with_its_refund(story: Story) -> None:
    """What was on record, what is right, and what goes back at the price that was charged."""
    user = story.add_user()
    node = story.add_node("jp-1")
    stream = node.add_stream(user.uuid, "xhttp")
    story.minute()
    hidden = story.minute((stream, 10, 0))
    node.withhold(hidden, hidden + MINUTE, hidden + 3 * MINUTE)
    blurred = story.minute((stream, 1, 0))
    story.fleet.present = blurred + SHORTLY_AFTER
    story.collect()
    story.minute()
    story.fleet.present = None
    reconcile(replace(story.context(), job="reconcile"))

    explanation = told(story, user)

    delta, correction = only_line(explanation, blurred).movements
    assert (delta.uplink_bytes, correction.kind, correction.uplink_bytes) == (11, "correction", -10)
    charge, refund = only_line(explanation, blurred).entries
    assert refund.adjusts == charge.ledger_id
    assert (refund.rated_bytes, refund.standing_rated_bytes) == (-10, 1)
    assert refund.charged_before == Decimal("-0.011")
    assert refund.amount_delta == Decimal("0.01")
    assert only_line(explanation, hidden).movements[0].uplink_bytes == 10
    text = text_of(explain_parts(explanation))
    assert "bytes of this minute: up 11 -> 1, down 0 -> 0 (-10 up, +0 down)" in text
    assert "1 rated bytes are left of it: 1 x 0.001 x 1 = 0.001; charged before: 0.011" in text
    assert "corrected from the exporter's history, within" in text
    assert "reconciled with the exporter's history" in text


def test_another_price_is_told_with_its_reason(story: Story) -> None:
    """A re-rated charge shows what it cost before, and the difference."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    minute = story.minute((stream, 10, 0))
    story.collect()
    story.price = Decimal("0.003")
    order = Order(minute, minute + MINUTE, "v2", "the price list was wrong")
    rerate(story.context(), order)

    explanation = told(story, user)

    _, repriced = only_line(explanation, minute).entries
    assert (repriced.amount_delta, repriced.product) == (Decimal("-0.02"), Decimal("0.03"))
    text = text_of(explain_parts(explanation))
    assert "10 rated bytes are left of it: 10 x 0.003 x 1 = 0.03; charged before: 0.01" in text
    assert "reason: the price list was wrong" in text
    assert "amount -0.020000000 by pricing rule v2" in text


def test_what_another_writer_charged_is_told_as_such(story: Story) -> None:
    """A ledger row without our evidence is shown beside the minute's own."""
    user = story.add_user()
    stream = story.add_node("jp-1").add_stream(user.uuid, "xhttp")
    story.minute()
    minute = story.minute((stream, 1, 1))
    story.connection.execute(
        "INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end,"
        " entry_type, rated_bytes, amount_delta, balance_after)"
        " VALUES (gen_random_uuid(), %(user)s, %(minute)s, %(minute)s, 'gift', 0, 0.25, 0)",
        {"user": user.uuid, "minute": minute},
    )
    story.books = read_books(story.connection)
    story.collect()

    (told_minute,) = told(story, user).minutes

    (foreign,) = told_minute.foreign
    assert (foreign.entry_type, foreign.amount_delta) == ("gift", Decimal("0.25"))
    assert "another writer's ledger entry" in text_of(explain_parts(told(story, user)))


def test_figures_of_another_writer_may_be_null(story: Story) -> None:
    """They count as 0, where the columns of a deployment allow it."""
    user = story.add_user()
    minute = story.minute((story.add_node("jp-1").add_stream(user.uuid, "xhttp"), 1, 1))
    for table, column in (
        ("billing_ledger", "rated_bytes"),
        ("billing_ledger", "amount_delta"),
        ("traffic_minute_buckets", "uplink_bytes"),
        ("traffic_minute_buckets", "downlink_bytes"),
        ("traffic_minute_buckets", "total_bytes"),
    ):
        statement = f"ALTER TABLE public.{table} ALTER {column} DROP NOT NULL"
        story.connection.execute(statement.encode())
    story.connection.execute(
        "INSERT INTO public.billing_ledger (id, account_uuid, bucket_start, bucket_end,"
        " entry_type, rated_bytes, amount_delta, balance_after)"
        " VALUES (gen_random_uuid(), %(user)s, %(minute)s, %(minute)s, 'gift', NULL, NULL, 0)",
        {"user": user.uuid, "minute": minute},
    )
    story.connection.execute(
        "INSERT INTO public.traffic_minute_buckets (bucket_start, node_id, account_uuid,"
        " uplink_bytes, downlink_bytes, total_bytes) VALUES (%s, %s, %s, NULL, NULL, NULL)",
        [minute, NODE, user.uuid],
    )

    explanation = told(story, user)

    (told_minute,) = explanation.minutes
    (foreign,) = told_minute.foreign
    assert (foreign.rated_bytes, foreign.amount_delta) == (0, 0)
    text = text_of(explain_parts(explanation))
    assert "gift, 0 rated bytes, amount 0" in text
    assert "bucket: 0 up + 0 down = 0 bytes" in text
    # The check of the invariants at the end adds up numbers.
    story.connection.execute("DELETE FROM public.traffic_minute_buckets")
    story.connection.execute("DELETE FROM public.billing_ledger")


def test_charges_of_a_stream_that_another_account_has_now_are_summed(story: Story) -> None:
    """They stay with the account that was charged; its buckets tell of which minutes they are."""
    user, later = story.add_user(), story.add_user()
    stream = story.add_node("jp-1").add_stream(user.proxy_uuid, "xhttp")
    story.minute()
    story.minute((stream, 10, 30))
    story.collect()
    give = "UPDATE public.users SET proxy_uuid = %s WHERE uuid = %s"
    story.connection.execute(give, (story.fleet.new_uuid(), user.uuid))
    story.connection.execute(give, (user.proxy_uuid, later.uuid))
    story.minute((stream, 1, 2))
    story.collect()
    totals = explanation_object(told(story, user))["totals"]
    assert (totals["rated_bytes"], totals["closing_balance"]) == (40, "4.960000000")
