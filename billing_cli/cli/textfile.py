"""A file that another program reads at any moment: replaced as a whole, never half-written."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READABLE_BY_ALL = 0o644
READABLE_BY_OWNER = 0o600
LOCK_WAIT_SECONDS = 2.0
LOCK_PAUSE_SECONDS = 0.02


@contextmanager
def sole_writer(path: Path, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Keep other runs on this machine from writing the file during the block.

    Whoever reads figures, and writes them down, under this lock can't overwrite newer ones with
    older ones. The lock is on a hidden file next to it that only its owner can open: the directory
    or the file itself could be locked by every user who can read them. It ends with the process.
    Raises OSError where there is no such directory, TimeoutError where another run keeps it.
    """
    descriptor = _open_lock(path.with_name(f".{path.name}.lock"))
    try:
        _lock(descriptor, time.monotonic() + wait_seconds)
        yield
    finally:
        os.close(descriptor)


def present_content(path: Path) -> bytes:
    """Return what the file holds; nothing where it can't be read, or is no regular file.

    Needs `sole_writer`.
    """
    with suppress(OSError):
        if path.is_file():
            return path.read_bytes()
    return b""


def replace_file(path: Path, content: bytes) -> None:
    """Put the content in the file's place at once, readable by everyone. Needs `sole_writer`.

    It need not outlive a crash of the machine, so nothing waits for the disk. Raises OSError.
    """
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        # A device or a pipe would be gone, and a file in its place.
        raise OSError(errno.EINVAL, "not a regular file")
    # The name ends in something that node_exporter does not read.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, READABLE_BY_ALL), "wb") as file:
            os.fchmod(file.fileno(), READABLE_BY_ALL)
            file.write(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _open_lock(path: Path) -> int:
    """Open the lock's file, or make it. One of another user, whoever put it there, is replaced."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            path.unlink()
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, READABLE_BY_OWNER)


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another run is writing there") from None
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return
