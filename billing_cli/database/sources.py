"""Sources in the database: whose node they carry, their watermark, and their lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from billing_cli.core.model import NodeIdentity
from billing_cli.core.plausibility import FULL_CREDIT, Debt, NodeCredit
from billing_cli.database import arrays
from billing_cli.database.begin import IS_MOMENT
from billing_cli.database.billable import (
    MAX_BILLABLE_RECORDS,
    READ_BILLABLE_USAGE,
    READ_STALE_CHECKPOINTS,
    RETIRED_AGE,
    BillableUsage,
    StaleCheckpoint,
    billable_usage,
)
from billing_cli.database.quota_periods import (
    MAX_RENEWED_ACCOUNTS,
    READ_RENEWED_ACCOUNTS,
    RENEWAL_AGE,
)
from billing_cli.database.streams import READ_ACCOUNT_DEBTS, READ_STREAMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from psycopg import Connection

# A row to lock, before anything is known of the source.
ADD_SOURCES = """
INSERT INTO billing.sources (source_id)
SELECT source_id
  FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
 WHERE NOT EXISTS (SELECT FROM billing.sources AS own WHERE own.source_id = wanted.source_id)
 ORDER BY source_id
    ON CONFLICT (source_id) DO NOTHING
"""

# The lock is that of the row, and ends with the transaction: a killed run never leaves one behind.
# A source has no row where it is new and this is a dry run, or where its row was deleted during
# the run.
TRY_LOCK_SOURCES = """
WITH locked AS MATERIALIZED (
  SELECT source_id
    FROM billing.sources
   WHERE source_id = ANY (%(source_ids)s::text[])
   ORDER BY source_id
     FOR UPDATE SKIP LOCKED
)
SELECT source_id FROM locked
 UNION ALL
SELECT source_id
  FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
 WHERE NOT EXISTS (SELECT FROM billing.sources AS own WHERE own.source_id = wanted.source_id)
"""

# The state of the named sources. A source that only the legacy writer knew has sync state alone.
READ_SOURCES = f"""
SELECT wanted.source_id, own.env, own.node_id, own.contract, own.watermark,
       coalesce(own.samples_at, own.watermark), own.restarted_at,
       own.debt_bytes, own.debt_at, own.credit_since, own.former_nodes, own.first_snapshot_at,
       CASE WHEN own.moved_to IS NULL AND shared.last_completed_until {IS_MOMENT}
            THEN shared.last_completed_until END,
       CASE WHEN shared.last_attempted_at {IS_MOMENT} THEN shared.last_attempted_at END,
       EXISTS (SELECT FROM billing.gaps AS stalled
                WHERE stalled.source_id = own.source_id AND stalled.kind = 'stalled'
                  AND stalled.from_at IN (coalesce(own.samples_at, own.watermark),
                                          coalesce(own.samples_at, own.first_snapshot_at))),
       own.watermark IS NOT NULL AND own.samples_at IS NULL
  FROM unnest(%(source_ids)s::text[]) AS wanted (source_id)
  LEFT JOIN billing.sources AS own USING (source_id)
  LEFT JOIN public.billing_source_sync_state AS shared USING (source_id)
"""

# Which source a node belongs to already, and which one's node was called so before.
READ_NODE_OWNERS = """
SELECT carried.stored_node_id, source_id, source.stored_node_id
  FROM billing.sources AS source
 CROSS JOIN LATERAL unnest(array_append(source.former_nodes, source.stored_node_id))
    AS carried (stored_node_id)
 WHERE carried.stored_node_id = ANY (%(stored_node_ids)s::text[])
"""


class FormerOwner(NamedTuple):
    """The source whose node had an id before, and the id that this node has now."""

    source_id: str
    stored_node_id: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """What the database knows of a source.

    `watermark` is None before the first snapshot; `legacy_watermark` is where the legacy writer
    stood that knew the source before us. `samples_at` is the last applied snapshot with samples.
    `former_nodes` are stored node ids whose counters continue under the node's present one; its
    first snapshot, at `first_snapshot_at`, is then the last one of the node before.
    `is_stalled` means that a gap which begins at `samples_at` is recorded already. With
    `is_without_samples` no usable sample was applied: `samples_at` is then the watermark, and such
    a gap may begin at the first snapshot too.
    """

    source_id: str
    identity: NodeIdentity | None = None
    contract: Literal["window", "latest"] | None = None
    watermark: datetime | None = None
    samples_at: datetime | None = None
    restarted_at: datetime | None = None
    credit: NodeCredit = FULL_CREDIT
    former_nodes: tuple[str, ...] = ()
    first_snapshot_at: datetime | None = None
    legacy_watermark: datetime | None = None
    last_attempted_at: datetime | None = None
    is_stalled: bool = False
    is_without_samples: bool = False

    def renamed(self) -> dict[str, NodeIdentity]:
        """Return the present identity of the node by each stored id that it had before."""
        if self.identity is None:
            return {}
        return dict.fromkeys(self.former_nodes, self.identity)


def add_sources(connection: Connection, source_ids: Iterable[str]) -> None:
    """Give every source that has none a row, so that it can be locked."""
    connection.execute(ADD_SOURCES, {"source_ids": arrays.texts(source_ids)})


def try_lock_sources(connection: Connection, source_ids: Iterable[str]) -> set[str]:
    """Lock each source that no other transaction holds, in key order; return those locked."""
    rows = connection.execute(TRY_LOCK_SOURCES, {"source_ids": arrays.texts(source_ids)})
    return {source_id for (source_id,) in rows}


def read_sources(connection: Connection, source_ids: Iterable[str]) -> dict[str, SourceState]:
    """Return the state of every named source, known or not."""
    rows = connection.execute(READ_SOURCES, {"source_ids": arrays.texts(source_ids)})
    return {row[0]: source_state(*row) for row in rows}


def source_state(
    source_id: str,
    env: str,
    node_id: str | None,
    contract: Literal["window", "latest"] | None,
    watermark: datetime | None,
    samples_at: datetime | None,
    restarted_at: datetime | None,
    debt_bytes: int | None,
    debt_at: datetime | None,
    credit_since: datetime | None,
    former_nodes: list[str] | None,
    first_snapshot_at: datetime | None,
    shared_until: datetime | None,
    attempted_at: datetime | None,
    is_stalled: bool,
    is_without_samples: bool,
) -> SourceState:
    """Return the state in a row of READ_SOURCES."""
    return SourceState(
        source_id=source_id,
        identity=None if node_id is None else NodeIdentity(env, node_id),
        contract=contract,
        watermark=watermark,
        samples_at=samples_at,
        restarted_at=restarted_at,
        credit=NodeCredit(
            Debt(debt_bytes, debt_at) if debt_bytes and debt_at else None, since=credit_since
        ),
        former_nodes=tuple(former_nodes or ()),
        first_snapshot_at=first_snapshot_at,
        legacy_watermark=shared_until if watermark is None else None,
        last_attempted_at=attempted_at,
        is_stalled=is_stalled,
        is_without_samples=is_without_samples,
    )


def read_former_owners(
    connection: Connection, stored_node_ids: Iterable[str]
) -> dict[str, FormerOwner]:
    """Return, by node id, the source whose node was called so before."""
    nodes = {"stored_node_ids": arrays.texts(stored_node_ids)}
    return _former_owners(connection.execute(READ_NODE_OWNERS, nodes))


def _former_owners(rows: Iterable[tuple[str, str, str]]) -> dict[str, FormerOwner]:
    return {
        node: FormerOwner(source_id, present)
        for node, source_id, present in rows
        if node != present
    }


@dataclass(frozen=True, slots=True)
class LockedSources:
    """What a transaction finds when it has its locks: which sources those are, and their states.

    `node_owners` says which source carries each node, `former_owners` which one's node was called
    so before; `billable` is pending usage whose account is known now. `streams` and `debts` are
    rows of READ_STREAMS and READ_ACCOUNT_DEBTS for the nodes in `moving`; `streams` can be read
    once. `renewed` are accounts with a quota period that no run has seen, `stale` the shared
    checkpoints that one has left. `taken` are sources that take a node over from one that only
    claimed it.
    """

    source_ids: frozenset[str]
    states: dict[str, SourceState]
    node_owners: dict[str, str]
    former_owners: dict[str, FormerOwner]
    billable: tuple[BillableUsage, ...]
    moving: frozenset[str]
    streams: Iterator[tuple[Any, ...]]
    debts: Iterable[tuple[Any, ...]]
    renewed: tuple[str, ...]
    stale: tuple[StaleCheckpoint, ...]
    taken: frozenset[str] = frozenset()


def lock_sources(
    connection: Connection,
    source_ids: Sequence[str],
    stored_node_ids: Iterable[str],
    moving_node_ids: Collection[str],
    now: datetime,
) -> LockedSources:
    """Lock the sources that no other transaction holds, and read what is stored of all of them.

    `stored_node_ids` are the nodes that they carry according to their answers, of which the moving
    ones seem to have new snapshots. Each statement sees what was committed before it, so what is
    read of a source that is locked does not change any more.
    `now` is the run's clock: accounts whose quota period began RENEWAL_AGE before it are not looked
    for.
    """
    wanted = {"source_ids": arrays.texts(source_ids)}
    settled = {"limit": MAX_BILLABLE_RECORDS}
    retired = {"retired_before": now - RETIRED_AGE}
    nodes = {"stored_node_ids": arrays.texts(stored_node_ids)}
    moving = {"stored_node_ids": arrays.texts(moving_node_ids)}
    with connection.pipeline():
        locked = connection.execute(TRY_LOCK_SOURCES, wanted)
        states = connection.execute(READ_SOURCES, wanted)
        owners = connection.execute(READ_NODE_OWNERS, nodes)
        billable = connection.execute(READ_BILLABLE_USAGE, wanted | retired | settled)
        streams = connection.execute(READ_STREAMS, moving)
        debts = connection.execute(READ_ACCOUNT_DEBTS, moving)
        renewed = connection.execute(
            READ_RENEWED_ACCOUNTS,
            {"renewed_since": now - RENEWAL_AGE, "renewed_limit": MAX_RENEWED_ACCOUNTS},
        )
        stale = connection.execute(READ_STALE_CHECKPOINTS, wanted | retired)
    carried = owners.fetchall()
    ours = frozenset(source_id for (source_id,) in locked)
    return LockedSources(
        ours,
        {row[0]: source_state(*row) for row in states},
        {node: source_id for node, source_id, present in carried if node == present},
        _former_owners(carried),
        tuple(
            usage for row in billable if (usage := billable_usage(*row)).source_id in {None, *ours}
        ),
        frozenset(moving_node_ids),
        # An iterator lets go of the rows when it has given the last: what follows takes their place
        # in memory, as it can't take that of the driver's own copy.
        iter(streams.fetchall()),
        debts.fetchall(),
        tuple(account for (account,) in renewed.fetchall()),
        tuple(left for row in stale if (left := StaleCheckpoint(*row)).source_id in {None, *ours}),
    )
