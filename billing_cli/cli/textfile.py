"""A file that another program reads at any moment: replaced as a whole, never half-written."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READABLE_BY_ALL = 0o644
LOCK_WAIT_SECONDS = 2.0
LOCK_PAUSE_SECONDS = 0.02


@contextmanager
def sole_writer(path: Path, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Keep other runs on this machine from writing into the file's directory meanwhile.

    Whoever reads figures, and writes them down, under this lock can't overwrite newer ones with
    older ones. The lock is on the directory, ends with the process, and leaves no file behind.
    Raises OSError where there is no such directory, TimeoutError where another run keeps it.
    """
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, time.monotonic() + wait_seconds)
        yield
    finally:
        os.close(descriptor)


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
