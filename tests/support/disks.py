"""Disks that are soon full."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk(parent: Path, size_bytes: int) -> Iterator[Path | None]:
    """Mount a disk within a directory, as its owner's; None where that is not allowed."""
    path = parent / "small"
    path.mkdir()
    owner = parent.stat()
    options = f"size={size_bytes},uid={owner.st_uid},gid={owner.st_gid},mode=700"
    mounted = subprocess.run(  # noqa: S603 - a program of the system, our own arguments
        ["mount", "-t", "tmpfs", "-o", options, "none", str(path)],  # noqa: S607 - wherever it is
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        path.rmdir()
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)  # noqa: S603, S607 - as above
        path.rmdir()
