"""A `seal` that is interrupted leaves everything or nothing, and the next one completes it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from billing_cli.core.notes import format_signer_key, parse_checkpoints
from billing_cli.database.connecting import Database
from billing_cli.errors import EXIT_OUTPUT, BillingError
from billing_cli.features.seal.file import open_checkpoints
from billing_cli.features.seal.job import seal
from tests.integration.seal.test_seal import grow
from tests.support.relay import relayed
from tests.support.sealing import DAY

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from tests.support.relay import Relay, Severance, Side, Verdict
    from tests.support.sealing import Sealing
    from tests.support.story import Story

COUNT_LEAVES = "SELECT count(*) FROM billing.seals WHERE leaf_number IS NOT NULL"


VERDICTS: tuple[Verdict, ...] = ("cut", "cut after", "cut answer")


def seal_through(sealing: Sealing, relay: Relay, later: timedelta) -> None:
    """Seal some days later, by way of the relay."""
    context = replace(sealing.context(later), database=Database(relay.url))
    seal(context, sealing.keys)


def test_a_lost_connection_leaves_everything_or_nothing(story: Story, sealing: Sealing) -> None:
    """From each statement on, also while a day is sealed; nothing is appended twice."""
    grow(story, 1)
    sealing.seal()
    with relayed(sealing.seal_url) as relay:
        seal_through(sealing, relay, DAY)
        places = len(relay.statements)
    assert places > 15
    for place in range(places):
        grow(story, 1)
        verdict = VERDICTS[place % len(VERDICTS)]
        with relayed(sealing.seal_url) as relay:
            relay.judge = lambda number, _statement, cut_from=place, verdict=verdict: (
                verdict if number >= cut_from else None
            )
            with suppress(BillingError):
                seal_through(sealing, relay, place * DAY)
        sealing.seal(place * DAY)
    report = sealing.verify()
    assert (report.findings, report.waiting) == ([], 0)
    assert report.seals == places + 1


def command(sealing: Sealing, url: str) -> tuple[list[str], dict[str, str]]:
    """Return the command line that seals by way of a URL, and its environment."""
    key_file = sealing.file.with_name("key")
    key_file.write_text(format_signer_key(sealing.keys[0]) + "\n")
    arguments = ["seal", "--key-ref", f"file:{key_file}", "--to", str(sealing.file)]
    kept = {name: value for name, value in os.environ.items() if "BILLING" not in name}
    line = [sys.executable, "-m", "billing_cli", *arguments]
    return line, {**kept, "DATABASE_URL": url}


def test_a_process_killed_after_the_commit_is_completed_by_the_next(
    story: Story, sealing: Sealing
) -> None:
    """The log is sealed, and the file gets the checkpoint later."""
    grow(story)
    with relayed(sealing.seal_url) as relay:
        line, environment = command(sealing, relay.url)
        process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE)  # noqa: S603

        def kill_at_the_answer(side: Side, _number: int) -> Severance:
            is_sealing = any("tree_nodes" in statement for statement in relay.statements)
            if side == "server" and is_sealing and relay.statements[-1] == "COMMIT":
                process.kill()
                process.wait()
            return None

        relay.judge_message = kill_at_the_answer
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert sealing.file.read_text() == ""
    with psycopg.connect(sealing.seal_url) as connection:
        assert connection.execute(COUNT_LEAVES).fetchone() == (3,)
    assert sealing.seal().appended_seals == 0
    assert [
        checkpoint.checkpoint.size for checkpoint in parse_checkpoints(sealing.file.read_text())
    ] == [3]


def test_a_full_disk_leaves_the_file_as_it_was(story: Story, sealing: Sealing) -> None:
    """The log is sealed, which exit code 74 tells, and the file gets the checkpoint later."""
    grow(story, 1)
    sealing.seal()
    kept = sealing.file.read_bytes()
    grow(story, 1)
    line, environment = command(sealing, sealing.seal_url)
    limit = len(kept) + 50
    done = subprocess.run(  # noqa: S603
        line,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == EXIT_OUTPUT, done.stderr
    assert sealing.file.read_bytes() == kept
    # The command has the real clock, by which the day of the first leaf has ended.
    assert sealing.seal().appended_seals == 0
    assert [
        checkpoint.checkpoint.size for checkpoint in parse_checkpoints(sealing.file.read_text())
    ] == [1, 3]


def test_a_torn_checkpoint_is_cut_off(story: Story, sealing: Sealing, tmp_path: Path) -> None:
    """As a machine that lost power may leave it; what is no checkpoint is left alone."""
    grow(story, 1)
    sealing.seal()
    whole = sealing.file.read_bytes()
    torn = tmp_path / "torn"
    torn.write_bytes(whole + b"\nexample.com/billing\n7\n")
    with open_checkpoints(torn) as file:
        assert file.newest is not None
    assert torn.read_bytes() == whole
