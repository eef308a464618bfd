"""A source whose node has too many streams, or too many new ones, fails before it is stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from billing_cli.core.stream_limits import HOUR, NewStreams, excess
from billing_cli.core.times import EARLIEST
from billing_cli.database.stream_limits import read_accepted, read_new_streams
from billing_cli.exporter.api import ExporterError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from psycopg import Connection

    from billing_cli.config.source import Source
    from billing_cli.core.model import StreamName
    from billing_cli.jobs.context import JobContext
    from billing_cli.jobs.plans import SourcePlan

# An operator's word is for a run that comes soon; one that was not needed does not lie around.
ACCEPTED_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Limited:
    """The plans that may be written, those of them that need `accepted`, and why others fail."""

    plans: list[SourcePlan]
    accepted: frozenset[str]
    errors: Mapping[str, ExporterError]


def within_stream_limits(
    context: JobContext,
    connection: Connection,
    by_id: Mapping[str, Source],
    plans: Sequence[SourcePlan],
) -> Limited:
    """Sort out the plans of nodes with too many streams. The sources are locked.

    The hour before a plan's first new stream counts too, so that small steps are no way around.
    """
    new = {plan.source_id: names for plan in plans if (names := _new_names(plan))}
    if not new:
        return Limited(list(plans), frozenset(), {})
    earlier = read_new_streams(
        connection,
        [
            (plan.source_id, plan.identity.stored, _an_hour_before(plan, new[plan.source_id]))
            for plan in plans
            if plan.source_id in new
        ],
    )
    reasons = {}
    for plan in plans:
        if plan.source_id in new:
            names = new[plan.source_id]
            found = [*earlier.get(plan.source_id, ()), *_counted(plan, names)]
            policy = context.policy_of(by_id[plan.source_id])
            genuine = names - _continued(plan)
            if reason := excess(policy, found, _streams_by_account(plan, genuine)):
                reasons[plan.source_id] = reason
    if not reasons:
        return Limited(list(plans), frozenset(), {})
    accepted = read_accepted(connection, sorted(reasons), context.clock() - ACCEPTED_FOR)
    errors = {
        source_id: ExporterError(
            f"{reason}: nothing of it is stored; where they are real: billing sources accept "
            f"{source_id}, or a higher limit for the source",
            code="too_many_streams",
        )
        for source_id, reason in reasons.items()
        if source_id not in accepted
    }
    return Limited(
        [plan for plan in plans if plan.source_id not in errors], frozenset(accepted), errors
    )


def _new_names(plan: SourcePlan) -> set[StreamName]:
    """Return the streams that get a row, without those of the legacy writer."""
    return plan.advance.origins.keys() - plan.rows.keys() - plan.taken_over.keys()


def _continued(plan: SourcePlan) -> set[StreamName]:
    """Return the streams that took over the counters of others."""
    return {side.name for succession in plan.advance.successions for side in succession.continued}


def _an_hour_before(plan: SourcePlan, names: Collection[StreamName]) -> datetime:
    """Return an hour before the first of the streams was seen, or the beginning of time."""
    first = min(plan.advance.origins[name][1].seen_at for name in names)
    return first - min(HOUR, first - EARLIEST)


def _counted(plan: SourcePlan, names: Collection[StreamName]) -> list[NewStreams]:
    continued = _continued(plan)
    counts = Counter(
        (
            plan.advance.origins[name][1].seen_at,
            name.sample_uuid not in plan.accounts,
            name in continued,
        )
        for name in names
    )
    return [
        NewStreams(at, is_unresolved, count, is_succession)
        for (at, is_unresolved, is_succession), count in counts.items()
    ]


def _streams_by_account(plan: SourcePlan, new: Collection[StreamName]) -> Mapping[str, int]:
    """Count the streams, known and new, of the accounts that have new ones."""
    account_of = plan.accounts.get
    counts = Counter(account_of(name.sample_uuid, name.sample_uuid) for name in new)
    checkpoints = plan.advance.checkpoints
    for name, row in plan.rows.items():
        account = account_of(name.sample_uuid) or row.account_uuid or name.sample_uuid
        changed = checkpoints.get(name)
        if account in counts and not (changed and changed.state == "continued"):
            counts[account] += 1
    return counts
