"""The file as such: always whole, readable by everyone, written by one run at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from billing_cli.cli.textfile import present_content, replace_file, sole_writer

if TYPE_CHECKING:
    from pathlib import Path


def test_everyone_can_read_it_whatever_the_umask(tmp_path: Path) -> None:
    """Services are often kept from sharing files, and node_exporter is someone else."""
    path = tmp_path / "billing.prom"
    before = os.umask(0o077)
    try:
        replace_file(path, b"a 1\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_bytes() == b"a 1\n"


def test_a_reader_meets_only_whole_files(tmp_path: Path) -> None:
    """It sees the one or the other, never a part, and no second file beside it."""
    path = tmp_path / "billing.prom"
    contents = [bytes([letter]) * 100_000 for letter in b"ab"]
    replace_file(path, contents[0])
    done = threading.Event()

    def write() -> None:
        try:
            for turn in range(300):
                replace_file(path, contents[turn % 2])
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in contents
        assert [one.name for one in tmp_path.glob("*.prom")] == ["billing.prom"]
    writer.join()
    assert names_in(tmp_path) == ["billing.prom"]


def test_what_a_killed_run_left_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    """Its half-written file is replaced, and gone afterwards."""
    (tmp_path / ".billing.prom.new").write_text("half")
    replace_file(tmp_path / "billing.prom", b"whole")
    assert names_in(tmp_path) == ["billing.prom"]
    assert (tmp_path / "billing.prom").read_bytes() == b"whole"


@pytest.mark.parametrize("place", ["/dev/null", "directory", "link"])
def test_what_is_no_file_is_left_alone(tmp_path: Path, place: str) -> None:
    """A device would be gone, with a file in its stead; nothing is left beside it either."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    path = tmp_path / place
    with pytest.raises(OSError, match="not a regular file"):
        replace_file(path, b"")
    assert not path.is_file()
    assert names_in(tmp_path) == ["directory", "link"]


def test_what_is_present_is_read_from_a_file_only(tmp_path: Path) -> None:
    """A pipe would keep the run waiting; where nothing is, nothing is present."""
    path = tmp_path / "billing.prom"
    assert present_content(path) == b""
    os.mkfifo(path)
    assert present_content(path) == b""
    path.unlink()
    replace_file(path, b"a 1\n")
    assert present_content(path) == b"a 1\n"


def test_one_run_writes_at_a_time(tmp_path: Path) -> None:
    """Another one gives up after a while, and may go on when the first is done."""
    path = tmp_path / "billing.prom"
    with (
        sole_writer(path),
        pytest.raises(TimeoutError, match="another run is writing there"),
        sole_writer(path, wait_seconds=0),
    ):
        pass
    with sole_writer(path, wait_seconds=0):
        pass


def test_another_user_can_not_hold_the_lock(tmp_path: Path) -> None:
    """Locks on the directory and the file, which everyone can open, hold up nothing."""
    path = tmp_path / "billing.prom"
    replace_file(path, b"")
    descriptors = [os.open(one, os.O_RDONLY) for one in (tmp_path, path)]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with sole_writer(path, wait_seconds=0):
        (lock,) = (one for one in tmp_path.iterdir() if one.name == ".billing.prom.lock")
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    """Otherwise a user of the directory could have a file of ours opened or made elsewhere."""
    (tmp_path / ".billing.prom.lock").symlink_to(tmp_path / "elsewhere")
    with sole_writer(tmp_path / "billing.prom"):
        pass
    assert names_in(tmp_path) == [".billing.prom.lock"]
    assert not (tmp_path / ".billing.prom.lock").is_symlink()


def test_who_waits_comes_next(tmp_path: Path) -> None:
    """Waiting ends as soon as the other run is done."""
    path = tmp_path / "billing.prom"
    order = []

    def wait() -> None:
        with sole_writer(path, wait_seconds=60):
            order.append("second")

    waiting = threading.Thread(target=wait)
    with sole_writer(path):
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It is not made: a typing error must not look like success."""
    with pytest.raises(FileNotFoundError), sole_writer(tmp_path / "nowhere" / "billing.prom"):
        pass


def names_in(directory: Path) -> list[str]:
    """Return what is there, hidden or not."""
    return sorted(one.name for one in directory.iterdir())
