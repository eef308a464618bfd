"""Change the core in one small place at a time, and see whether a test notices.

Survivors that docs/evidence/mutants.md argues to change no behaviour are known. Any other is an
error, and so is an argument about a change that is noticed or does not exist any more.
"""

from __future__ import annotations

import argparse
import sys

from tests.unit.mutants import page
from tests.unit.mutants.operators import mutants
from tests.unit.mutants.trial import MODULES, Bench


def main() -> int:
    """Try the mutants of all modules, or of those named."""
    parser = argparse.ArgumentParser(prog="python -m tests.unit.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(MODULES))
    parser.add_argument("--quick", action="store_true", help="without tests that make up examples")
    parser.add_argument("--write", action="store_true", help="write the figures to the page")
    options = parser.parse_args()
    modules = options.modules or list(MODULES)
    if options.quick and options.write:
        parser.error("--quick leaves out tests that may notice a change: it writes no figures")
    if unknown := set(modules) - MODULES.keys():
        parser.error(f"no such module: {', '.join(sorted(unknown))}")

    argued = {one for one in page.argued() if one.module in modules}
    survivors: set[page.Change] = set()
    figures: dict[str, page.Figures] = {}
    for module in modules:
        bench = Bench(module, is_quick=options.quick)
        counted = figures[module] = page.Figures()
        for mutant in mutants(bench.source):
            change = page.Change(module, mutant.function, mutant.change)
            outcome = bench.try_out(mutant.code)
            counted[outcome] += 1
            if outcome == "survived":
                survivors.add(change)
                if change not in argued:
                    tell(f"survived, line {mutant.line}:\n{page.row(change)}")
        tell(f"{module}: {', '.join(f'{count} {outcome}' for outcome, count in counted.items())}")
    for change in sorted(argued - survivors):
        tell(f"argued, but noticed or gone:\n{page.row(change)}")
    if options.write:
        page.write(figures)
    return 1 if argued ^ survivors else 0


def tell(text: str) -> None:
    """Print at once: the whole takes a while."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
