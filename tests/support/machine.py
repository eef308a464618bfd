"""A file system of its own for a server, which can lose power: what was not synced is gone."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE_BYTES = 2 * 1024**3


class PowerlessDisk:
    """An ext4 file system in a file, mounted at `path`.

    `cut_power` mounts what the file holds at that moment: what was written and is still in the
    kernel's cache is lost, as after a power cut. The journal is replayed at the mount.
    """

    def __init__(self, image: Path, path: Path) -> None:
        self.path = path
        self._image = image

    def sync(self) -> None:
        """Sync all that was written so far."""
        _run("sync", "--file-system", str(self.path))

    def cut_power(self) -> None:
        """Lose what was not synced. Nobody may have a file of the disk open."""
        survivor = self._image.with_suffix(".survivor")
        _run("cp", "--sparse=always", str(self._image), str(survivor))
        _run("umount", str(self.path))
        survivor.replace(self._image)
        _run("mount", "-o", "loop", str(self._image), str(self.path))


@contextmanager
def powerless_disk(directory: Path) -> Iterator[PowerlessDisk | None]:
    """Mount a disk within a directory; None where that is not allowed."""
    image, path = directory / "image", directory / "disk"
    path.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(image))
        _run("mount", "-o", "loop", str(image), str(path))
    except (OSError, subprocess.CalledProcessError):
        yield None
        return
    try:
        # Only a directory of the server's own is empty enough for it.
        yield PowerlessDisk(image, path)
    finally:
        with suppress(subprocess.CalledProcessError):
            _run("umount", "--lazy", str(path))
        shutil.rmtree(path, ignore_errors=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - programs of the system
