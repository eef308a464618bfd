"""`billing status` as a process: what it prints, on a terminal and elsewhere, and how it ends."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from billing_cli.errors import EXIT_PARTIAL, EXIT_SIGNAL_BASE, EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.story import Story

ESCAPE = "\x1b["

# The clock of a process is the real one, so a story of 2026 is long ago, or still to come.
ANY_LAG = ("--max-lag", "1e12")


@pytest.fixture
def billed(story: Story) -> Story:
    """Return a story with one source that is well."""
    stream = story.add_node("jp-1").add_stream(story.add_user().uuid, "xhttp")
    story.minute()
    story.minute((stream, 40, 60))
    story.collect()
    return story


def test_all_is_well(billed: Story) -> None:
    """Exit 0, a table of sources and one of runs, and no colour in a pipe."""
    shown = billed.billing("status", *ANY_LAG)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("status: ok\n")
    row = r"^jp-1 +ok +prod:jp-1\.svc\.plus +window +2026-04-08T12:01:00Z "
    assert re.search(row, shown.stdout, re.MULTILINE)
    assert re.search(r"^today \(\d{4}-\d\d-\d\d UTC\): .* billed", shown.stdout, re.MULTILINE)
    assert re.search(r"^2026-04-08T12:02:40Z +collect +ok ", shown.stdout, re.MULTILINE)
    assert ESCAPE not in shown.stdout


def test_a_source_that_needs_a_look_decides_the_exit_code(billed: Story) -> None:
    """3, with the reason above the table; the JSON says the same."""
    billed.running["jp-1"].status = 503
    billed.minute()
    billed.collect()
    shown = billed.billing("status", *ANY_LAG)
    assert shown.exit_code == EXIT_PARTIAL
    assert re.search(r"^jp-1 +failed ", shown.stdout, re.MULTILINE)
    assert re.search(r"^failed: jp-1: last attempt failed: .*503", shown.stdout, re.MULTILINE)
    told = billed.billing("status", *ANY_LAG, "--json")
    assert (told.exit_code, told.json["status"]) == (EXIT_PARTIAL, "attention")


def test_json_is_one_object(billed: Story) -> None:
    """With all that the table shows, in full."""
    told = billed.billing("status", *ANY_LAG, "--json")
    (source,) = told.json["sources"]
    assert (source["contract"], source["held_deltas"], source["gaps"]) == ("window", 0, {})
    assert source["last_succeeded_at"] == "2026-04-08T12:02:40Z"
    assert (told.json["severity"], told.json["findings"]) == ("ok", [])
    assert source["last_hour"] is None or len(source["last_hour"]["charged_bytes"]) == 12
    assert told.json["today"].keys() == {
        "since", "billed_bytes", "included_bytes", "charged_bytes", "amount"
    }  # fmt: skip
    assert [run["job"] for run in told.json["runs"]] == ["collect"]


@pytest.mark.parametrize("arguments", [("--watch",), ("--watch", "2", "--json")])
def test_watching_needs_a_terminal(billed: Story, arguments: tuple[str, ...]) -> None:
    """In a pipe nobody would ever end it."""
    shown = billed.billing("status", *arguments)
    assert shown.exit_code == EXIT_USAGE
    assert "--watch needs a terminal" in (shown.stderr or shown.json["error"]["message"])


def test_watching_shows_it_again_until_a_signal_comes(billed: Story) -> None:
    """Each time as it is then, in place; Ctrl-C is its end, and no error."""
    arguments = ("status", *ANY_LAG, "--watch", "0.1")
    with on_terminal(billed, *arguments, NO_COLOR="1") as (process, read):
        assert "jp-1" in read("today")
        billed.connection.execute(
            "UPDATE public.billing_source_sync_state SET last_error = 'planted'"
        )
        assert "jp-1: last attempt failed: planted" in read("failed: planted")
        process.send_signal(signal.SIGINT)
        assert "Error" not in read()
        assert process.wait() == EXIT_SIGNAL_BASE + signal.SIGINT


def test_watching_goes_on_while_the_database_is_away(billed: Story) -> None:
    """Whoever watches a restart wants to see the end of it."""
    nowhere = "postgresql://127.0.0.1:1/none"
    arguments = ("status", "--watch", "0.1")
    with on_terminal(billed, *arguments, DATABASE_URL=nowhere) as (process, read):
        assert "Error: database: " in read("Error")
        assert "Error: database: " in read("Error")
        process.send_signal(signal.SIGTERM)
        read()
        assert process.wait() == EXIT_SIGNAL_BASE + signal.SIGTERM


@contextmanager
def on_terminal(
    story: Story, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], Reader]]:
    """Run `billing` with a terminal for its stdout; yield the process and what reads from it."""
    ours, theirs = pty.openpty()
    kept = {
        name: value
        for name, value in os.environ.items()
        if "BILLING" not in name and name not in {"NO_COLOR", "COLUMNS"}
    }
    try:
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "billing_cli", *arguments],
            env={**kept, **story.environment(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            try:
                yield process, Reader(ours)
            finally:
                process.kill()
    finally:
        os.close(ours)


class Reader:
    """Reads what a process writes to its terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __call__(self, until: str | None = None) -> str:
        """Return what comes until a text has come, or until the process has closed its end."""
        found = ""
        while until is None or until not in found:
            ready, _, _ = select.select([self.descriptor], [], [], 60)
            assert ready, f"{until!r} did not come: {found}"
            try:
                part = os.read(self.descriptor, 65536)
            except OSError:
                # Linux has no end of file for terminals.
                break
            found += part.decode()
        return found.replace("\r\n", "\n")
