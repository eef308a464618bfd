"""`sources move`: what was collected from a source goes on under another source, or node id.

Everything is written in one transaction, under the locks of both sources' rows. Nothing is charged:
the next run goes on from the same watermark and the same counters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from billing_cli.core.model import NodeIdentity
from billing_cli.core.objects import attributes
from billing_cli.core.result import RunResult, SourceResult
from billing_cli.core.times import format_rfc3339
from billing_cli.database.moving import move_progress
from billing_cli.database.schema import require_head
from billing_cli.database.sources import (
    add_sources,
    read_former_owners,
    read_sources,
    try_lock_sources,
)
from billing_cli.errors import BillingError, UsageError
from billing_cli.features.sources.queries import continue_counters, read_node
from billing_cli.jobs.assignment import former_id_problem
from billing_cli.jobs.run_history import in_one_transaction
from billing_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.database.sources import SourceState
    from billing_cli.jobs.context import JobContext

JOB = "sources-move"


@dataclass(frozen=True, slots=True)
class MoveResult(RunResult):
    """What was moved: from a source and its stored node id to another source, or another id.

    `streams` counts the counters that go on under the new node id; `watermark` is where the next
    run goes on.
    """

    old_source_id: str = ""
    new_source_id: str = ""
    old_node_id: str = ""
    new_node_id: str = ""
    streams: int = 0
    watermark: datetime | None = None

    @property
    def details(self) -> Mapping[str, Any]:
        """The move, as `moved`; null where there was none."""
        if self.watermark is None:
            return {"moved": None}
        return {
            "moved": {
                **attributes(self, "old_source_id new_source_id old_node_id new_node_id streams"),
                "last_completed_until": format_rfc3339(self.watermark),
            }
        }


def move_source(
    context: JobContext,
    old: str,
    new: str,
    *,
    is_same_counters: bool = False,
    dry_run: bool = False,
) -> MoveResult:
    """Let source `new` go on where `old` stands.

    With `is_same_counters` the node itself has another id now: the one that source `new` expects,
    or `new` itself where that is written `env:node_id`; `old` stays the source then. Raises
    UsageError for what can't be meant, BillingError where the new source or node has a history of
    its own. The status is `busy` where another run holds one of the sources.
    """
    started_at = context.clock()
    target = _target(context, old, new, is_same_counters=is_same_counters)

    def work(connection: Connection) -> MoveResult:
        require_head(connection)
        return _move(context, connection, old, target, started_at, dry_run=dry_run)

    return in_one_transaction(context, JOB, started_at, work, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where to: a source, and what is said of its node: all of it, its id alone, or nothing."""

    source_id: str
    node_id: str | None
    env: str | None
    is_same_counters: bool

    def identity(self, former: NodeIdentity) -> NodeIdentity:
        """Return the node of the source from now on."""
        return NodeIdentity(
            former.env if self.env is None else self.env,
            former.node_id if self.node_id is None else self.node_id,
        )


def _target(context: JobContext, old: str, new: str, *, is_same_counters: bool) -> _Target:
    by_id: dict[str, Source] = {source.source_id: source for source in context.sources}
    if new in by_id:
        source = by_id[new]
        if is_same_counters and source.expected_node_id is None:
            raise UsageError(
                f"source {new!r} says nothing of its node's new id: set its expected_node_id, or "
                f"name the node: billing sources move {old} ENV:NODE_ID --same-counters"
            )
        if new == old and not is_same_counters:
            raise UsageError(
                "both are the same source; with --same-counters its node has another id now"
            )
        return _Target(new, source.expected_node_id, source.expected_env, is_same_counters)
    if is_same_counters and ":" in new:
        env, _, node_id = new.partition(":")
        if node_id:
            return _Target(old, node_id, env, is_same_counters=True)
    known = ", ".join(sorted(by_id)) or "none"
    raise UsageError(
        f"unknown source {new}{did_you_mean(new, by_id)}; configured: {known}; "
        "a new one is configured first"
    )


def _move(
    context: JobContext,
    connection: Connection,
    old: str,
    target: _Target,
    started_at: datetime,
    *,
    dry_run: bool,
) -> MoveResult:
    """Lock, check and write, in the open transaction."""
    new = target.source_id
    begun = MoveResult(JOB, context.run_id, "ok", started_at, started_at, dry_run=dry_run)
    busy = _lock(connection, old, new)
    if busy:
        reason = f"another run holds the source {', '.join(busy)}"
        sources = tuple(SourceResult(source_id, "busy") for source_id in busy)
        return replace(
            begun, status="busy", finished_at=context.clock(), error=reason, sources=sources
        )
    states = read_sources(connection, [old, new])
    identity, watermark = states[old].identity, states[old].watermark
    if identity is None or watermark is None:
        raise UsageError(
            f"nothing has been collected from source {old!r}: there is nothing to move"
        )
    node = target.identity(identity)
    _require_free(connection, states[old], states[new], target, node)
    move_progress(connection, old, new, node)
    streams = 0
    if node != identity:
        streams = continue_counters(
            connection,
            source_id=new,
            former_node=identity.stored,
            node=node.stored,
            samples_at=states[old].samples_at or watermark,
            run_id=context.run_id,
        )
    return replace(
        begun,
        finished_at=context.clock(),
        old_source_id=old,
        new_source_id=new,
        old_node_id=identity.stored,
        new_node_id=node.stored,
        streams=streams,
        watermark=watermark,
        sources=(
            SourceResult(new, node_id=node.node_id, env=node.env, last_completed_until=watermark),
        ),
    )


def _lock(connection: Connection, old: str, new: str) -> list[str]:
    """Lock the rows of both sources; return those that another run holds."""
    names = {old, new}
    if read_sources(connection, [old])[old].watermark is None:
        # Nothing to move; no row is made for a name that may be misspelt.
        return []
    add_sources(connection, [new])
    return sorted(names - try_lock_sources(connection, sorted(names)))


def _require_free(
    connection: Connection,
    old: SourceState,
    new: SourceState,
    target: _Target,
    node: NodeIdentity,
) -> None:
    """Raise BillingError where the new source, or the new node id, has a history of its own."""
    if old.identity is None or old.watermark is None:
        raise AssertionError("the caller has looked")
    if new.source_id != old.source_id:
        is_legacy = new.legacy_watermark is not None and new.legacy_watermark > old.watermark
        if new.watermark is not None or is_legacy:
            raise BillingError(
                f"source {new.source_id!r} has been collected already, up to "
                f"{format_rfc3339(new.watermark or new.legacy_watermark or old.watermark)}: "
                "it can't go on with the progress of another one"
            )
    if node == old.identity:
        if target.is_same_counters:
            raise UsageError(
                f"the node of source {old.source_id!r} has the id {node.stored!r} already"
            )
        return
    if not target.is_same_counters:
        raise UsageError(
            f"source {new.source_id!r} expects node {node.stored!r}, but {old.identity.stored!r} "
            f"was collected from {old.source_id!r}; where that node has another id now, and its "
            "counters go on, add --same-counters"
        )
    former = read_former_owners(connection, [node.stored]).get(node.stored)
    if former is not None and former.source_id != old.source_id:
        raise BillingError(former_id_problem(node.stored, former))
    owner, has_counters = read_node(connection, node.stored)
    if owner is not None or has_counters:
        by = f" by source {owner!r}" if owner is not None else ""
        raise BillingError(
            f"node {node.stored!r} has been collected already{by}: the counters of "
            f"{old.identity.stored!r} can't go on under its id"
        )
