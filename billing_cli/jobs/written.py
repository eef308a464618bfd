"""What a step wrote, and what of it is of each source."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from billing_cli.core.result import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from billing_cli.core.model import Charge
    from billing_cli.jobs.accounts import LockedAccounts
    from billing_cli.jobs.entries import Minutes
    from billing_cli.jobs.plans import SourcePlan
    from billing_cli.jobs.usage import Usage

# A source's result names this many accounts that can't be charged, or samples that can't be used,
# and counts the others.
NOTES_SHOWN = 10

ABOVE_WITHOUT_SOURCE = (
    "account {}: late usage on a node that no source carries any more is above a daily maximum, "
    "and stays pending; a run with a higher maximum charges it"
)


class Charged(NamedTuple):
    """What was charged for a source: bytes, included in quotas or rated, and money."""

    size_bytes: int = 0
    amount: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Written(Counts):
    """What was written. `unresolved`, `notes`, `charged` and `held` are by source id.

    What is of nodes that no source carries any more is that of None. `held` counts the deltas above
    a daily maximum.
    """

    unresolved: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str | None, Sequence[str]] = field(default_factory=dict)
    charged: Mapping[str, Charged] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)

    def plus(self, other: Written) -> Written:
        """Return both together."""
        return Written(
            {**self.unresolved, **other.unresolved},
            {**self.notes, **other.notes},
            {**self.charged, **other.charged},
            {**self.held, **other.held},
            **self.sums(other),
        )


def written_of(
    plans: Sequence[SourcePlan],
    usage: Usage,
    minutes: Minutes,
    charges: Sequence[Charge],
    accounts: LockedAccounts,
) -> Written:
    """Return what a step wrote; `charges` are its entries."""
    return Written(
        processed_samples=sum(plan.advance.samples for plan in plans),
        written_minutes=len({charge.key for charge in charges}),
        replayed_minutes=len(minutes.replayed) + len(minutes.taken_over),
        included_bytes=sum(charge.included_bytes for charge in charges),
        charged_bytes=sum(charge.rated_bytes for charge in charges),
        amount=0 - sum((charge.amount_delta for charge in charges), Decimal(0)),
        unresolved={source_id: len(names) for source_id, names in usage.pending_streams.items()},
        notes=_notes(usage, accounts),
        charged=_charged_by_source(
            charges, {plan.identity.stored: plan.source_id for plan in plans}
        ),
        held=usage.above,
    )


def _notes(usage: Usage, accounts: LockedAccounts) -> dict[str | None, Sequence[str]]:
    """Return why usage was left to a later run, by source id."""
    problems: dict[str | None, list[str]] = {
        source_id: [accounts.problems[uuid] for uuid in sorted(uuids)]
        for source_id, uuids in usage.problems.items()
        if uuids
    }
    if usage.left:
        problems.setdefault(None, []).extend(map(ABOVE_WITHOUT_SOURCE.format, sorted(usage.left)))
    return {source_id: notes_of(found) for source_id, found in problems.items()}


def _charged_by_source(charges: Iterable[Charge], sources: Mapping[str, str]) -> dict[str, Charged]:
    """Sum charges by source; `sources` are source ids by stored node id."""
    size_bytes: defaultdict[str, int] = defaultdict(int)
    amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
    for charge in charges:
        node = charge.key.stored_node_id
        size_bytes[node] += charge.included_bytes + charge.rated_bytes
        amounts[node] -= charge.amount_delta
    return {
        source_id: Charged(size_bytes[node], amounts[node])
        for node, source_id in sources.items()
        if node in size_bytes
    }


def notes_of(problems: Sequence[str]) -> list[str]:
    """Return the first problems, and how many more there are."""
    rest = len(problems) - NOTES_SHOWN
    more = [f"and {rest} more accounts can't be charged now"] if rest > 0 else []
    return [*problems[:NOTES_SHOWN], *more]
