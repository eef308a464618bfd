"""Decides whether a history of transactions can have happened one after the other.

A program of its own: `python check_history.py FILE`. It knows nothing of billing. Each line of the
file is a transaction that committed, as JSON:

    {"name": ..., "start": ns, "end": ns, "reads": {key: value}, "writes": {key: value}}

A value that was written identifies the version of its key. Who writes a key has read the version
before. From that follow the order of the versions of each key, and which transaction comes before
which: the reader after the writer, the next writer after the reader, and whoever started after
another one's end, after that one. The history is strictly serialisable if these agree.

Prints a JSON object with `transactions`, `keys` and `anomalies`. Exits with 0 if there are none,
with 1 if there are, with 2 if the file can't be judged.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_left
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

# A transaction by its place in the file, or an instant by its place among all ends.
Place = tuple[str, int]


class Transaction(NamedTuple):
    """A line of the file."""

    name: str
    start: int
    end: int
    reads: dict[str, str]
    writes: dict[str, str]


def main() -> int:
    """Judge the file that the command line names."""
    try:
        lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
        history = [Transaction(**json.loads(line)) for line in lines]
    except (IndexError, OSError, ValueError, TypeError) as error:
        sys.stderr.write(f"no history that can be judged: {error}\n")
        return 2
    anomalies = anomalies_of(history)
    keys = {key for transaction in history for key in (*transaction.reads, *transaction.writes)}
    found = {"transactions": len(history), "keys": len(keys), "anomalies": anomalies}
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if anomalies else 0


def anomalies_of(history: list[Transaction]) -> list[str]:
    """Return what no serial order explains; of a cycle, the transactions that it is made of."""
    anomalies: list[str] = []
    after: dict[Place, set[Place]] = defaultdict(set)
    keys = sorted(
        {key for transaction in history for key in (*transaction.reads, *transaction.writes)}
    )
    for key in keys:
        anomalies += _order_by_versions(history, key, after)
    _order_by_time(history, after)
    try:
        tuple(TopologicalSorter(after).static_order())
    except CycleError as error:
        names = [history[number].name for kind, number in error.args[1] if kind == "transaction"]
        anomalies.append(f"no serial order: {' > '.join(names)}")
    return anomalies


def _order_by_versions(
    history: list[Transaction], key: str, after: dict[Place, set[Place]]
) -> list[str]:
    """Add who comes after whom because of the versions of a key; return what contradicts them."""
    writer_of: dict[str, int] = {}
    next_writer: dict[str, int] = {}
    anomalies = _writers(history, key, writer_of, next_writer)
    readers = [
        (number, transaction.reads[key])
        for number, transaction in enumerate(history)
        if key in transaction.reads
    ]
    unwritten = {version for _, version in readers} - writer_of.keys()
    if len(unwritten) > 1:
        anomalies.append(f"{key}: nobody wrote {' or '.join(sorted(unwritten))}")
    for number, version in readers:
        place = ("transaction", number)
        if writer_of.get(version, number) != number:
            after[place].add(("transaction", writer_of[version]))
        if next_writer.get(version, number) != number:
            after["transaction", next_writer[version]].add(place)
    return anomalies


def _writers(
    history: list[Transaction], key: str, writer_of: dict[str, int], next_writer: dict[str, int]
) -> list[str]:
    """Note who wrote each version of a key, and who wrote over it; return what is contradictory."""
    anomalies = []
    for number, transaction in enumerate(history):
        if key not in transaction.writes:
            continue
        if key not in transaction.reads:
            anomalies.append(f"{key}: {transaction.name} wrote it unread")
        elif transaction.reads[key] in next_writer:
            other = history[next_writer[transaction.reads[key]]].name
            anomalies.append(
                f"{key}: lost update, {other} and {transaction.name} wrote over one version"
            )
        else:
            next_writer[transaction.reads[key]] = number
        if transaction.writes[key] in writer_of:
            anomalies.append(f"{key}: {transaction.writes[key]} was written twice")
        writer_of[transaction.writes[key]] = number
    return anomalies


def _order_by_time(history: list[Transaction], after: dict[Place, set[Place]]) -> None:
    """Add that whoever started after an end comes after it, by way of all ends in their order."""
    ends = sorted({transaction.end for transaction in history})
    for number in range(1, len(ends)):
        after["end", number].add(("end", number - 1))
    for number, transaction in enumerate(history):
        after["end", bisect_left(ends, transaction.end)].add(("transaction", number))
        before = bisect_left(ends, transaction.start)
        if before:
            after["transaction", number].add(("end", before - 1))


if __name__ == "__main__":
    sys.exit(main())
