"""Compares the usage records of a range of minutes with the exporter's history."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billing_cli.core.corrections import differences
from billing_cli.core.history import read_history
from billing_cli.core.restart import LONGEST_DISORDER
from billing_cli.core.times import minute_of
from billing_cli.database.earlier_totals import read_earlier_totals
from billing_cli.database.reconcile import read_cells, read_first_from
from billing_cli.database.streams import read_last_accounts
from billing_cli.jobs.own_charges import without_legacy_charges

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.corrections import Difference
    from billing_cli.core.model import DeltaPolicy, Snapshot
    from billing_cli.database.reconcile import StoredCell


@dataclass(frozen=True, slots=True)
class HistoryRange:
    """The minutes [at, until) of one source, their snapshots, and what is plausible there.

    With `charges_again` cells that `reverse` took back, or a part of, are compared too.
    """

    source_id: str
    stored_node_id: str
    region: str
    at: datetime
    until: datetime
    snapshots: tuple[Snapshot, ...]
    policy: DeltaPolicy
    charges_again: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Where the usage records of a range and its history differ."""

    history_range: HistoryRange
    different: Sequence[tuple[StoredCell, Difference]]
    skipped: int


def find_differences(connection: Connection, history_range: HistoryRange) -> Finding:
    """Compare every cell with the snapshots inside it; count those that show nothing certain."""
    node = history_range.stored_node_id
    uuids = {name.sample_uuid for snapshot in history_range.snapshots for name in snapshot.totals}
    accounts = read_last_accounts(connection, [node], uuids)
    history = read_history(history_range.snapshots, accounts, history_range.policy)
    if history.unsure:
        since = minute_of(history_range.snapshots[0].collected_at) - LONGEST_DISORDER
        earlier = read_earlier_totals(connection, node, history.unsure, since, history_range.at)
        history = read_history(history_range.snapshots, accounts, history_range.policy, earlier)
    snapshots = history.snapshots
    first_from = read_first_from(connection, node, history_range.at, history_range.until)
    stamps = [snapshot.collected_at for snapshot in snapshots]
    cells, skipped = read_cells(
        connection,
        node,
        history_range.at,
        history_range.until,
        minute_of(min(first_from or history_range.at, history_range.at)),
        {snapshot.collected_at: snapshot.totals for snapshot in snapshots},
    )
    different: list[tuple[StoredCell, Difference]] = []
    for stored in cells:
        record = stored.cell.record
        if stored.cell.is_reversed and not history_range.charges_again:
            continue
        after_start = bisect_right(stamps, record.from_at)
        past_end = bisect_right(stamps, record.to_at, lo=after_start)
        if stored.cell.is_reversed:
            after_start = bisect_left(stamps, record.from_at)
        elif bisect_left(stamps, record.to_at, lo=after_start, hi=past_end) == after_start:
            continue
        seen = [
            (snapshot.collected_at, snapshot.totals[record.name])
            for snapshot in snapshots[after_start:past_end]
            if record.name in snapshot.totals
        ]
        restarts = history.restarts.get(record.name, {})
        continued = history.continued.get(record.name, {})
        found = differences(stored.cell, seen, restarts, history_range.policy, continued)
        if found is None:
            skipped += 1
        else:
            different.extend((stored, difference) for difference in found)
    return without_legacy_charges(connection, Finding(history_range, different, skipped))
