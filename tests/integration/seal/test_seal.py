"""`seal`: what was committed gets leaves, days that ended get theirs, and the head is signed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, RestrictViolation

from billing_cli.core.notes import format_verifier_key, parse_checkpoints
from billing_cli.errors import BillingError
from billing_cli.features.seal.job import seal
from billing_cli.features.statement.job import statement as make_statement
from billing_cli.jobs import write
from billing_cli.jobs.accounts import lock_accounts
from billing_cli.jobs.catch_up import catch_up
from billing_cli.jobs.collect import collect
from billing_cli.jobs.context import FetchPolicy
from billing_cli.signatures import generate_key
from tests.support.sealing import DAY, tamper

if TYPE_CHECKING:
    from pathlib import Path

    from billing_cli.jobs.context import JobContext
    from tests.support.sealing import Sealing
    from tests.support.story import Story

LEAVES = "SELECT leaf_number, job, records, charges FROM billing.seals ORDER BY leaf_number"


def grow(story: Story, minutes: int = 3) -> None:
    """Let two accounts move bytes on one node, and collect minute by minute."""
    node = story.fleet.nodes.get("jp-1") or story.add_node("jp-1")
    if not node.streams:
        for tag in ("a", "b"):
            node.add_stream(story.add_user().uuid, tag)
        story.minute()
        story.collect()
    for _ in range(minutes):
        story.minute(*((stream, 1_000, 2_000) for stream in node.streams))
        story.collect()


def test_each_committed_seal_becomes_a_leaf_once(story: Story, sealing: Sealing) -> None:
    """Running it again appends nothing, and gives the same checkpoint."""
    grow(story)
    first = sealing.seal()
    assert (first.tree_size, first.appended_seals) == (3, 3)
    assert [row[0] for row in story.rows(LEAVES)] == [0, 1, 2]
    assert sealing.seal().checkpoint == first.checkpoint
    grow(story, 1)
    second = sealing.seal()
    assert (second.tree_size, second.appended_seals) == (4, 1)
    kept = parse_checkpoints(sealing.file.read_text())
    assert [one.checkpoint.size for one in kept] == [3, 4]
    report = sealing.verify()
    assert report.findings == []
    assert (report.seals, report.records, report.charges, report.leaves) == (4, 8, 8, 4)


def test_a_day_gets_its_leaf_when_it_has_ended(story: Story, sealing: Sealing) -> None:
    """The day on which seals were appended, not the day of the minutes."""
    grow(story)
    sealing.seal()
    grow(story, 1)
    later = sealing.seal(DAY)
    assert (len(later.sealed_days), later.tree_size) == (1, 5)
    assert story.rows("SELECT accounts, leaf_number FROM billing.sealed_days") == [(2, 3)]
    grow(story, 1)
    assert sealing.seal(3 * DAY).tree_size == 7
    report = sealing.verify()
    assert (report.findings, report.days) == ([], 2)


def test_a_run_over_midnight_books_everything_on_one_day(story: Story, sealing: Sealing) -> None:
    """The day that ends meanwhile gets its leaf before any seal of the next one."""
    grow(story)
    sealing.seal()
    grow(story, 1)
    before = story.now.replace(hour=23, minute=59, second=59, microsecond=900_000)
    readings = iter([before, before])
    over_midnight = replace(
        sealing.context(), clock=lambda: next(readings, before + timedelta(seconds=1))
    )
    assert seal(over_midnight, sealing.keys).appended_seals == 1
    grow(story, 1)
    assert len(sealing.seal(2 * DAY).sealed_days) == 1
    grow(story, 1)
    sealing.seal(4 * DAY)
    assert sealing.findings() == []


def test_no_collector_waits_for_a_seal(story: Story, sealing: Sealing) -> None:
    """Also not for one that has appended, and does not commit; its run follows the next time."""
    grow(story)
    story.lock_timeout_seconds = 1
    with psycopg.connect(sealing.seal_url) as other:
        other.execute("SELECT FROM billing.log_head FOR UPDATE")
        other.execute("UPDATE billing.seals SET leaf_number = random() * 1e9, appended_at = now()")
        grow(story, 1)
        other.rollback()
    assert sealing.seal().appended_seals == 4


def test_the_role_of_the_jobs_can_not_append(story: Story, sealing: Sealing) -> None:
    """It writes seals, and neither their leaf numbers nor the log."""
    grow(story, 1)
    for statement in (
        "UPDATE billing.seals SET leaf_number = 0, appended_at = now()",
        "UPDATE billing.log_head SET tree_size = 1",
        "INSERT INTO billing.tree_nodes VALUES (0, 0, 0, '')",
        "INSERT INTO billing.sealed_days VALUES (now(), 0, '', '', 0, now())",
        "INSERT INTO billing.seals (run_id, step, leaf_number) VALUES (gen_random_uuid(), 1, 7)",
    ):
        with psycopg.connect(story.job_url) as jobs, pytest.raises(InsufficientPrivilege):
            jobs.execute(statement)
    with psycopg.connect(sealing.seal_url) as sealer, pytest.raises(InsufficientPrivilege):
        sealer.execute("UPDATE billing.seals SET records = 0")


def test_seals_and_leaves_are_append_only(story: Story, sealing: Sealing) -> None:
    """For their owner too: a seal gets its leaf number once, and nothing else ever changes."""
    grow(story, 1)
    sealing.seal()
    for statement in (
        "DELETE FROM billing.seals",
        "UPDATE billing.seals SET records = 0",
        "UPDATE billing.seals SET leaf_number = 5",
        "TRUNCATE billing.seals",
        "DELETE FROM billing.tree_nodes",
        "UPDATE billing.sealed_days SET accounts = 0",
        "UPDATE billing.day_leaves SET salt = ''",
    ):
        with pytest.raises(RestrictViolation):
            story.connection.execute(statement.encode())


def test_a_seal_covers_each_transaction_of_a_run(story: Story, sealing: Sealing) -> None:
    """Each step of a catch-up has a seal, and each of a rerate."""
    grow(story, 1)
    (node,) = story.fleet.nodes.values()
    for _ in range(4):
        story.minute(*((stream, 1_000, 2_000) for stream in node.streams))
    context = replace(story.context(), job="catch-up", fetching=FetchPolicy(step_max_samples=4))
    done = catch_up(context)
    query = "SELECT step, job, records, charges FROM billing.seals WHERE run_id = %s ORDER BY step"
    seals = story.rows(query, context.run_id)
    assert [seal[0] for seal in seals] == list(range(1, len(seals) + 1))
    assert 1 < len(seals) <= done.steps
    assert sum(seal[2] for seal in seals) == sum(seal[3] for seal in seals) == 8
    assert {seal[1] for seal in seals} == {"catch-up"}
    sealing.seal()


def test_nothing_is_signed_that_does_not_continue_what_is_kept(
    story: Story, sealing: Sealing
) -> None:
    """A log that was truncated or rewritten is noticed by whoever signs it."""
    grow(story)
    sealing.seal()
    kept = sealing.file.read_bytes()
    tamper(
        story.database_url,
        "DELETE FROM billing.tree_nodes",
        "UPDATE billing.seals SET leaf_number = NULL, appended_at = NULL",
        "UPDATE billing.log_head SET tree_size = 0, note = NULL",
    )
    with pytest.raises(BillingError, match="newest checkpoint that is kept has 3"):
        sealing.seal()
    assert sealing.file.read_bytes() == kept
    sealing.file.unlink()
    sealing.seal()


def test_another_key_signs_the_same_head(story: Story, sealing: Sealing) -> None:
    """After a rotation; both public keys verify what was kept."""
    grow(story, 1)
    sealing.seal()
    sealing.keys = generate_key("example.com/billing")
    assert sealing.seal().appended_seals == 0
    kept = parse_checkpoints(sealing.file.read_text())
    assert [one.checkpoint.size for one in kept] == [1, 1]
    assert {finding.kind for finding in sealing.findings()} == {"signature"}
    with sealing.key_file.open("a") as file:
        file.write(format_verifier_key(sealing.keys[1]) + "\n")
    assert sealing.findings() == []


def test_after_a_theft_the_old_key_vouches_only_for_what_was_kept_before(
    story: Story, sealing: Sealing, tmp_path: Path
) -> None:
    """As the page says: what the thief signs later is refused, and the log goes on."""
    grow(story, 1)
    sealing.seal()
    before, old = tmp_path / "before", sealing.key_file
    shutil.copy(sealing.file, before)
    thief = sealing.keys
    sealing.keys = generate_key("example.com/billing")
    new = tmp_path / "new.pub"
    new.write_text(format_verifier_key(sealing.keys[1]) + "\n")
    sealing.seal()
    grow(story, 1)
    sealing.seal()
    later = tmp_path / "later"
    later.write_text("\n".join(re.split(r"\n\n(?=example)", sealing.file.read_text())[1:]))
    assert sealing.findings(checkpoint_files=[before], key_files=[old, new]) == []
    assert sealing.findings(checkpoint_files=[later], key_files=[new]) == []
    sealing.keys = thief
    seal(sealing.context(), thief, kept=None)
    forged = sealing.findings(checkpoint_files=[later], key_files=[new])
    assert [(finding.kind, finding.table) for finding in forged] == [
        ("signature", "billing.log_head")
    ]


def test_leaves_are_in_the_order_in_which_balances_were_passed_on(
    story: Story, sealing: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a run that began first waited for the account of one that began later."""
    user = story.add_user()
    first, second = (story.add_node(name).add_stream(user.uuid, name) for name in ("jp-1", "us-1"))
    story.minute()
    story.collect()
    story.minute((first, 1_000, 2_000), (second, 2_000, 3_000))
    run_ids = []

    def overtaken(context: JobContext, *arguments: Any, **options: Any) -> Any:
        run_ids.append(context.run_id)
        if len(run_ids) == 1:
            collect(story.context(), ["us-1"])
        return lock_accounts(context, *arguments, **options)

    monkeypatch.setattr(write, "lock_accounts", overtaken)
    collect(story.context(), ["jp-1"])
    sealing.seal()
    found = story.rows("SELECT run_id::text FROM billing.seals ORDER BY leaf_number")
    assert [run_id for (run_id,) in found] == run_ids[::-1]
    later = replace(story.context(), clock=lambda: story.now + 40 * DAY)
    made = make_statement(later, user.uuid, story.now.date())
    assert [one["kind"] for one in made["other_entries"]] == ["initial_balance"]
    assert float(made["closing_balance"]) == float(story.funds(user).balance)
    assert made["days"][0]["balance_after"] == made["closing_balance"]
