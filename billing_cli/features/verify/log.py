"""Checks the log: its leaves against the rows, its nodes, its head, and kept checkpoints.

Two trees are built in one pass. The tree of the rows hashes seals and days as they are now. The
stored tree is built from the leaf hashes that are stored. Where both differ from a checkpoint, the
log was rewritten; where only the rows differ, the leaf hash shows which row was changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import merge
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.merkle import EMPTY_ROOT, NodePlace, TreeBuilder
from billing_cli.core.notes import SignedCheckpoint, parse_checkpoint
from billing_cli.core.seals import BookingDays, day_leaf, seal_leaf
from billing_cli.core.times import format_rfc3339
from billing_cli.database.seals import (
    ADOPTION_JOB,
    LOG_TREE,
    PRUNE_JOB,
    read_head,
    seal_of,
    sealed_day_of,
)
from billing_cli.features.verify import queries as store
from billing_cli.signatures import signature_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime
    from pathlib import Path

    from psycopg import Connection

    from billing_cli.core.notes import Checkpoint, VerifierKey
    from billing_cli.database.seals import LogHead
    from billing_cli.features.verify.result import VerifyReport

SEALS = "billing.seals"
DAYS = "billing.sealed_days"
NODES = "billing.tree_nodes"
HEAD = "billing.log_head"


class KeptCheckpoint(NamedTuple):
    """A checkpoint of a file that was kept."""

    path: Path
    signed: SignedCheckpoint


@dataclass(slots=True)
class _Log:
    """The trees so far, and their roots at the sizes that checkpoints have."""

    wanted: frozenset[int]
    rows: TreeBuilder = field(default_factory=TreeBuilder)
    stored: TreeBuilder = field(default_factory=TreeBuilder)
    roots: dict[int, tuple[bytes, bytes]] = field(
        default_factory=lambda: {0: (EMPTY_ROOT, EMPTY_ROOT)}
    )

    def append(self, leaf: bytes, stored: bytes | None) -> list[tuple[NodePlace, bytes]]:
        """Append a leaf to both trees; return the nodes that the stored one should have."""
        self.rows.append(leaf)
        nodes = self.stored.append(stored or leaf)
        if self.rows.size in self.wanted:
            self.roots[self.rows.size] = self.rows.root(), self.stored.root()
        return nodes


class _Leaf(NamedTuple):
    number: int
    at: datetime
    leaf: bytes
    table: str
    run_id: str | None
    name: str
    day: date | None = None


def check_log(
    connection: Connection,
    kept: Sequence[KeptCheckpoint],
    keys: Sequence[VerifierKey],
    report: VerifyReport,
) -> None:
    """Add to the report where the log is not what was appended and signed."""
    head = read_head(connection)
    signed = _parse_head(head, report)
    checkpoints = [file.signed.checkpoint for file in kept]
    sizes = {checkpoint.size for checkpoint in checkpoints} | {head.tree_size}
    if signed is not None:
        sizes.add(signed.checkpoint.size)
    log = _Log(frozenset(sizes))
    _read_leaves(connection, log, report)
    report.leaves = log.rows.size
    # The head is signed with the last leaf that is appended.
    log.roots[log.rows.size] = log.rows.root(), log.stored.root()
    _check_head(head, signed, log, keys, report)
    report.checkpoints, report.keys = len(kept), len(keys)
    _check_kept(connection, kept, log, keys, report)


def _read_leaves(connection: Connection, log: _Log, report: VerifyReport) -> None:
    with (
        store.rows_of(connection, store.READ_LEAVES) as seals,
        store.rows_of(connection, store.READ_DAYS) as days,
        store.rows_of(connection, store.READ_TREE, {"tree": LOG_TREE}) as nodes,
    ):
        stored_nodes = StoredNodes(nodes)
        days_of = BookingDays()
        for leaf in merge(_seal_leaves(seals), _day_leaves(days), key=lambda leaf: leaf.number):
            _append_missing(log, leaf.number, stored_nodes, report)
            if leaf.number < log.rows.size:
                detail = f"leaf {leaf.number} is taken twice: {leaf.name}"
                report.add("inserted", leaf.table, detail, leaf.run_id)
                continue
            stored = stored_nodes.take(NodePlace(0, leaf.number))
            if stored != leaf.leaf:
                what = "is not what the log hashes" if stored else "has no hash in the log"
                detail = f"leaf {leaf.number} {what}: {leaf.name}"
                report.add("changed", leaf.table, detail, leaf.run_id)
            stored_nodes.compare(log.append(leaf.leaf, stored)[1:])
            if leaf.day is not None and not days_of.is_right(leaf.day, is_end=leaf.table == DAYS):
                what = "a charge is said to be booked on another day than its place shows"
                report.add("changed", SEALS, f"leaf {leaf.number}: {what}", leaf.run_id)
        _append_missing(log, None, stored_nodes, report)
        stored_nodes.report(report, "the log")


def _append_missing(
    log: _Log, number: int | None, nodes: StoredNodes, report: VerifyReport
) -> None:
    """Go on with the stored hashes of leaves whose rows are gone."""
    first = log.rows.size
    while number is None or log.rows.size < number:
        stored = nodes.take(NodePlace(0, log.rows.size))
        if stored is None:
            if number is None:
                break
            stored = bytes(32)
        nodes.compare(log.append(stored, stored)[1:])
    if log.rows.size > first:
        last = log.rows.size - 1
        leaves = f"leaf {first} has" if first == last else f"leaves {first} to {last} have"
        report.add("deleted", SEALS, f"{leaves} no row any more: what was sealed there is gone")


class StoredNodes:
    """The stored nodes of a tree, in the order in which they became complete."""

    def __init__(self, rows: Iterator[Sequence[object]]) -> None:
        self._rows = rows
        self._next: tuple[NodePlace, bytes] | None = None
        self._wrong = 0
        self._extra = 0
        self._advance()

    def take(self, place: NodePlace) -> bytes | None:
        """Return the node at a place, None where none is stored. Places are asked in order."""
        while self._next is not None and _order(self._next[0]) < _order(place):
            self._extra += 1
            self._advance()
        if self._next is None or self._next[0] != place:
            return None
        node = self._next[1]
        self._advance()
        return node

    def compare(self, nodes: Sequence[tuple[NodePlace, bytes]]) -> None:
        """Compare the nodes above a leaf."""
        self._wrong += sum(self.take(place) != node for place, node in nodes)

    def report(self, report: VerifyReport, name: str) -> None:
        """Report what is wrong, once for the tree."""
        while self._next is not None:
            self._extra += 1
            self._advance()
        if self._wrong:
            report.add("changed", NODES, f"{self._wrong} nodes of {name} do not follow from leaves")
        if self._extra:
            report.add("inserted", NODES, f"{self._extra} nodes of {name} belong to no leaf")

    def _advance(self) -> None:
        row = next(self._rows, None)
        self._next = None if row is None else (NodePlace(row[0], row[1]), row[2])  # type: ignore[arg-type, assignment]


def _order(place: NodePlace) -> tuple[int, int]:
    return (place.position + 1) << place.level, place.level


def _seal_leaves(rows: Iterator[Sequence[object]]) -> Iterator[_Leaf]:
    for number, at, *columns in rows:
        seal = seal_of(columns)
        name = f"{seal.job}, written {format_rfc3339(seal.created_at)}"
        is_booked = seal.charges > 0 and seal.job not in {ADOPTION_JOB, PRUNE_JOB}
        day = at.date() if is_booked else None  # type: ignore[attr-defined]
        yield _Leaf(number, at, seal_leaf(seal), SEALS, seal.run_id, name, day)  # type: ignore[arg-type]


def _day_leaves(rows: Iterator[Sequence[object]]) -> Iterator[_Leaf]:
    for number, at, *columns in rows:
        day = sealed_day_of(columns)
        yield _Leaf(number, at, day_leaf(day), DAYS, None, f"day {day.day}", day.day)  # type: ignore[arg-type]


def _parse_head(head: LogHead, report: VerifyReport) -> SignedCheckpoint | None:
    if head.note is None:
        return None
    try:
        return parse_checkpoint(head.note)
    except ValueError as error:
        report.add("changed", HEAD, f"the newest checkpoint is damaged: {error}")
        return None


def _check_head(
    head: LogHead,
    signed: SignedCheckpoint | None,
    log: _Log,
    keys: Sequence[VerifierKey],
    report: VerifyReport,
) -> None:
    size = log.rows.size
    if signed is None:
        if size and head.note is None:
            report.add("deleted", HEAD, "the newest checkpoint is gone")
        return
    signed_size = signed.checkpoint.size
    if head.tree_size != signed_size:
        detail = f"the size is {head.tree_size}, and its checkpoint says {signed_size}"
        report.add("changed", HEAD, detail)
    if signed_size > size:
        detail = f"the log has {size} leaves, its newest checkpoint has {signed_size}"
        report.add("truncated", SEALS, detail)
    elif signed_size < size:
        detail = f"leaves {signed_size} to {size - 1} are not in the newest checkpoint"
        report.add("inserted", SEALS, detail)
    if signed_size <= size and signed.checkpoint.root != log.roots[signed_size][0]:
        report.add("changed", SEALS, "the log is not what its newest checkpoint signs")
    if keys and (problem := signature_problem(signed, keys)) is not None:
        report.add("signature", HEAD, f"the newest checkpoint: {problem}")


def _check_kept(
    connection: Connection,
    kept: Sequence[KeptCheckpoint],
    log: _Log,
    keys: Sequence[VerifierKey],
    report: VerifyReport,
) -> None:
    good: Checkpoint | None = None
    is_reported = False
    for path, signed in sorted(kept, key=lambda file: file.signed.checkpoint.size):
        checkpoint = signed.checkpoint
        if keys and (problem := signature_problem(signed, keys)) is not None:
            detail = f"{path}: the checkpoint of {checkpoint.size} leaves: {problem}"
            report.add("signature", None, detail)
        elif checkpoint.size > log.rows.size:
            detail = f"{path} has a checkpoint of {checkpoint.size} leaves, the log has "
            report.add("truncated", SEALS, f"{detail}{log.rows.size}: its end is gone")
        elif checkpoint.root == log.roots[checkpoint.size][0]:
            good = checkpoint
        elif not is_reported:
            # The later ones differ because this one does.
            is_reported = True
            _report_rewritten(connection, path, good, checkpoint, log, report)


def _report_rewritten(
    connection: Connection,
    path: Path,
    good: Checkpoint | None,
    bad: Checkpoint,
    log: _Log,
    report: VerifyReport,
) -> None:
    first, end = good.size if good is not None else 0, bad.size
    where = f"leaf {first}" if end - first == 1 else f"among leaves {first} to {end - 1}"
    if bad.root == log.roots[end][1]:
        how = "rows differ from what the log hashes"
    else:
        how = "the log was rewritten, and differs from what was signed"
    parameters = {"first": first, "end": end}
    runs = connection.execute(store.READ_RUNS_BETWEEN, parameters).fetchall()
    run_id = runs[0][0] if len(runs) == 1 else None
    report.add("changed", SEALS, f"{path}: {where}, {how}", run_id)
