"""Whose the streams of a step are: found, locked, and asked what they pay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from billing_cli.database import accounts as store_accounts
from billing_cli.database import streams

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from psycopg import Connection

    from billing_cli.core.model import StreamName
    from billing_cli.jobs.payers import Payers
    from billing_cli.jobs.source_plan import SourcePlan

MAX_SHOWN_ACCOUNTS = 10

_name_of = attrgetter("name")


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose streams are, by source id and name.

    `found` are the streams of which it was not known before, `asked` counts those of which it
    should be known, and `notes` say why some are nobody's for now.
    """

    by_source: Mapping[str, Mapping[StreamName, str]]
    found: Mapping[str, Sequence[StreamName]]
    asked: Mapping[str, int]
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def accounts_of(self, plan: SourcePlan) -> Mapping[StreamName, str]:
        """Return the accounts of a plan's streams, as far as they have one."""
        return self.by_source[plan.source_id]

    def unresolved(self) -> dict[str, int]:
        """Return how many streams are nobody's, by source id."""
        return {one: asked - len(self.by_source[one]) for one, asked in self.asked.items()}

    def that_can_pay(self, payers: Payers) -> Owners:
        """Return those that can be charged: the very same, where all of them can.

        An account that is gone, or whose figures money can't be computed with, owns nothing for
        now: its usage stays pending instead of being lost or blocking the others.
        """
        if not payers.gone and not payers.problems:
            return self
        unusable = payers.gone | payers.problems.keys()
        by_source, notes = {}, {}
        for source_id, owners in self.by_source.items():
            by_source[source_id] = {
                name: one for name, one in owners.items() if one not in unusable
            }
            problems = payers.problems.keys() & owners.values()
            shown = sorted(problems)[:MAX_SHOWN_ACCOUNTS]
            notes[source_id] = [payers.problems[account] for account in shown]
            if len(problems) > len(shown):
                more = len(problems) - len(shown)
                notes[source_id].append(f"{more} more accounts can't be charged")
        return replace(self, by_source=by_source, notes=notes)

    def accounts(self) -> Iterator[Collection[str]]:
        """Yield the accounts of each source's streams."""
        return (owners.values() for owners in self.by_source.values())


def lock_owners(
    connection: Connection, plans: Sequence[SourcePlan]
) -> tuple[Owners, store_accounts.Locking]:
    """Find whose the streams are, and lock those accounts in key order; update the streams."""
    # Asked for before anything is computed, so that the server has these to look at meanwhile.
    movers = dict.fromkeys(chain.from_iterable(plan.movers() for plan in plans))
    locking = store_accounts.lock_users(connection, movers)
    owners = _find_owners(connection, plans)
    kept = dict.fromkeys(chain.from_iterable(owners.accounts()))
    moved = chain.from_iterable(
        map(
            owners.accounts_of(plan).get,
            chain(map(_name_of, plan.advance.records), plan.streams.pending),
        )
        for plan in plans
    )
    charged = dict.fromkeys(account for account in moved if account is not None)
    others = [account for account in kept if account not in movers]
    locking = store_accounts.lock_users(connection, others, locking)
    locking = store_accounts.lock_quota_states(connection, locking, charged.keys())
    # Nobody else touches the streams of a source that is locked: the server may write them while
    # we look at the accounts.
    _update_streams(connection, plans)
    return owners, locking


def _find_owners(connection: Connection, plans: Sequence[SourcePlan]) -> Owners:
    """Return whose the streams are that were touched, and those still without an owner."""
    by_source: dict[str, dict[StreamName, str]] = {}
    found: dict[str, list[StreamName]] = {plan.source_id: [] for plan in plans}
    asked: dict[str, int] = {}
    strangers: list[tuple[str, StreamName]] = []
    for plan in plans:
        rows = plan.streams.rows
        unowned = (name for name, row in rows.items() if row.account_uuid is None)
        # In the order in which they were made: what lies side by side is quick to look at.
        names = {
            **plan.advance.checkpoints,
            **plan.taken_over,
            **plan.streams.pending,
            **dict.fromkeys(unowned),
        }
        owners = by_source[plan.source_id] = {
            name: row.account_uuid
            for name in names
            if (row := rows.get(name)) is not None and row.account_uuid is not None
        }
        if len(owners) < len(names):
            strangers.extend((plan.source_id, name) for name in names.keys() - owners.keys())
        asked[plan.source_id] = len(names)
    resolved = streams.resolve_accounts(connection, (name.sample_uuid for _, name in strangers))
    for source_id, name in strangers:
        if name.sample_uuid in resolved:
            by_source[source_id][name] = resolved[name.sample_uuid]
            found[source_id].append(name)
    return Owners(by_source, found, asked)


def _update_streams(connection: Connection, plans: Sequence[SourcePlan]) -> None:
    """Bring the known streams up to date that have changed."""
    streams.update_streams(
        connection,
        [
            (row.stream_id, plan.identity.stored, checkpoint)
            for plan in plans
            for name, checkpoint in plan.advance.checkpoints.items()
            if (row := plan.streams.rows.get(name)) is not None
        ],
        {plan.identity.stored: plan.watermark for plan in plans},
    )
