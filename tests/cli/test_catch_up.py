"""What operators and timers do with the command: sources, backlogs, ranges, terminals, shells."""

from __future__ import annotations

import gzip
import os
import pty
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from billing_cli.core.times import format_rfc3339
from billing_cli.simulator.wire import encode_snapshot
from tests.cli.command import PYTHON_PATH, command_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.command import Site

READ_WATERMARKS = "SELECT source_id, watermark FROM billing.sources ORDER BY source_id"


def test_a_backlog_is_caught_up_with_in_several_steps(site: Site) -> None:
    """One transaction each; the result is the sum of all of them."""
    site.has_two_nodes()
    site.extra |= {"BILLING_STEP_MAX_SAMPLES": "8", "BILLING_PAGE_LIMIT": "2"}
    finished = site.billing("catch-up", "--json")
    assert finished.code == 0
    assert finished.result["steps"] > 3
    assert finished.result["processed_samples"] == 2 * 2 * 9
    assert [one["snapshots"] for one in finished.result["sources"]] == [9, 9]
    transactions = "SELECT count(DISTINCT xmin::text) > 3 FROM public.billing_ledger"
    assert site.world.rows(transactions) == [(True,)]
    site.world.assert_all_is_billed()


def test_until_ends_a_catch_up_early(site: Site) -> None:
    """Exclusive, and cut to a whole minute."""
    site.has_two_nodes()
    until = site.world.at(5) + timedelta(seconds=59)
    assert site.billing("catch-up", "--until", format_rfc3339(until)).code == 0
    site.world.check()
    assert {at.minute for _, at in site.world.rows(READ_WATERMARKS)} == {site.world.at(4).minute}
    assert site.billing("catch-up").code == 0
    site.world.assert_all_is_billed()


def test_since_is_where_a_source_begins_that_was_never_collected(site: Site) -> None:
    """The first snapshot from then on is the baseline; what lies before is not charged."""
    site.has_two_nodes()
    since = format_rfc3339(site.world.at(4))
    site.billing("catch-up", "--since", since, "--source", "jp-1")
    first = site.world.rows("SELECT min(first_snapshot_at) >= %s FROM billing.sources",
                            site.world.at(4))  # fmt: skip
    assert first == [(True,)]
    before = site.world.billed_bytes()
    assert before[0] > 0
    earlier = format_rfc3339(site.world.at(1))
    finished = site.billing("catch-up", "--since", earlier, "--source", "jp-1", "--json")
    assert (finished.code, finished.result["status"]) == (0, "ok")
    (note,) = finished.source("jp-1")["notes"]
    assert note.startswith("--since is ignored: the source goes on from its watermark; ")
    assert site.world.billed_bytes() == before


@pytest.mark.parametrize("job", ["catch-up", "reconcile"])
def test_a_beginning_in_the_future_is_a_usage_error(site: Site, job: str) -> None:
    """Nothing could be meant by it."""
    site.has_two_nodes()
    finished = site.billing(job, "--since", "2999-01-01T00:00:00Z")
    assert finished.code == 2
    assert finished.stderr.startswith("Error: --since is in the future: it is 2")


def test_a_file_takes_the_place_of_the_exporters(site: Site, tmp_path: Path) -> None:
    """Each of the three jobs reads it, and asks nobody; - is stdin."""
    site.has_two_nodes()
    content = b"\n".join(
        encode_snapshot(node, snapshot)
        for node in site.world.fleet.nodes.values()
        for snapshot in node.snapshots
    )
    (tmp_path / "shipped.gz").write_bytes(gzip.compress(content))
    path = str(tmp_path / "shipped.gz")
    assert site.billing("collect", "--source", "jp-1", "--from-file", path).code == 0
    finished = site.billing("catch-up", "--from-file", "-", "--json", stdin=content)
    assert (finished.code, finished.source("us-1")["status"]) == (0, "ok")
    assert site.billing("reconcile", "--from-file", path, "--json").result["corrections"] == 0
    assert [site.world.running[one].requests for one in ("jp-1", "us-1")] == [[], []]
    site.world.assert_all_is_billed()
    (tmp_path / "broken").write_bytes(content[:-5])
    failed = site.billing("collect", "--from-file", str(tmp_path / "broken"), "--json")
    assert failed.code == 1
    assert failed.result["error"]["code"] == "file"
    assert "ends within value" in failed.result["error"]["message"]


def test_source_selects(site: Site) -> None:
    """Once or more often; nobody else is asked."""
    site.has_two_nodes()
    assert site.billing("collect", "--source", "us-1").code == 0
    assert site.world.running["jp-1"].requests == []
    assert [source_id for source_id, _ in site.world.rows(READ_WATERMARKS)] == ["us-1"]
    finished = site.billing("collect", "--source", "us-1", "--source", "jp-1", "--json")
    assert [one["source_id"] for one in finished.result["sources"]] == ["jp-1", "us-1"]
    site.world.assert_all_is_billed()


@pytest.mark.parametrize("job", ["collect", "catch-up"])
def test_neither_directory_nor_input_matters(site: Site, job: str) -> None:
    """Started in / with its standard input closed, as some supervisors do."""
    site.has_two_nodes()
    finished = subprocess.run(  # noqa: S603 - our own command, through a shell that closes its input
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command_line(job, "--json")],
        cwd="/",
        env={**PYTHON_PATH, **site.environment},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished
    site.world.assert_all_is_billed()


def test_a_terminal_sees_a_progress_bar(site: Site) -> None:
    """On stderr, up to 100 %; the result stands on stdout as ever."""
    site.has_two_nodes()
    site.extra |= {"BILLING_STEP_MAX_SAMPLES": "8", "BILLING_PAGE_LIMIT": "2", "TERM": "xterm"}
    stdout, screen = on_a_terminal(site, "catch-up")
    assert "catching up" in screen
    assert "100%" in screen
    assert stdout.startswith("catch-up: ok - ")


def test_no_terminal_sees_no_progress_bar(site: Site) -> None:
    """Log files stay readable; and with --json a terminal sees none either."""
    site.has_two_nodes()
    assert "catching" not in site.billing("catch-up").stderr
    site.extra["TERM"] = "xterm"
    _, screen = on_a_terminal(site, "catch-up", "--json")
    assert "catching" not in screen


def test_the_shell_completes_commands_and_options(tmp_path: Path) -> None:
    """The script that bash sources, and what it asks for then."""
    environment = {**PYTHON_PATH, "PATH": os.environ["PATH"]}
    script = complete(environment | {"_BILLING_COMPLETE": "bash_source"})
    assert "complete -o nosort -F _billing_completion billing" in script
    program = tmp_path / "billing"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m billing_cli "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(script)
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    shell = (
        f"source {tmp_path}/script; COMP_WORDS=(billing c); COMP_CWORD=1; "
        '_billing_completion billing c billing; echo "${COMPREPLY[@]}"'
    )
    finished = subprocess.run(  # noqa: S603 - our own words
        ["/bin/bash", "--norc", "-c", shell],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"collect", "catch-up"} <= set(finished.stdout.split())
    asked = {"_BILLING_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    options = complete(environment | asked | {"COMP_WORDS": "billing collect --"})
    assert {"plain,--source", "plain,--dry-run", "plain,--json"} <= set(options.split())


def complete(environment: dict[str, str]) -> str:
    """Return what the command says to the shell's completion."""
    return subprocess.run(  # noqa: S603 - our own command
        command_line(),
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def on_a_terminal(site: Site, *arguments: str) -> tuple[str, str]:
    """Run the command with a terminal as its stderr; return stdout and what the screen got."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(  # noqa: S603 - our own command
        command_line(*arguments),
        env={**PYTHON_PATH, **site.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while piece := os.read(screen, 4096):
                shown += piece
        except OSError:
            pass  # How a terminal says that nobody has it open any more.
        os.close(screen)
        stdout, _ = process.communicate()
    assert process.returncode == 0, shown
    return stdout.decode(), shown.decode()
