"""Rows of streams that are new or have found their owner, and what an account's streams come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.checkpoints import sum_by_account
from billing_cli.core.model import Checkpoint
from billing_cli.core.succession import ZERO
from billing_cli.database import facts, streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.model import StreamName, StreamOrigin
    from billing_cli.database.known_streams import StreamRow
    from billing_cli.jobs.owners import Owners
    from billing_cli.jobs.source_plan import SourcePlan


# Shared checkpoints by stored node id and account.
Sums = dict[str, dict[str, Checkpoint]]


def write_streams(
    connection: Connection, plans: Sequence[SourcePlan], owners: Owners
) -> dict[tuple[str, StreamName], int]:
    """Write new and newly owned streams; return the ids of the new ones."""
    watermarks = {plan.identity.stored: plan.watermark for plan in plans}
    new, assigned = [], []
    for plan in plans:
        node, rows = plan.identity.stored, plan.streams.rows
        accounts = owners.accounts_of(plan)
        for name, checkpoint in {**plan.taken_over, **plan.advance.checkpoints}.items():
            if name not in rows:
                first_sight, first = _first_sight(plan, name)
                new.append((node, name, accounts.get(name), first_sight, first, checkpoint))
        for name, row in rows.items():
            if row.account_uuid is None and name in accounts:
                assigned.append((row.stream_id, accounts[name]))
    streams.assign_streams(connection, assigned)
    return streams.add_streams(connection, new, watermarks)


def write_shared_checkpoints(
    connection: Connection, plans: Sequence[SourcePlan], owners: Owners
) -> facts.Sent:
    """Bring the shared checkpoints of the owners up to date."""
    sums = shared_checkpoints(plans, owners)
    fresh: Sums = {}
    for plan in plans:
        node, accounts = plan.identity.stored, owners.accounts_of(plan)
        theirs = {accounts[name] for name in owners.found[plan.source_id] if name in accounts}
        fresh[node] = {account: sums[node][account] for account in theirs}
    facts.add_shared_checkpoints(connection, fresh)
    return facts.update_shared_checkpoints(connection, sums)


def shared_checkpoints(plans: Sequence[SourcePlan], owners: Owners) -> Sums:
    """Sum the present streams of each account of which one has changed, by stored node id."""
    sums = {}
    for plan in plans:
        accounts = sum_by_account(_owned_streams(plan, owners.accounts_of(plan)))
        # In key order, which is mostly that of the rows: these are then changed page by page.
        sums[plan.identity.stored] = {account: accounts[account] for account in sorted(accounts)}
    return sums


def _owned_streams(
    plan: SourcePlan, accounts: Mapping[StreamName, str]
) -> Iterator[tuple[str, Checkpoint]]:
    """Yield the streams of those accounts; absent ones, which the database sums, are at zero."""
    if not accounts:
        return
    known, watermark = plan.streams, plan.watermark
    changed = {**plan.taken_over, **plan.advance.checkpoints}
    for name, one in changed.items():
        account = accounts.get(name)
        if account is not None:
            yield account, one if one.seen_at == watermark else one._replace(totals=ZERO)
    wanted = set(accounts.values())
    for name, one in known.checkpoints.items():
        if name not in changed:
            account = known.rows[name].account_uuid or accounts.get(name)
            if account in wanted:
                yield account, one._replace(totals=ZERO) if name in known.absent else one
    for name in known.pending.keys() - known.checkpoints.keys() - changed.keys():
        if name in accounts:
            yield accounts[name], Checkpoint(known.pending[name][-1].to_at, ZERO)


class StreamIds(NamedTuple):
    """The ids of a node's streams: most are known, and few have just been made."""

    node: str
    rows: Mapping[StreamName, StreamRow]
    new: Mapping[tuple[str, StreamName], int]

    def __call__(self, name: StreamName) -> int:
        """Return the id of a stream."""
        row = self.rows.get(name)
        return self.new[self.node, name] if row is None else row.stream_id


def _first_sight(plan: SourcePlan, name: StreamName) -> tuple[StreamOrigin, Checkpoint]:
    if name in plan.taken_over:
        return "taken_over", plan.taken_over[name]
    return plan.advance.first_sights[name]
