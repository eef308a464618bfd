"""Logging: one line an event, with its run, without secrets, and never in a run's way."""

from __future__ import annotations

import contextvars
import io
import os
import subprocess
import sys
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from billing_cli import logs
from tests.unit.config.support import json_stream, logged

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Broken(io.StringIO):
    """A stream whose writes fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.attempts = 0

    def write(self, _text: str) -> NoReturn:
        """Fail, and count."""
        self.attempts += 1
        raise self.error


def test_a_line_holds_time_level_event_and_the_run() -> None:
    """Each line is one JSON object with a UTC time, in an order that reads well."""
    stream = json_stream()
    logs.bind_run("run-7", "collect")
    with logs.bound_source("jp-1"):
        logs.get_logger().info("source fetched", snapshots=3)
    logs.get_logger().warning("done")
    first, second = logged(stream)
    stamp = first.pop("timestamp")
    assert stamp.endswith("Z")
    assert datetime.fromisoformat(stamp).utcoffset() is not None
    assert first == {
        "level": "info",
        "event": "source fetched",
        "job": "collect",
        "run_id": "run-7",
        "source": "jp-1",
        "snapshots": 3,
    }
    assert list(first) == ["level", "event", "job", "run_id", "source", "snapshots"]
    assert second["level"] == "warning"
    assert "source" not in second


def test_lines_of_other_threads_hold_the_run_too() -> None:
    """A worker thread has a context of its own, and belongs to the run all the same."""
    stream = json_stream()
    logs.bind_run("run-7", "collect")
    context = contextvars.Context()
    thread = threading.Thread(target=lambda: context.run(logs.get_logger().info, "fetched"))
    thread.start()
    thread.join()
    (line,) = logged(stream)
    assert (line["run_id"], line["job"]) == ("run-7", "collect")


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_hides_what_is_below_it(level: str, seen: list[str]) -> None:
    """Levels rise from debug to error."""
    stream = json_stream(level)
    logger = logs.get_logger()
    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("event")
    assert [line["level"] for line in logged(stream)] == seen


def test_auto_is_console_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """People get colours, machines get JSON."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        logs.configure("info", "auto", stream)
        logs.get_logger().info("done", snapshots=3)
    assert "\x1b[" in terminal.getvalue()
    assert "snapshots" in terminal.getvalue()
    assert logged(pipe)[0]["event"] == "done"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR takes the colours from a terminal."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    logs.configure("info", "auto", stream)
    logs.get_logger().info("done")
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (BrokenPipeError(32, "Broken pipe"), 1),
        (OSError(28, "No space left on device"), 1),
        (ValueError("I/O operation on closed file"), 1),
        (BlockingIOError(11, "try again"), 2),
    ],
)
def test_a_stream_that_fails_stops_nothing(error: Exception, attempts: int) -> None:
    """Logging falls silent; a pipe that is only full is tried again."""
    stream = Broken(error)
    logs.configure("info", "json", stream)
    logs.get_logger().info("one")
    logs.get_logger().info("two")
    assert stream.attempts == attempts


@pytest.mark.parametrize("log_format", ["auto", "console", "json"])
def test_a_closed_or_missing_stream_stops_nothing(
    log_format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a stream that was closed nor a process without stderr is an error."""
    closed = io.StringIO()
    closed.close()
    logs.configure("info", log_format, closed)
    logs.get_logger().info("unheard")
    monkeypatch.setattr(sys, "stderr", None)
    logs.configure("info", log_format)
    logs.get_logger().info("unheard")


@pytest.mark.parametrize("how", ["pipe without reader", "closed"])
def test_a_process_ends_with_its_own_code_when_stderr_is_gone(how: str) -> None:
    """What could not be logged does not change the exit code."""
    program = (
        "import sys; from billing_cli import logs; logs.configure('info', 'auto');"
        "[logs.get_logger().info('x' * 1000) for _ in range(100)]; print('done'); sys.exit(3)"
    )
    command = [sys.executable, "-c", program]
    if how == "closed":
        command = ["/bin/sh", "-c", 'exec "$0" "$@" 2>&-', *command]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        finished = subprocess.run(  # noqa: S603 - our own program
            command, stdout=subprocess.PIPE, stderr=writer, check=False
        )
    finally:
        os.close(writer)
    assert finished.returncode == 3
    assert finished.stdout == b"done\n"


def test_the_journal_is_told_how_grave_a_line_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where systemd reads the stream, a number goes before each line; elsewhere none does."""
    path = tmp_path / "journal"
    for names_stream in (True, False):
        with path.open("w") as stream:
            status = os.fstat(stream.fileno())
            inode = status.st_ino if names_stream else status.st_ino + 1
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{inode}")
            logs.configure("debug", "json", stream)
            logger = logs.get_logger()
            for write in (logger.debug, logger.info, logger.warning, logger.error):
                write("told")
        prefixes = [line.partition("{")[0] for line in path.read_text("utf-8").splitlines()]
        assert prefixes == (["<7>", "<6>", "<4>", "<3>"] if names_stream else [""] * 4)
    logs.configure("info", "json", io.StringIO())
    logs.get_logger().info("a stream without a file is no journal")
