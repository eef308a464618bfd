"""Standard output and error that never decide how a run ends.

A run that has committed has done its work, whatever becomes of what it says: a disk that is full,
a reader that is gone, a stream that was closed. Without this, the interpreter would find what it
can't flush at its end, and exit with 120.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STDIN, STDOUT, STDERR = range(3)


def guard_standard_streams() -> LossyFile:
    """Replace stdout and stderr by streams whose writes never fail; return stdout's file.

    What our parent closed is empty, or leads nowhere, from then on, so that no connection of ours
    takes the number of a stream: what a library then wrote to stderr would go to the database.
    """
    _open_what_is_closed()
    if sys.stdin is None:
        sys.stdin = open(STDIN, closefd=False)  # noqa: SIM115 - as the interpreter does
    stdout = LossyFile(STDOUT)
    sys.stdout = _text_stream(stdout, sys.stdout)
    # What can't be logged is dropped; a log never makes a run wait.
    sys.stderr = _text_stream(LossyFile(STDERR, is_waiting=False), sys.stderr)
    return stdout


def give_up_stdout(reason: str) -> None:
    """Write no more to stdout: what it has not taken yet is dropped, and counts as a failure."""
    file = _stdout_file()
    if file is not None and file.failure is None:
        file.failure = OSError(reason)


def require_stdout() -> None:
    """Let what stdout does not take count as a failure, also where its reader is gone.

    For the results of commands that change something; of a report, a reader may have seen enough.
    """
    file = _stdout_file()
    if file is not None:
        file.is_required = True


class LossyFile(io.FileIO):
    """A descriptor that takes everything, and remembers why it could not pass it on.

    `failure` is None as long as all of it was written; `is_required` is set by `require_stdout`.
    Where the descriptor is in non-blocking mode, `is_waiting` says whether a full pipe is waited
    for.
    """

    def __init__(self, descriptor: int, *, is_waiting: bool = True) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._is_waiting = is_waiting
        self.failure: OSError | None = None
        self.is_required = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what can be written; return how many bytes are dealt with."""
        size = memoryview(data).nbytes
        if self.failure is not None:
            return size
        try:
            written = super().write(data)
        except OSError as error:
            self.failure = error
            return size
        if written is None and self._is_waiting:
            select.select([], [self], [])
            return 0
        return size if written is None else written


def _stdout_file() -> LossyFile | None:
    """Return the file behind stdout; None where it was not guarded, as in tests."""
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return file if isinstance(file, LossyFile) else None


def _open_what_is_closed() -> None:
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _text_stream(file: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream like the one before, where there was one.

    What its encoding lacks, such as Japanese in Latin-1, is escaped instead of an error.
    """
    errors = before.errors if before else None
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace" if errors in {None, "strict"} else errors,
        line_buffering=True,
    )
