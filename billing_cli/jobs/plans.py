"""What each source's answer amounts to: whose node it is of, and what of it is to be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_cli.core.deltas import not_yet_applied
from billing_cli.core.model import StreamName, Totals
from billing_cli.database.known_streams import read_last_seen, read_streams
from billing_cli.database.sources import read_node_owners
from billing_cli.exporter.api import ExporterError, Fetched
from billing_cli.jobs.source_plan import SourcePlan
from billing_cli.jobs.takeover import end_of_older_writer, take_over

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from psycopg import Connection

    from billing_cli.core.model import NodeIdentity
    from billing_cli.database.sources import SourceState
    from billing_cli.exporter.source import Source
    from billing_cli.jobs.context import JobContext


def accept(
    connection: Connection,
    by_id: Mapping[str, Source],
    outcomes: Mapping[str, Fetched | ExporterError],
    locked: Collection[str],
    states: Mapping[str, SourceState],
) -> tuple[dict[str, Fetched], dict[str, ExporterError]]:
    """Return the answers of the locked sources that may be used, and why others may not."""
    errors: dict[str, ExporterError] = {}
    accepted: dict[str, Fetched] = {}
    for source_id in sorted(locked):
        outcome = outcomes[source_id]
        if isinstance(outcome, Fetched):
            problem = _identity_problem(by_id[source_id], states[source_id], outcome.identity)
            if problem:
                errors[source_id] = ExporterError(problem, code="wrong_identity")
            else:
                accepted[source_id] = outcome
        else:
            errors[source_id] = outcome
    for source_id, problem in _ownership_problems(connection, accepted).items():
        errors[source_id] = ExporterError(problem, code="wrong_identity")
        del accepted[source_id]
    return accepted, errors


def plan(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    accepted: Mapping[str, Fetched],
    states: Mapping[str, SourceState],
) -> list[SourcePlan]:
    """Plan what each source's snapshots amount to, from the streams as they are now."""
    identified = {
        source_id: (fetched, fetched.identity)
        for source_id, fetched in accepted.items()
        if fetched.identity is not None
    }
    watermarks, told = {}, {}
    for source_id, (fetched, identity) in identified.items():
        state = states[source_id]
        if state.watermark is not None and state.identity == identity:
            watermarks[identity.stored] = state.watermark
        # What is told of each stream first: as a rule what was seen of it last.
        totals = told[identity.stored] = dict[StreamName, Totals]()
        for snapshot in reversed(fetched.snapshots):
            totals.update(snapshot.totals)
    # A node that its source has not spoken for lately, or that had another one, is known as well.
    seen_last = watermarks | read_last_seen(connection, told.keys() - watermarks.keys())
    streams = read_streams(connection, seen_last, told)
    since = {
        identity.stored: seen_last.get(identity.stored)
        or end_of_older_writer(states[source_id].older_watermark)
        for source_id, (_, identity) in identified.items()
    }
    older = take_over(
        connection,
        {
            identity.stored: (not_yet_applied(since[identity.stored], fetched.snapshots), unknown)
            for fetched, identity in identified.values()
            if (unknown := told[identity.stored].keys() - streams[identity.stored].rows.keys())
        },
    )
    plans = []
    for source_id, (fetched, identity) in identified.items():
        plans.append(
            SourcePlan(
                source_id=source_id,
                identity=identity,
                contract=fetched.contract,
                region=by_id[source_id].region or context.tariff.default_region,
                streams=streams[identity.stored],
                since=since[identity.stored],
                snapshots=fetched.snapshots,
                policy=context.policy_of(by_id[source_id]),
                continuity_expected=identity.stored in watermarks and fetched.contract == "window",
                taken_over=older.get(identity.stored, {}),
                notes=fetched.notes,
            )
        )
    return plans


def _identity_problem(
    source: Source, state: SourceState, identity: NodeIdentity | None
) -> str | None:
    """A source that suddenly speaks for another node needs the operator's word for it."""
    if identity is None or state.identity is None or identity == state.identity:
        return None
    if source.expected_node_id == identity.node_id and source.expected_env in {None, identity.env}:
        return None
    return (
        f"answers as node {identity.stored!r}, but was {state.identity.stored!r} so far; "
        "set expected_node_id where this is meant"
    )


def _ownership_problems(connection: Connection, accepted: Mapping[str, Fetched]) -> dict[str, str]:
    """Find the sources whose node belongs to another one: it would be billed twice."""
    claims: dict[str, list[str]] = {}
    for source_id, fetched in accepted.items():
        if fetched.identity is not None:
            claims.setdefault(fetched.identity.stored, []).append(source_id)
    owners = read_node_owners(connection, claims) if claims else {}
    problems = {}
    for node, claimants in claims.items():
        owner = owners.get(node)
        for source_id in claimants:
            others = [owner] if owner else [one for one in claimants if one != source_id]
            if others and source_id != owner:
                problems[source_id] = (
                    f"node {node!r} is claimed by the sources {source_id!r} and {others[0]!r}; "
                    "it would be billed twice"
                )
    return problems
