"""Plausibility credit for what `reconcile` finds: the bytes that corrections add consume it.

Most corrections move bytes between minutes and need none. Bytes that a hidden restart had swallowed
are new. Those that the credit of their account or node does not cover are left as they are on
record; credit grows, and the next comparison finds them again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.plausibility import CreditBook
from billing_cli.core.times import minute_of
from billing_cli.database.reconcile import read_account_debts, write_debts
from billing_cli.database.sources import read_sources

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.core.corrections import Difference
    from billing_cli.database.reconcile import StoredCell
    from billing_cli.jobs.differences import HistoryRange

CellKey = tuple[int, "datetime"]


def spend_credit(
    connection: Connection,
    found: Iterable[tuple[HistoryRange, Sequence[tuple[StoredCell, Difference]]]],
    accounts: Collection[str],
) -> dict[str, set[CellKey]]:
    """Consume credit for the cells that grow; return those that it does not cover, by source.

    Only cells of the chargeable `accounts` count. The sources are locked.
    """
    refused = {}
    for history_range, different in found:
        grown = growth_of(different, accounts)
        if grown:
            refused[history_range.source_id] = _spend(connection, history_range, grown)
    return refused


class GrownCell(NamedTuple):
    """A cell with more bytes than are on record, its account and tag, and its last minute."""

    cell: CellKey
    account_uuid: str
    inbound_tag: str
    minute: datetime


def growth_of(
    different: Sequence[tuple[StoredCell, Difference]], accounts: Collection[str]
) -> list[tuple[GrownCell, int]]:
    """Return the cells of these accounts that grow, and by how many bytes, oldest first."""
    growth: defaultdict[tuple[datetime, GrownCell], int] = defaultdict(int)
    for stored, difference in different:
        record, account = stored.cell.record, stored.account_uuid
        if account in accounts:
            tag, minute = record.name.inbound_tag, minute_of(record.to_at)
            grown = GrownCell(cell_key(stored), account, tag, minute)
            growth[record.to_at, grown] += sum(difference.shown) - sum(difference.recorded)
    return [(cell, size) for (_, cell), size in sorted(growth.items()) if size > 0]


def cell_key(stored: StoredCell) -> CellKey:
    """Return what identifies a cell: its stream, and where it begins."""
    return stored.stream_id, stored.cell.record.from_at


def _spend(
    connection: Connection,
    history_range: HistoryRange,
    grown: Sequence[tuple[GrownCell, int]],
) -> set[CellKey]:
    state = read_sources(connection, [history_range.source_id])[history_range.source_id]
    at = state.watermark or history_range.until
    debts = read_account_debts(connection, history_range.stored_node_id)
    book = CreditBook(history_range.policy, replace(state.credit, accounts=debts))
    refused = {
        cell.cell for cell, size_bytes in grown if not book.spend(cell.account_uuid, size_bytes, at)
    }
    write_debts(
        connection,
        history_range.source_id,
        history_range.stored_node_id,
        book.spent,
        book.spent_by_node,
    )
    return refused
