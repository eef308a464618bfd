"""What a log line may hold: no secret, no traceback, no control character."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from billing_cli import logs
from tests.unit.config.support import fail, json_stream, logged

SECRET = "m4rk3r-s3cr3t"


class Holder:
    """Something with a secret in its repr."""

    def __repr__(self) -> str:
        return f"Holder(token={SECRET})"


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"Authorization: Bearer {SECRET}",
        [SECRET],
        (SECRET, {"deep": [{"deeper": {SECRET}}]}),
        {SECRET: 1},
        SECRET.encode(),
        ValueError(SECRET),
        Holder(),
        [[[[[[[[[[SECRET]]]]]]]]]],
    ],
)
def test_a_secret_is_masked_wherever_it_sits(value: Any, log_format: Any) -> None:
    """In texts, lists, keys, bytes, exceptions and the reprs of objects."""
    stream = io.StringIO()
    logs.configure("debug", log_format, stream)
    logs.register_secret(SECRET)
    logs.get_logger().info(f"with {SECRET}", value=value)
    assert SECRET not in stream.getvalue()
    assert stream.getvalue().count("***") >= 2


@pytest.mark.parametrize("secret", ["sl\\ash", 'quo"te', "ap'os", "l\u00e4nge", "12345"])
def test_a_secret_is_masked_in_whatever_way_it_is_escaped(secret: str) -> None:
    """Reprs double a backslash; numbers are texts too."""
    stream = json_stream()
    logs.register_secret(secret)
    logs.get_logger().info(secret, shown=repr(secret), deep=[secret], number=12345)
    text = stream.getvalue()
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
        if form != "12345":
            assert form not in text
    (line,) = logged(stream)
    assert line["event"] == "***"
    assert line["number"] == ("***" if secret == "12345" else 12345)


def test_the_longer_secret_is_masked_first() -> None:
    """A secret within another one leaves no rest of it."""
    stream = json_stream()
    logs.register_secret("pass")
    logs.register_secret("postgresql://u:pass@db/account")
    logs.get_logger().info("at postgresql://u:pass@db/account")
    assert logged(stream)[0]["event"] == "at ***"


@pytest.mark.parametrize("nothing", ["", "  ", "\n"])
def test_an_empty_secret_masks_nothing(nothing: str) -> None:
    """A variable that is set to nothing does not turn the log into stars."""
    stream = json_stream()
    logs.register_secret(nothing)
    logs.get_logger().info("two words")
    assert logged(stream)[0]["event"] == "two words"


def test_a_secret_never_reaches_time_and_level() -> None:
    """A secret that looks like a level does not make lines unreadable for machines."""
    stream = json_stream()
    logs.register_secret("info")
    logs.register_secret("2")
    logs.get_logger().info("info 2")
    (line,) = logged(stream)
    assert line["level"] == "info"
    assert line["timestamp"].startswith("2")
    assert line["event"] == "*** ***"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_exception_is_one_line(log_format: Any) -> None:
    """Above debug, an exception is its class and its words."""
    stream = io.StringIO()
    logs.configure("info", log_format, stream)
    logs.register_secret(SECRET)
    try:
        fail(ValueError(f"first\nsecond {SECRET}"))
    except ValueError:
        logs.get_logger().exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: first second ***" in line
    assert "Traceback" not in line


def test_a_secret_with_white_space_is_masked_in_that_line() -> None:
    """Joining the words of an exception does not hide a secret from the mask."""
    stream = json_stream()
    logs.register_secret("two  words")
    try:
        fail(ValueError("it is two  words"))
    except ValueError:
        logs.get_logger().exception("failed")
    assert logged(stream)[0]["raised"] == "ValueError: it is ***"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_is_shown_at_debug_without_secrets(log_format: Any) -> None:
    """At debug, the traceback is there with its causes, masked."""
    stream = io.StringIO()
    logs.configure("debug", log_format, stream)
    logs.register_secret(SECRET)
    try:
        fail(ValueError(f"about {SECRET}"), cause=KeyError(SECRET))
    except ValueError as error:
        logs.get_logger().error("failed", exc_info=error)
    assert "Traceback" in stream.getvalue()
    assert "KeyError" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_libraries_join_in_from_warning_on() -> None:
    """What a library logs is one of our lines: with the run, without secrets, and not below."""
    stream = json_stream("debug")
    logs.bind_run("run-7", "collect")
    logs.register_secret(SECRET)
    library = logging.getLogger("somelibrary.pool")
    library.debug("header %s", SECRET)
    library.info("header %s", SECRET)
    library.warning("retrying with %s", SECRET)
    library.error("100%% wrong: %s", SECRET)
    first, second = logged(stream)
    assert first["event"] == "retrying with ***"
    assert first["logger"] == "somelibrary.pool"
    assert first["run_id"] == "run-7"
    assert second["level"] == "error"
    assert second["event"] == "100% wrong: ***"


def test_an_exception_of_a_library_is_one_line() -> None:
    """The same rules hold for the exceptions that libraries log."""
    stream = json_stream()
    logs.register_secret(SECRET)
    try:
        fail(OSError(f"refused {SECRET}"))
    except OSError:
        logging.getLogger("psycopg").exception("connection lost")
    assert logged(stream)[0]["raised"] == "OSError: refused ***"


def test_hostile_text_can_neither_forge_a_line_nor_move_the_cursor() -> None:
    """Control characters show up escaped, on the console as in JSON."""
    hostile = "name\n2026 [error] forged\x1b[2J\r\x00\x9b\ud800"
    for log_format in ("console", "json"):
        stream = io.StringIO()
        logs.configure("info", log_format, stream)
        logs.get_logger().info(hostile, node_id=hostile, nested=[hostile])
        (line,) = stream.getvalue().split("\n")[:-1]
        assert line.isprintable()
        assert "\\x1b" in line or "\\u001b" in line
