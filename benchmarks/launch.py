"""Runs one `billing` command line as it is, and leaves what it cost in a file.

    python -m benchmarks.launch REPORT PROFILE COMMAND [ARGUMENT]...

The modules that jobs use are loaded before the clock starts: what loading them costs is measured
by itself. PROFILE is a file for cProfile's figures, or `-` for none.
"""

from __future__ import annotations

import cProfile
import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

MODULES = (
    "psycopg",
    "billing_cli.cli.entry",
    "billing_cli.config.settings",
    "billing_cli.cli.observers",
    "billing_cli.exporter.fleet",
    "billing_cli.jobs.opening",
    "billing_cli.cli.text",
    "billing_cli.logs",
    "tomllib",
)


def main() -> None:
    """Run the command line; exit as it does."""
    report, profile_file, *arguments = sys.argv[1:]
    for name in (*MODULES, _job_of(arguments[0].replace("-", "_"))):
        import_module(name)
    if os.environ.pop("BENCHMARK_WITHOUT_SEALS", None):
        _hash_nothing()
    sys.argv = ["billing", *arguments]
    profile = None if profile_file == "-" else cProfile.Profile()
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        if profile:
            profile.enable()
        import_module("billing_cli.__main__").main()
    finally:
        if profile:
            profile.disable()
            profile.dump_stats(profile_file)
        Path(report).write_text(
            json.dumps(
                {
                    "seconds": time.perf_counter() - started,
                    "cpu_seconds": time.process_time() - cpu_started,
                    "peak_megabytes": peak_megabytes(),
                }
            )
        )


def _hash_nothing() -> None:
    """Take out what a seal costs in this process."""
    seals, writing = map(import_module, ("billing_cli.core.seals", "billing_cli.database.writing"))
    assert hasattr(writing, "_charge_key")
    seals.LineDigest.add = lambda self, line: setattr(self, "count", self.count + 1) or line
    seals.LineDigest.checks = b""
    writing._charge_key = lambda _: 0  # noqa: SLF001


def _job_of(command: str) -> str:
    if command in {"collect", "catch_up", "reconcile"}:
        return f"billing_cli.jobs.{command}"
    return f"billing_cli.features.{command}.job"


def peak_megabytes() -> float:
    """Return the most memory that this process has had resident.

    The kernel's figure for the program that runs now: getrusage would count what the parent held
    when it started us. Where there is no such file, that is all there is.
    """
    if os.path.exists("/proc/self/status"):  # noqa: PTH110 - this is the file's only use
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    # Bytes on macOS, the other system that this runs on.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
