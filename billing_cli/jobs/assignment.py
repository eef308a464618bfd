"""Which source a node belongs to, and so which answers may be used."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from billing_cli.addresses import is_loopback
from billing_cli.core.deltas import not_yet_applied
from billing_cli.core.times import format_rfc3339
from billing_cli.database.moving import move_progress
from billing_cli.database.sources import read_sources, try_lock_sources
from billing_cli.exporter.api import ExporterError, Fetched

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.model import NodeIdentity
    from billing_cli.database.sources import FormerOwner, LockedSources, SourceState


MOVE = "billing sources move"


def expects(source: Source | None, node: NodeIdentity) -> bool:
    """Return whether a source is configured to be of this node."""
    return (
        source is not None
        and source.expected_node_id == node.node_id
        and source.expected_env in {None, node.env}
    )


def missing_assignment(source: Source) -> tuple[str, ...]:
    """Return which of the keys that name its node a source beyond this machine lacks."""
    if is_loopback(urlsplit(source.base_url).hostname or ""):
        return ()
    keys = ("expected_node_id", "expected_env")
    return tuple(key for key in keys if getattr(source, key) is None)


def assign_nodes(
    connection: Connection,
    sources: Iterable[Source],
    outcomes: Mapping[str, Fetched | ExporterError],
    locked: LockedSources,
) -> LockedSources:
    """Give nodes that a source claimed to the source that expects them.

    Only while the claimant is configured and free, and nothing was collected from the other one:
    else `billing sources move` says what is meant. What the claimant collected stays as it is. The
    node is given away together with new samples, which show whether the counters go on.
    """
    configured = {source.source_id: source for source in sources}
    assigned = dict(locked.node_owners)
    taken = set()
    for source_id in sorted(locked.source_ids):
        answer = outcomes[source_id]
        if not isinstance(answer, Fetched) or answer.identity is None:
            continue
        node = answer.identity
        owner = assigned.get(node.stored)
        if (
            owner in {None, source_id}
            or owner not in configured
            or locked.states[source_id].watermark is not None
            or not expects(configured[source_id], node)
            or expects(configured[owner], node)
            or not (owner in locked.source_ids or try_lock_sources(connection, [owner]))
            or not any(
                snapshot.totals
                for snapshot in not_yet_applied(
                    read_sources(connection, [owner])[owner].watermark, answer.snapshots
                )
            )
        ):
            continue
        move_progress(connection, owner, source_id, node)
        assigned[node.stored] = source_id
        taken.add(source_id)
    if assigned == locked.node_owners:
        return locked
    states = read_sources(connection, sorted(locked.states))
    return replace(locked, states=states, node_owners=assigned, taken=frozenset(taken))


def accept(
    by_id: Mapping[str, Source],
    outcomes: Mapping[str, Fetched | ExporterError],
    locked: LockedSources,
    asked: Mapping[str, SourceState],
) -> tuple[dict[str, Fetched], dict[str, ExporterError]]:
    """Return the answers of the locked sources that may be used, and why others may not.

    `asked` are the states from which the exporters were asked.
    """
    errors: dict[str, ExporterError] = {}
    accepted: dict[str, Fetched] = {}
    for source_id in sorted(locked.source_ids):
        outcome = outcomes[source_id]
        if isinstance(outcome, Fetched):
            state = locked.states[source_id]
            problem = _identity_problem(by_id[source_id], state, outcome.identity)
            if problem:
                errors[source_id] = ExporterError(problem, code="wrong_identity")
            else:
                accepted[source_id] = outcome
        else:
            errors[source_id] = _with_hint(outcome, locked.states[source_id])
    for source_id, problem in _ownership_problems(by_id, accepted, locked).items():
        errors[source_id] = ExporterError(problem, code="wrong_identity")
        del accepted[source_id]
    for source_id in list(accepted):
        if lost := _lost_commits(asked[source_id], locked.states[source_id]):
            errors[source_id] = ExporterError(lost)
            del accepted[source_id]
    return accepted, errors


def _lost_commits(asked: SourceState, now: SourceState) -> str:
    """Return why an answer begins too late, empty where it does not.

    A failover to a replica that lags takes the watermark back while an exporter is asked. What
    lies in between is not in the answer: its bytes would be billed in one minute, and counters
    that restarted there would go unnoticed.
    """
    if asked.watermark is None or (now.watermark and now.watermark >= asked.watermark):
        return ""
    where = format_rfc3339(now.watermark) if now.watermark else "gone"
    return (
        f"the database has lost commits: the watermark was {format_rfc3339(asked.watermark)} when "
        f"the exporter was asked, and is now {where}; the next run asks again from there"
    )


def _identity_problem(
    source: Source, state: SourceState, identity: NodeIdentity | None
) -> str | None:
    """A source that suddenly speaks for another node needs the operator's word for it."""
    if identity is None or state.identity is None or identity == state.identity:
        return None
    if source.expected_node_id == identity.node_id and source.expected_env in {None, identity.env}:
        return None
    return (
        f"answers as node {identity.stored!r}, but was {state.identity.stored!r} so far; where the "
        f"node has another id now: {MOVE} {source.source_id} {identity.stored} --same-counters; "
        "where this is another node: set expected_node_id"
    )


def _with_hint(error: ExporterError, state: SourceState) -> ExporterError:
    """Name the command for a node that has another id now, where the exporter's names differ."""
    if error.code != "wrong_identity" or state.identity is None:
        return error
    return ExporterError(
        f"{error.reason}; where node {state.identity.stored!r} has another id now: "
        f"{MOVE} {state.source_id} ENV:NODE_ID --same-counters",
        code=error.code,
    )


def _ownership_problems(
    by_id: Mapping[str, Source],
    accepted: Mapping[str, Fetched],
    locked: LockedSources,
) -> dict[str, str]:
    """Find the sources whose node belongs to another one: it would be billed twice.

    A node without an owner belongs to the only source that expects it, else to none of several. An
    id that another source's node had before stays that one's: its counters went on from there.
    """
    problems = {}
    claims: dict[str, list[str]] = {}
    owners = dict(locked.node_owners)
    for source_id, fetched in accepted.items():
        if fetched.identity is None:
            continue
        node = fetched.identity.stored
        former = locked.former_owners.get(node)
        if former and former.source_id != source_id and node not in locked.node_owners:
            problems[source_id] = former_id_problem(node, former)
            continue
        claims.setdefault(node, []).append(source_id)
        if expects(by_id[source_id], fetched.identity):
            owners.setdefault(node, source_id)
    for node, claimants in claims.items():
        owner = owners.get(node)
        for source_id in claimants:
            others = (
                [owner] if owner else [claimant for claimant in claimants if claimant != source_id]
            )
            if others and source_id != owner:
                problems[source_id] = (
                    f"node {node!r} is claimed by the sources {source_id!r} and {others[0]!r}; "
                    "it would be billed twice"
                    + (
                        f"; to go on under another source: {MOVE} {owner} {source_id}"
                        if owner
                        else ""
                    )
                )
    return problems


def former_id_problem(stored_node_id: str, former: FormerOwner) -> str:
    """Say why no other machine may have the id that a source's node had before, and what to do."""
    return (
        f"node {stored_node_id!r} was the former id of source {former.source_id!r}, whose counters "
        f"go on as {former.stored_node_id!r}; give the new machine an id of its own"
    )
