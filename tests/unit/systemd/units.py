"""The unit files as they are, as values, and as the real programs are to see them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[3] / "systemd"
UNITS = sorted(path.name for path in DIRECTORY.iterdir())
SERVICES = [name for name in UNITS if name.endswith(".service")]
JOBS = [name for name in SERVICES if name.startswith("billing-")]
HOOK = "on-billing-failure@.service"

# Where the units expect the program.
PROGRAM = "/opt/billing/bin/billing"


def settings(name: str) -> dict[str, list[str]]:
    """Return a unit's settings in order: a key may be given several times."""
    found: dict[str, list[str]] = {}
    for line in (DIRECTORY / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def setting(name: str, key: str) -> str:
    """Return a setting that a unit gives exactly once."""
    (value,) = settings(name)[key]
    return value


def shell_script(name: str) -> str:
    """Return the script that a unit hands to /bin/sh, as the shell sees it."""
    start, script, _ = setting(name, "ExecStart").split("'")
    assert start == "/bin/sh -c "
    return script.replace("$$", "$").replace("%%", "%")


def copied_units(directory: Path) -> list[Path]:
    """Copy the units, with some program that exists in place of the one that is installed."""
    copies = []
    for name in UNITS:
        text = (DIRECTORY / name).read_text(encoding="utf-8")
        (directory / name).write_text(text.replace(PROGRAM, sys.executable), encoding="utf-8")
        copies.append(directory / name)
    return copies


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program that judges units. Skips the test where it is not installed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(  # noqa: S603 - the program as found, with our own arguments
        [program, *arguments],
        env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C", "SYSTEMD_COLORS": "0", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
