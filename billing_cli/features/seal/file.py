"""The file that keeps checkpoints: each is appended once, in one write, under a lock."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from billing_cli.core.notes import parse_checkpoint
from billing_cli.errors import ConfigurationError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from billing_cli.core.notes import SignedCheckpoint

# The newest checkpoint is at the end, and some hundred bytes long.
TAIL_BYTES = 16 * 1024

_NOTE = re.compile(
    rb"(?P<origin>[^\n]+)\n[0-9]+\n[A-Za-z0-9+/=]{44}\n(?:[^\n]+\n)*\n(?:\xe2\x80\x94 [^\n]+\n)+"
)


class CheckpointFile:
    """An open, locked file of checkpoints. `newest` is the last one in it, None where it is empty.

    What an interrupted write left behind it is cut off.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self.newest = self._read_newest()

    def append(self, note: str) -> None:
        """Append a checkpoint, unless it is the newest one already.

        Raises OutputError where the file takes nothing; it is then as it was before.
        """
        if self.newest == parse_checkpoint(note):
            return
        size = os.fstat(self._descriptor).st_size
        data = (("\n" if size else "") + note).encode()
        try:
            if os.write(self._descriptor, data) < len(data):
                os.ftruncate(self._descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
            os.fsync(self._descriptor)
        except OSError as error:
            raise OutputError(
                f"{self._path}: {error.strerror}; the log is sealed, and the next `billing seal` "
                "appends its checkpoint"
            ) from None

    def _read_newest(self) -> SignedCheckpoint | None:
        size = os.fstat(self._descriptor).st_size
        begin = max(size - TAIL_BYTES, 0)
        tail = os.pread(self._descriptor, TAIL_BYTES, begin)
        if not tail:
            return None
        notes = list(_NOTE.finditer(tail))
        try:
            newest = parse_checkpoint(notes[-1][0].decode())
        except (IndexError, ValueError):
            raise ConfigurationError(f"{self._path}: not a file of checkpoints") from None
        rest = tail[notes[-1].end() :].lstrip(b"\n")
        if rest:
            first_line = rest.split(b"\n")[0]
            if not notes[-1]["origin"].startswith(first_line):
                raise ConfigurationError(f"{self._path}: something else follows the checkpoints")
            os.ftruncate(self._descriptor, begin + notes[-1].end())
        return newest


@contextmanager
def open_checkpoints(path: Path) -> Iterator[CheckpointFile]:
    """Open a file of checkpoints, made where it is missing, for this process alone.

    Raises ConfigurationError where it is none, or can't be written.
    """
    try:
        descriptor = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644
        )
    except OSError as error:
        raise ConfigurationError(f"--to {path}: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"--to {path}: not a regular file")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield CheckpointFile(path, descriptor)
    finally:
        os.close(descriptor)
