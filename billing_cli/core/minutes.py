"""Whole minutes of a node's usage: what is charged of them, and what is held."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from billing_cli.core.model import HeldDelta
from billing_cli.core.plausibility import CreditBook
from billing_cli.core.times import minute_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from billing_cli.core.model import DeltaPolicy, StreamName, StreamState, UsageRecord
    from billing_cli.core.plausibility import NodeCredit

EARLIEST = datetime.min.replace(tzinfo=UTC)


class Minutes:
    """Collects the steps of streams, minute by minute.

    `records` and `held` are in time order, `current` is the minute that is open.
    `account_of` says what a stream's bytes belong to.
    """

    def __init__(
        self, policy: DeltaPolicy, credit: NodeCredit, account_of: Callable[[StreamName], str]
    ) -> None:
        self.credit = CreditBook(policy, credit)
        self.records: list[UsageRecord] = []
        self.held: list[HeldDelta] = []
        self._account_of = account_of
        self.current = EARLIEST
        self._stamps: list[datetime] = []
        self._steps: list[UsageRecord] = []
        self._duplicates: list[UsageRecord] = []

    def enter(self, at: datetime) -> None:
        """Go on to the minute of a snapshot taken at `at`; close the one before."""
        minute = minute_of(at)
        if minute != self.current:
            self.close()
            self.current = minute
        self._stamps.append(at)

    def add(self, step: UsageRecord, state: StreamState) -> None:
        """Add a step of an active or a duplicate stream to the minute."""
        (self._steps if state == "active" else self._duplicates).append(step)

    def close(self) -> None:
        """Join the minute's steps, and hold those that are above the plausible rate."""
        self.held += [HeldDelta(record, "duplicate") for record in _joined(self._duplicates)]
        # Nearly every minute has one snapshot, and nothing to join.
        records = _joined(self._steps) if len(self._stamps) > 1 else list(self._steps)
        last_at = self._stamps[-1] if self._stamps else EARLIEST
        self._duplicates.clear()
        self._steps.clear()
        self._stamps.clear()
        if not records:
            return
        usage: defaultdict[str, int] = defaultdict(int)
        for name, _, _, _, _, start, end in records:
            size_bytes = end.uplink - start.uplink + end.downlink - start.downlink
            usage[self._account_of(name)] += size_bytes
        held, is_node_held = self.credit.admit(usage, last_at)
        if not held and not is_node_held:
            self.records += records
            return
        for record in records:
            if self._account_of(record.name) in held:
                self.held.append(HeldDelta(record, "account_rate"))
            elif is_node_held:
                self.held.append(HeldDelta(record, "line_rate"))
            else:
                self.records.append(record)


def _joined(steps: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Return the steps of one minute with those joined that follow each other in a stream."""
    finished: list[UsageRecord] = []
    last: dict[StreamName, UsageRecord] = {}
    for record in steps:
        joined = record
        earlier = last.get(record.name)
        if earlier is not None:
            if earlier.reset_epoch == record.reset_epoch and earlier.end == record.start:
                joined = record._replace(from_at=earlier.from_at, start=earlier.start)
            else:
                finished.append(earlier)
        last[record.name] = joined
    return [*finished, *last.values()]
