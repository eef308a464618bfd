"""A node that invents streams: its source fails, nothing of it is stored, the others go on."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from billing_cli.core.model import DeltaPolicy
from billing_cli.features.sources.accept import accept_source
from billing_cli.jobs.collect import collect
from tests.integration.attacks.hostile import MINUTE, START, Attack, Node, only

if TYPE_CHECKING:
    from datetime import datetime

WHY = "a new tag for each device"


def publish_tags(attack: Attack, count: int, user: str | None = None) -> tuple[Node, datetime]:
    """Publish a baseline, and then so many tags of one user."""
    node, user = attack.node(), user or attack.users()[0]
    node.snapshots[START] = [(user, "tcp", 0)]
    node.snapshots[START + MINUTE] = [(user, f"tag-{tag}", 1000) for tag in range(count)]
    return node, START + MINUTE


def test_twenty_thousand_tags_of_a_user_are_not_stored(attack: Attack) -> None:
    """The source says which limit, and for whom; its watermark stays."""
    (user,) = attack.users()
    _, end = publish_tags(attack, 20_000, user)
    source = only(attack.run(end))
    assert (source.status, source.error_code) == ("error", "too_many_streams")
    assert source.error is not None
    assert (
        f"20001 streams of account {user}, more than max_streams_per_account (200)" in source.error
    )
    assert (source.last_completed_until, attack.count("billing.streams")) == (None, 0)


def test_150_000_tags_on_first_contact_are_not_stored(attack: Attack) -> None:
    """A baseline charges nothing, and is limited too."""
    node, users = attack.node(), attack.users(1000)
    node.snapshots[START] = [(user, f"t{tag}", 64 * 10**12) for user in users for tag in range(150)]
    source = only(attack.run(START))
    assert source.error_code in {"too_many_streams", "too_large"}
    assert (attack.charged()[0], attack.count("billing.streams")) == (0, 0)


def test_random_uuids_every_minute_are_bounded_by_the_hour(attack: Attack) -> None:
    """However they are spread over runs; an honest node beside it is collected."""
    honest, (user,) = attack.node("us-1"), attack.users()
    node = attack.node()
    attack.policy = DeltaPolicy(max_unresolved_streams_per_hour=500)
    for minute in range(61):
        at = START + minute * MINUTE
        honest.snapshots[at] = [(user, "tcp", minute * 10)]
        node.snapshots[at] = [(str(uuid.uuid4()), "tcp", 10**9) for _ in range(20)]
    codes = set()
    for minute in range(0, 61, 5):
        result = attack.run(START + minute * MINUTE, collect)
        codes |= {source.error_code for source in result.sources if source.source_id == "jp-1"}
    assert codes == {None, "too_many_streams"}
    assert attack.count("billing.streams") <= 500 + 1
    assert attack.charged()[0] == 600


def test_the_limit_of_a_source_goes_before_that_of_all(attack: Attack) -> None:
    """0 is no limit."""
    node, end = publish_tags(attack, 300)
    node.limits["max_streams_per_account"] = 0
    assert only(attack.run(end)).status == "ok"
    assert attack.count("billing.streams") == 301


def test_one_run_passes_that_an_operator_accepted(attack: Attack) -> None:
    """It is used up with that run; a dry run of it lets nothing pass."""
    node, end = publish_tags(attack, 300)
    context = attack.context(end + MINUTE)
    assert accept_source(context, "jp-1", WHY, dry_run=True).status == "ok"
    assert only(attack.run(end)).error_code == "too_many_streams"
    assert accept_source(attack.context(end + MINUTE), "jp-1", WHY).status == "ok"
    assert only(attack.run(end)).error_code is None
    assert attack.count("billing.streams") == 301
    (row,) = attack.connection.execute(
        "SELECT accepted_at, accepted_reason, accepted_until FROM billing.sources"
    )
    assert row == (None, WHY, end)
    node.snapshots[end + MINUTE] = [*node.snapshots[end], *_more(node, end)]
    assert only(attack.run(end + MINUTE)).error_code == "too_many_streams"


def test_streams_that_were_accepted_do_not_count_for_the_hour_after(attack: Attack) -> None:
    """Else the next new user would block the source again."""
    attack.policy = DeltaPolicy(max_new_streams_per_hour=100)
    node, users = attack.node(), attack.users(151)
    node.snapshots[START] = [(user, "tcp", 0) for user in users[:150]]
    accept_source(attack.context(START + MINUTE), "jp-1", WHY)
    assert only(attack.run(START)).error_code is None
    node.snapshots[START + MINUTE] = [(user, "tcp", 5) for user in users]
    assert only(attack.run(START + MINUTE)).error_code is None


def test_successions_do_not_count(attack: Attack) -> None:
    """An exporter upgrade renames the counters of all users at once."""
    attack.policy = DeltaPolicy(max_new_streams_per_hour=60)
    node, users = attack.node(), attack.users(50)
    node.snapshots[START] = [(user, "tcp", 100) for user in users]
    node.snapshots[START + MINUTE] = [(user, "", 150) for user in users]
    node.snapshots[START + 2 * MINUTE] = [(user, "xhttp", 170) for user in users]
    source = only(attack.run(START + 2 * MINUTE))
    assert (source.error_code, source.successions) == (None, 100)
    node.snapshots[START + 3 * MINUTE] = [(user, "tls", 180) for user in users]
    assert only(attack.run(START + 3 * MINUTE)).error_code is None
    assert attack.charged()[0] == 50 * 80


def _more(node: Node, at: datetime) -> list[tuple[str, str, int]]:
    user = node.snapshots[at][0][0]
    return [(user, "another", 1)]
