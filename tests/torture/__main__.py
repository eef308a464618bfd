"""Runs the attacks, two at a time, and ends with the table: `python -m tests.torture --help`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.torture.attacks import ATTACKS
from tests.torture.runner import rounds_of, run_all, say
from tests.torture.table import Circumstances, table_of, write_into

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.torture.attacks import Attack
    from tests.torture.tally import Tally


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 0 where nothing was lost, doubled or broken."""
    options = _options(arguments)
    rounds = rounds_of(options.attacks, options.rounds, options.minutes)
    began, commit = time.monotonic(), _commit()
    say(f"seed {options.seed}; {', '.join(attack.name for attack in options.attacks)}")
    command = " ".join(["python -m tests.torture", *_repeatable(options)])
    ended: dict[str, list[Tally]] = {}
    # The page has what has ended so far: a long run may be interrupted.
    for name, (tallies, version) in run_all(rounds, options.seed):
        ended[name] = tallies
        circumstances = Circumstances(
            day=datetime.now(UTC).date(),
            command=command,
            seed=options.seed,
            server_version=version,
            commit=commit,
            minutes=(time.monotonic() - began) / 60,
            missing=tuple(other for other in rounds if other not in ended),
        )
        if options.write is not None:
            write_into(options.write, _table(options.attacks, ended), circumstances)
    sys.stdout.write(_table(options.attacks, ended))
    is_clean = all(tally.is_clean for tallies in ended.values() for tally in tallies)
    return 0 if is_clean and ended.keys() == rounds.keys() else 1


def _table(attacks: Sequence[Attack], ended: Mapping[str, list[Tally]]) -> str:
    """Return the table of the attacks that have ended, in their own order."""
    return table_of([tally for attack in attacks for tally in ended.get(attack.name, [])])


def _commit() -> str:
    """Return what is attacked, or that nobody knows, as in a tree without its history."""
    try:
        command = ("git", "describe", "--always", "--dirty", "--exclude=*")
        described = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, help="about how long; default: the full rounds")
    parser.add_argument("--seed", type=int, default=0, help="the same seed does the same again")
    parser.add_argument("--rounds", type=int, help="as many rounds of each attack")
    parser.add_argument("--only", help="these attacks, with commas between them")
    parser.add_argument("--without", help="all attacks but these, with commas between them")
    parser.add_argument("--write", type=Path, help="a page to write the table into")
    options = parser.parse_args(arguments)
    known = {attack.name: attack for attack in ATTACKS}
    wanted = options.only.split(",") if options.only else list(known)
    left_out = options.without.split(",") if options.without else []
    unknown = sorted({*wanted, *left_out} - known.keys())
    if unknown:
        parser.error(f"unknown attack {', '.join(unknown)}; known: {', '.join(known)}")
    options.attacks = [known[name] for name in wanted if name not in left_out]
    return options


def _repeatable(options: argparse.Namespace) -> list[str]:
    given = {
        "--minutes": options.minutes,
        "--rounds": options.rounds,
        "--only": options.only,
        "--without": options.without,
    }
    parts = [f"{name} {value}" for name, value in given.items() if value is not None]
    return [*parts, f"--seed {options.seed}"]


if __name__ == "__main__":
    sys.exit(main())
