"""Logging to stderr: one line an event, with its run and job, and without secrets.

A log line never stops a run: where stderr is closed or its reader is gone, logging falls silent.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import partialmethod
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from billing_cli.config.redaction import redact, register_secret
from billing_cli.printable import printable

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["bind_run", "bound_source", "configure", "get_logger", "level", "register_secret"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FIRST_KEYS = ("timestamp", "level", "event", "job", "run_id", "source")
MAX_DEPTH = 6
MAX_NUMBER_BITS = 128

# What worker threads inherit: a context variable that is set in one thread is unknown in another.
_run: dict[str, str] = {}
_level: list[str] = []


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Send every event from `level` on to the stream (stderr), and forget the bound run.

    `auto` is the coloured console on a terminal and JSON lines elsewhere. What libraries log
    through the standard library joins in from warning on; below that their events are dropped.
    """
    stream = sys.stderr if stream is None else stream
    sink = _LineSink(stream)
    on_terminal = _is_terminal(stream)
    is_console = {"auto": on_terminal, "console": True, "json": False}[log_format]
    structlog.contextvars.clear_contextvars()
    _run.clear()
    _level[:] = [level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_run,
            _traceback if level == "debug" else _exception_in_one_line,
            _redacted,
            # From here on nothing comes from outside, so that no secret can look like a stamp.
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderers(is_console=is_console, colors=on_terminal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    _bridge_standard_library()


def level() -> str:
    """Return the level that is configured; before that, it is `info`."""
    return _level[0] if _level else "info"


def bind_run(run_id: str, job: str) -> None:
    """Put the run and its job on every line from now on, whichever thread writes it."""
    structlog.contextvars.bind_contextvars(run_id=run_id, job=job)
    _run.update(run_id=run_id, job=job)


def bound_source(source_id: str) -> AbstractContextManager[None]:
    """Put the source on every line that this thread writes within the `with` block."""
    return structlog.contextvars.bound_contextvars(source=source_id)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """Return a logger that follows whatever is configured when it is used."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


class _LineSink:
    """Writes lines, each whole, until the stream has no reader."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._for_journal = _is_journal(stream)

    def msg(self, priority: int, line: str) -> None:
        with self._lock:
            if self._stream is None:
                return
            try:
                # The journal takes the number off again, and can be asked for warnings by it.
                prefix = f"<{priority}>" if self._for_journal else ""
                self._stream.write(f"{prefix}{line}\n")
                self._stream.flush()
            except BlockingIOError:
                pass  # A full pipe is not waited for: this line is lost, the next may not be.
            except (OSError, ValueError):
                # The reader is gone, the disk is full, or it was closed.
                _discard_rest(self._stream)
                self._stream = None

    debug = partialmethod(msg, 7)
    info = partialmethod(msg, 6)
    warning = partialmethod(msg, 4)
    error = partialmethod(msg, 3)
    critical = partialmethod(msg, 2)


class _Bridge(logging.Handler):
    """Hands records of the standard library over, so that they are redacted like our own."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - someone else's arguments do not fit their format
            message = str(record.msg)
        logger = get_logger()
        write = logger.error if record.levelno >= logging.ERROR else logger.warning
        write(message, logger=record.name, exc_info=record.exc_info)


def _bridge_standard_library() -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge(logging.WARNING))
    root.setLevel(logging.WARNING)


def _renderers(*, is_console: bool, colors: bool) -> list[Processor]:
    if not is_console:
        return [_in_reading_order, structlog.processors.JSONRenderer()]
    return [
        _printable,
        structlog.dev.ConsoleRenderer(
            colors=colors and not os.environ.get("NO_COLOR"),
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _add_run(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {**_run, **event}


def _exception_in_one_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = _exception_of(event.pop("exc_info", None))
    if error is not None:
        # Masked before its white space is: a secret may hold some.
        words = redact(_text(error)).split()
        event["raised"] = " ".join([f"{type(error).__name__}:", *words])
    return event


def _traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = _exception_of(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = "".join(traceback.format_exception(error)).rstrip()
    return event


def _exception_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        _, error, _ = exc_info
        return error if isinstance(error, BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _redacted(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {redact(key): _plain(value) for key, value in event.items()}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return the value as JSON can hold it, without secrets, however deep they sit."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        return {redact(_text(key)): _plain(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return [_plain(part, depth + 1) for part in value]
    text = _text(value)
    masked = redact(text)
    # Not every number can stand in JSON: NaN, infinity and endless integers become texts.
    is_number = (isinstance(value, float) and math.isfinite(value)) or (
        isinstance(value, int) and value.bit_length() <= MAX_NUMBER_BITS
    )
    return value if is_number and masked == text else masked


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - whatever a value's own code does, the line goes on
        return f"<{type(value).__name__} without a text>"


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # What an exporter sends must not move the cursor, colour the terminal or forge a line.
    return {
        key: printable(value, keep="\n" if key == "exception" else "")
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def _in_reading_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: event[key] for key in FIRST_KEYS if key in event} | dict(event)


def _discard_rest(stream: TextIO) -> None:
    """Let what the stream still holds go nowhere, so that flushing it fails nothing at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_journal(stream: TextIO | None) -> bool:
    """Return whether systemd reads the stream into its journal, and it was not redirected since."""
    if stream is None or "JOURNAL_STREAM" not in os.environ:
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ["JOURNAL_STREAM"] == f"{status.st_dev}:{status.st_ino}"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False
