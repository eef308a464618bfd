"""The benchmarks: `make bench`, `make bench-quick`.

    python -m benchmarks [--quick] [--only NAME,...] [--write FILE]

Prints each figure as it comes and fails where one is beyond its limit; with `--quick`, in small
sizes, only where it is twice beyond, also when it is measured again. `--write
docs/evidence/performance.md` puts the tables between the marks of that page, and of scaling.md
beside it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.page import circumstances_of, write_pages
from benchmarks.results import QUICK_LIMITS, QUICK_TOLERANCE, Figure, Results
from benchmarks.sizes import FULL, QUICK
from benchmarks.world import running_server

if TYPE_CHECKING:
    from benchmarks.sizes import Sizes
    from billing_cli.simulator.postgres import EmbeddedPostgres

BENCHMARKS = (
    "collect",
    "sealing",
    "grown",
    "backlog",
    "startup",
    "decode",
    "sources",
    "reconcile",
    "audit",
    "statement",
)
# What takes long and has no limit is not part of the quick run.
QUICK_BENCHMARKS = tuple(name for name in BENCHMARKS if name != "grown")


def main() -> int:
    """Run them; 1 where a limit is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, under a minute")
    parser.add_argument("--only", metavar="NAME,...", help=", ".join(BENCHMARKS))
    parser.add_argument("--write", metavar="FILE", type=Path, help="the page with the tables")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("small sizes are not for the page")
    every = QUICK_BENCHMARKS if options.quick else BENCHMARKS
    names = options.only.split(",") if options.only else every
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    # Whoever ends it ends its server with it.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    results = Results()
    missed: list[Figure] = []
    began = time.monotonic()
    with running_server() as server:
        for name in names:
            if options.quick:
                missed += _run_quickly(server, name)
            else:
                _run(server, name, FULL, results)
        minutes = (time.monotonic() - began) / 60
        if options.write:
            command = (
                f"python -m benchmarks --only {options.only}" if options.only else "make bench"
            )
            write_pages(options.write, results, circumstances_of(server, minutes, command))
    missed += [figure for figure in results.figures if not figure.is_met()]
    for figure in missed:
        print(f"beyond its limit: {figure.what}: {figure.value:.2f} {figure.unit}")
    print(f"{minutes:.1f} minutes, {len(missed)} beyond their limits")
    return 1 if missed else 0


def _run(server: EmbeddedPostgres, name: str, sizes: Sizes, results: Results) -> None:
    print(f"{name}:", flush=True)
    started = time.monotonic()
    import_module(f"benchmarks.{name}").run(server, sizes, results)
    print(f"  ({time.monotonic() - started:.0f} s)", flush=True)


def _run_quickly(server: EmbeddedPostgres, name: str) -> list[Figure]:
    """Return the figures that are far beyond their limits, also when they are measured again."""
    missed: list[Figure] = []
    for _ in range(2):
        results = Results(QUICK_LIMITS)
        _run(server, name, QUICK, results)
        missed = [figure for figure in results.figures if not figure.is_met(QUICK_TOLERANCE)]
        if not missed:
            break
    return missed


if __name__ == "__main__":
    sys.exit(main())
