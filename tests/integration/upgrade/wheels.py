"""Wheels of the first edition and of this tree, and environments to install them in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[3]
# The last commit of 0.1.0.
FIRST_EDITION = "92cc4f26412f584c57e4aafb0083d16e1d76c867"
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "dist", "site", "_version.py"
)


def has_history() -> bool:
    """Return whether the first edition is in this checkout."""
    git = shutil.which("git")
    return git is not None and not _run(git, "cat-file", "-e", FIRST_EDITION, check=False)


def first_edition(directory: Path) -> Path:
    """Build the wheel of 0.1.0 from the history, in a directory of its own."""
    tree = directory / "first"
    tree.mkdir()
    _run("git", "archive", "--output", str(directory / "first.tar"), FIRST_EDITION)
    shutil.unpack_archive(directory / "first.tar", tree, filter="data")
    return built(tree, directory / "old")


def this_tree(directory: Path) -> Path:
    """Build the wheel of this tree as it is on disk, without its history."""
    tree = directory / "this"
    shutil.copytree(ROOT, tree, ignore=NOT_SOURCE)
    return built(tree, directory / "dist")


def built(tree: Path, directory: Path) -> Path:
    """Return the wheel of a tree. Nothing is fetched: the build backend is installed."""
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory), cwd=tree)
    (wheel,) = directory.glob("*.whl")
    return wheel


def make_environment(directory: Path, wheel: Path) -> None:
    """Make a virtual environment with the wheel, whose dependencies are those of the tests.

    Its `bin/pip` installs nothing from a lock, therefore, and of wheels only what is at hand.
    """
    _run(sys.executable, "-m", "venv", "--without-pip", str(directory))
    python = directory / "bin" / "python"
    pip = directory / "bin" / "pip"
    pip.write_text(
        '#!/bin/sh\ncase "$*" in *" --requirement "*) exit 0 ;; esac\n'
        f'exec {sys.executable} -m pip --quiet --python {python} "$@"\n',
        "utf-8",
    )
    pip.chmod(0o755)
    _run(str(pip), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = directory.glob("lib/python*/site-packages")
    # Only the directory: what is installed there as editable stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")


def version_of(wheel: Path) -> str:
    """Return the version in the name of a wheel."""
    found = re.fullmatch(r"billing-([^-]+)-py3-none-any\.whl", wheel.name)
    assert found is not None
    return found[1]


def _run(*command: str, cwd: Path = ROOT, check: bool = True) -> int:
    done = subprocess.run(  # noqa: S603 - our own commands
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done
    return done.returncode
